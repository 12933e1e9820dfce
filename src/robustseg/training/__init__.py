"""Training: networks from labels, attacked or not, with depth from video or not, with exact resume and any number of processes."""

from robustseg.training.adversarial import Adversary
from robustseg.training.loop import HeldOut, Step, train
from robustseg.training.multitask import DepthTask
from robustseg.training.recipe import Recipe

__all__ = ["Adversary", "DepthTask", "HeldOut", "Recipe", "Step", "train"]
