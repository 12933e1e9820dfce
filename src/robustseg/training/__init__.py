"""Training: networks from labels, with exact resume and any number of processes."""

from robustseg.training.loop import Recipe, Step, train

__all__ = ["Recipe", "Step", "train"]
