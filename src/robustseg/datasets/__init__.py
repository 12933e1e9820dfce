"""Data sets behind one contract: a `Dataset` gives a `Sample` by index, `batches` stacks them."""

from robustseg.datasets.views import Resized, Spread, batches

__all__ = ["Resized", "Spread", "batches"]
