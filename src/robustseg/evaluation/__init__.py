"""Measure networks: perturb, predict, count."""
