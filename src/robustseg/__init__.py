"""How far noise and attacks break a semantic segmentation network: measure, train, watch.

>>> import robustseg as rs
>>> budget = rs.Budget.parse("linf:8/255")
>>> budget.norm, round(budget.eps * 255)
('linf', 8)
"""

import importlib
from typing import TYPE_CHECKING, Any

from robustseg.core.version import __version__ as __version__

if TYPE_CHECKING:
    from robustseg.api import data as data
    from robustseg.api import network as network
    from robustseg.api import perturbation as perturbation
    from robustseg.core.budget import Budget as Budget
    from robustseg.core.errors import RobustsegError as RobustsegError
    from robustseg.core.labels import LabelSpace as LabelSpace
    from robustseg.core.random import ImageRng as ImageRng
    from robustseg.core.types import Network as Network
    from robustseg.evaluation.run import Conditions as Conditions
    from robustseg.evaluation.run import evaluate as evaluate
    from robustseg.networks.adapters import adapt as adapt
    from robustseg.results.record import Counts as Counts
    from robustseg.results.record import Record as Record

_PUBLIC = {
    "adapt": "networks.adapters",
    "Budget": "core.budget",
    "Conditions": "evaluation.run",
    "Counts": "results.record",
    "data": "api",
    "evaluate": "evaluation.run",
    "ImageRng": "core.random",
    "LabelSpace": "core.labels",
    "Network": "core.types",
    "network": "api",
    "perturbation": "api",
    "Record": "results.record",
    "RobustsegError": "core.errors",
}
__all__ = sorted([*_PUBLIC, "__version__"])


def __getattr__(name: str) -> Any:
    """Load public names when they are first used, so that `import robustseg` needs no torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'robustseg' has no attribute '{name}'")
    return getattr(importlib.import_module(f"robustseg.{_PUBLIC[name]}"), name)
