"""Attacks: perturbations that see the network. `steps` is the one loop; the other files hold what a spec names."""
