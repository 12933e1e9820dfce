"""Measure networks: perturb, predict, count."""

from robustseg.evaluation.run import Conditions, Cost, Progress, evaluate, plan, recorded

__all__ = ["Conditions", "Cost", "Progress", "evaluate", "plan", "recorded"]
