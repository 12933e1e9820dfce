"""How far noise and attacks break a semantic segmentation network: measure, train, watch.

>>> import robustseg as rs
>>> budget = rs.Budget.parse("linf:8/255")
>>> budget.norm, round(budget.eps * 255)
('linf', 8)
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from robustseg.api import data as data
    from robustseg.api import network as network
    from robustseg.api import perturbation as perturbation
    from robustseg.evaluation import Conditions as Conditions
    from robustseg.evaluation import evaluate as evaluate
    from robustseg.networks.adapters import adapt as adapt
    from robustseg.records import Counts as Counts
    from robustseg.records import LabelSpace as LabelSpace
    from robustseg.records import Record as Record
    from robustseg.records import RobustsegError as RobustsegError
    from robustseg.types import Budget as Budget
    from robustseg.types import ImageRng as ImageRng
    from robustseg.types import Network as Network

_PUBLIC = {
    "adapt": "networks.adapters",
    "Budget": "types",
    "Conditions": "evaluation",
    "Counts": "records",
    "data": "api",
    "evaluate": "evaluation",
    "ImageRng": "types",
    "LabelSpace": "records",
    "Network": "types",
    "network": "api",
    "perturbation": "api",
    "Record": "records",
    "RobustsegError": "records",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Load public names when they are first used, so that `import robustseg` needs no torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'robustseg' has no attribute '{name}'")
    return getattr(importlib.import_module(f"robustseg.{_PUBLIC[name]}"), name)
