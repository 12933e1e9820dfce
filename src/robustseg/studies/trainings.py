"""How a study trains the networks that nobody gives it, as plain data; torch is loaded when one is trained."""

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from robustseg.core.types import Dataset, Network
    from robustseg.studies.run import Work
else:
    Dataset = Network = Work = Any  # torch is loaded where it is needed


@runtime_checkable
class Trained(Protocol):
    """A network that a study trains in `FOLDER/networks/ROLE`."""

    @property
    def file(self) -> str:
        """Name of the weights in that folder."""

    @property
    def stand_in(self) -> str:
        """Spec of a network as fast as this one, to judge costs by before it is trained."""

    @property
    def alike(self) -> str:
        """Equal for trainings that cost the same."""

    def finished(self, work: Work, role: str) -> bool:
        """Whether it was trained to the end.

        Raises:
            RobustsegError: what lies there was trained in another way.
        """

    def train(self, work: Work, role: str) -> None:
        """Train it, or resume."""

    def seconds(self, work: Work, role: str) -> float:
        """Seconds that `train` takes from the start, judged by a few steps."""


@dataclass(frozen=True)
class Training:
    """A network trained with labels; the best weights are chosen on the study's images `choose`.

    Args:
        architecture: spec of the network. data: spec of the labelled images.
        recipe: arguments of `training.Recipe`. adversary: of `training.Adversary`. depth: of `training.DepthTask`.
    """

    architecture: str
    data: str
    recipe: Mapping[str, Any]
    adversary: Mapping[str, Any] | None = None
    depth: Mapping[str, Any] | None = None
    file: str = "best.safetensors"

    @property
    def stand_in(self) -> str:
        """The architecture without weights."""
        return self.architecture

    @property
    def alike(self) -> str:
        """Architecture, data and recipe without the seed, and whether there is depth to learn."""
        kind = None if self.depth is None else self.depth["weight"] > 0
        return repr((self.architecture, self.data, {**self.recipe, "seed": 0}, self.adversary, kind))

    def finished(self, work: Work, role: str) -> bool:
        """Whether the last epoch was trained."""
        from robustseg import api
        from robustseg.training.run import finished
        from robustseg.training.task import Setup

        if not work.home(role).is_dir():
            return False
        arguments = self._arguments()
        recipe, data = arguments.pop("recipe"), api.data(self.data)
        setup = Setup(self._network(recipe.seed), data, work.data("choose"), recipe, work.fabric())
        return finished(setup, work.home(role), **arguments)

    def train(self, work: Work, role: str) -> None:
        """Train it, or resume; see `training.train`."""
        from robustseg import api

        self._train(work, work.home(role), api.data(self.data), work.data("choose"), self._arguments())

    def seconds(self, work: Work, role: str) -> float:
        """Judged by the faster of two steps; checks on held-out images are left out."""
        from robustseg import api
        from robustseg.datasets.views import Spread

        data, arguments, times = api.data(self.data), self._arguments(), list[float]()
        recipe = arguments["recipe"]
        arguments["recipe"] = replace(recipe, epochs=1, check_every=1)
        some, holdout = Spread(data, 3 * recipe.batch_size), Spread(work.data("choose"), 1)
        with tempfile.TemporaryDirectory() as place:
            self._train(work, Path(place), some, holdout, arguments, lambda step: times.append(time.perf_counter()))
        fastest = min((after - before for before, after in pairwise(times)), default=math.nan)
        return fastest * max(1, len(data) // recipe.batch_size) * recipe.epochs

    def _arguments(self) -> dict[str, Any]:
        from robustseg.training import Adversary, DepthTask, Recipe

        return {
            "recipe": Recipe(**self.recipe),
            "adversary": self.adversary and Adversary(**self.adversary),
            "depth": self.depth and DepthTask(**self.depth),
        }

    def _network(self, seed: int) -> Network:
        import torch

        from robustseg import api

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return api.network(self.architecture)

    def _train(
        self,
        work: Work,
        folder: Path,
        data: Dataset,
        holdout: Dataset,
        arguments: dict[str, Any],
        on_step: Callable[[Any], None] = lambda step: None,
    ) -> None:
        from robustseg.training import train

        network = self._network(arguments["recipe"].seed)
        train(network, data, folder=folder, holdout=holdout, fabric=work.fabric(), on_step=on_step, **arguments)
