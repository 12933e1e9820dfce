"""What a run leaves and the figures made from it. No torch."""
