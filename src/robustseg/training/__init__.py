"""Training: networks from labels, attacked or not, with exact resume and any number of processes."""

from robustseg.training.adversarial import Adversary
from robustseg.training.loop import HeldOut, Recipe, Step, train

__all__ = ["Adversary", "HeldOut", "Recipe", "Step", "train"]
