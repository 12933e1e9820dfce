"""Data sets behind one contract: a `Dataset` gives a `Sample` by index, `batches` stacks them."""

from robustseg.datasets.views import Chosen, Resized, Spread, batches, read

__all__ = ["Chosen", "Resized", "Spread", "batches", "read"]
