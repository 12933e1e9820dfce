"""Paint images by the gradients of a network."""
