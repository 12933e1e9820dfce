"""Networks that a study trains where none is given."""

import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from robustseg import api
from robustseg.core.errors import RobustsegError
from robustseg.core.files import read_lines
from robustseg.core.types import Dataset
from robustseg.datasets.views import Spread
from robustseg.networks import weights
from robustseg.training import DepthTask, Recipe, train
from robustseg.training.adversarial import Adversary
from robustseg.training.fabric import fabric_on


@dataclass(frozen=True)
class Pretraining:
    """How a network is trained with labels: the specs of its architecture and its data, what attacks it, and what video it sees."""

    architecture: str
    data: str
    recipe: Recipe
    adversary: Adversary | None = None
    depth: DepthTask | None = None

    def finished(self, folder: Path) -> bool:
        """Whether it was trained to the end in this folder.

        Raises:
            RobustsegError: what lies there was trained by another recipe.
        """
        history, best = folder / "history.jsonl", folder / "best.safetensors"
        lines = list(read_lines(history)) if history.is_file() else []
        if not lines or not best.is_file():
            return False
        besides = {"adversary": self.adversary, "depth": self.depth}
        wanted = {**asdict(self.recipe), **{name: asdict(what) for name, what in besides.items() if what is not None}}
        made = weights.notes_of(best).get("recipe", {})
        other = [name for name, value in json.loads(json.dumps(wanted)).items() if made.get(name) != value]
        if other:
            raise RobustsegError(
                f"expected '{best}' trained by the recipe of the study, got another {', '.join(other)}; try another --out"
            )
        return bool(lines[-1].get("epoch", 0) >= self.recipe.epochs)

    def run(self, folder: Path, *, holdout: Dataset, fabric: Fabric) -> None:
        """Train it in this folder, or go on there, see `training.train`."""
        self._train(api.data(self.data), self.recipe, folder=folder, holdout=holdout, fabric=fabric)

    def judged(self, *, holdout: Dataset, device: str, precision: str) -> float:
        """Seconds that `run` would take from the start, judged by the faster of two steps; checks are left out."""
        data, size = api.data(self.data), self.recipe.batch_size
        short, times = replace(self.recipe, epochs=1, check_every=1), list[float]()
        with tempfile.TemporaryDirectory() as place:
            where = {"folder": Path(place), "holdout": Spread(holdout, 1), "fabric": fabric_on(device, precision)}
            self._train(Spread(data, 3 * size), short, on_step=lambda step: times.append(time.perf_counter()), **where)
        fastest = min((after - before for before, after in pairwise(times)), default=math.nan)
        return fastest * max(1, len(data) // size) * self.recipe.epochs

    def _train(self, data: Dataset, recipe: Recipe, **where: Any) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            network = api.network(self.architecture)
        train(network, data, recipe=recipe, adversary=self.adversary, depth=self.depth, **where)


def place_of(folder: Path, who: str) -> Path:
    """The weights of a network that a study trained."""
    return folder / "networks" / who / "best.safetensors"


def spec_of(given: str | Pretraining, folder: Path, who: str) -> str:
    """The spec of a network that was given by one, or that the study trains."""
    return given if isinstance(given, str) else f"weights({str(place_of(folder, who))!r})"


def buildable(given: str | Pretraining, folder: Path, who: str) -> str:
    """Its spec; before it was trained that of its architecture, which stands in to judge costs by."""
    if isinstance(given, str) or place_of(folder, who).is_file():
        return spec_of(given, folder, who)
    return given.architecture


def untrained(networks: Mapping[str, str | Pretraining], folder: Path) -> dict[str, Pretraining]:
    """Those that a study has yet to train."""
    return {
        who: how
        for who, how in networks.items()
        if not isinstance(how, str) and not how.finished(place_of(folder, who).parent)
    }


def pretrain(
    networks: Mapping[str, str | Pretraining],
    folder: Path,
    *,
    holdout: Dataset,
    device: str,
    precision: str,
    on_step: Callable[[str], None],
) -> None:
    """Train what is not trained yet, each in its folder; one that was cut goes on."""
    for who, how in untrained(networks, folder).items():
        on_step(f"train {who}: {how.architecture}")
        how.run(place_of(folder, who).parent, holdout=holdout, fabric=fabric_on(device, precision))
