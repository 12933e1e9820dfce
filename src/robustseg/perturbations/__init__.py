"""Perturbations that see no network."""
