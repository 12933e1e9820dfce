"""Networks that a study trains where none is given."""

from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric

from robustseg import api
from robustseg.records import read_lines
from robustseg.training import Recipe, train
from robustseg.training.adversarial import Adversary
from robustseg.types import Dataset


@dataclass(frozen=True)
class Pretraining:
    """How a network is trained with labels: the specs of its architecture and its data, and what attacks it, if anything."""

    architecture: str
    data: str
    recipe: Recipe
    adversary: Adversary | None = None

    def finished(self, folder: Path) -> bool:
        """Whether it was trained to the end in this folder."""
        history = folder / "history.jsonl"
        lines = list(read_lines(history)) if history.is_file() else []
        return bool(lines) and lines[-1].get("epoch", 0) >= self.recipe.epochs

    def run(self, folder: Path, *, holdout: Dataset, fabric: Fabric) -> None:
        """Train it in this folder, or go on there, see `training.train`."""
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed)
            network = api.network(self.architecture)
        data, how = api.data(self.data), {"recipe": self.recipe, "adversary": self.adversary}
        train(network, data, holdout=holdout, folder=folder, fabric=fabric, **how)  # type: ignore[arg-type]


def place_of(folder: Path, who: str) -> Path:
    """The weights of a network that a study trained."""
    return folder / "networks" / who / "best.safetensors"


def fabric_on(device: str, precision: str) -> Fabric:
    """One process on this device."""
    place = "gpu" if device.startswith("cuda") else "cpu"
    made = Fabric(accelerator=place, devices=1, precision=precision)  # type: ignore[arg-type]
    made.launch()
    return made
