"""Data sets behind one contract: `Dataset` gives a `Sample` by index, `batches` groups them."""
