"""Records to what people read: one self-contained page, its figures, and the comparison of two runs. No torch."""

from robustseg.report.compare import Comparison, compare

__all__ = ["Comparison", "compare"]
