"""Training: one loop with exact resume and any number of processes; tasks for labels, adversarial training and depth from video."""

from robustseg.training.adversarial import Adversary
from robustseg.training.depth import DepthTask
from robustseg.training.loop import Step
from robustseg.training.recipe import Recipe
from robustseg.training.run import train
from robustseg.training.task import HeldOut

__all__ = ["Adversary", "DepthTask", "HeldOut", "Recipe", "Step", "train"]
