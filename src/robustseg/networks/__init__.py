"""Networks: images in [0, 1] in, logits at their size out."""
