"""Attacks: perturbations that see the network. `steps` is the one loop, `gradient` and `presets` what a spec names."""
