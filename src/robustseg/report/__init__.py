"""Records to what people read: one self-contained page, its figures, and the comparison of two runs. No torch."""

from robustseg.report.compare import Comparison, compare
from robustseg.report.figures import q_figure, recall_figure, strength_figure
from robustseg.report.page import page, write_report
from robustseg.results.worst import WorstCase, worst_cases

__all__ = [
    "Comparison",
    "WorstCase",
    "compare",
    "page",
    "q_figure",
    "recall_figure",
    "strength_figure",
    "worst_cases",
    "write_report",
]
