"""What all tests share."""

import os
from pathlib import Path

import lightning_fabric  # noqa: F401 - before the import hook, which recompiles what it sees loaded
import pytest
import torchvision  # noqa: F401
from jaxtyping import install_import_hook

TENSOR_ROOMS = (
    "core",
    "losses",
    "perturbations",
    "datasets",
    "depth",
    "attacks",
    "networks",
    "training",
    "synthesis",
    "evaluation",
    "monitor",
    "audit",
    "testing",
)
# Shapes and types are checked at each call of what handles tensors; before robustseg is imported.
install_import_hook(
    [f"robustseg.{room}" for room in TENSOR_ROOMS],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

from robustseg.testing import PixelNetwork, SmallNetwork  # noqa: E402


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: `ROBUSTSEG_DATA`, or `shared/data` beside the repository; skips where there is none."""
    folder = Path(os.environ.get("ROBUSTSEG_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("needs real data; set ROBUSTSEG_DATA to its folder")
    return folder


@pytest.fixture
def pixel_network() -> PixelNetwork:
    """A linear network of single pixels, float64."""
    return PixelNetwork()


@pytest.fixture
def small_network() -> SmallNetwork:
    """A small convolutional network with batch normalisation and dropout, float64."""
    return SmallNetwork()
