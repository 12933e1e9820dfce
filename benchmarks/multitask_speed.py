"""What depth from video costs a training: the step against that of labels alone, and the share of warping and losses in it.

    python benchmarks/multitask_speed.py

Steps of `robustseg.training.train` on streets (augmentation, passes, losses, optimiser, averaged weights), one kind after the other
in turns: labels alone, labels alone with as many images as both batches have together, and labels with video. *View synthesis*:
from disparity and poses to the loss, with the frames aligned and searched, and back to the gradients in both; all other losses count as the rest.
Times are those of the processor, on one thread: what else the machine does matters little. Exit code 1 where view synthesis takes a
quarter of a step or more, or the step with video more than 2.5 times that of labels alone.
"""

import argparse
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from robustseg import api
from robustseg.cli.shared import parse_size
from robustseg.core.provenance import commit, device_name, versions
from robustseg.depth.photometric import ViewSynthesis
from robustseg.networks.motion import Scene
from robustseg.training import DepthTask, Recipe
from robustseg.training.depth import DepthFromVideo
from robustseg.training.fabric import fabric_on
from robustseg.training.loop import Training
from robustseg.training.run import task_of
from robustseg.training.task import Setup

SHARE, RATIO = 0.25, 2.5
"""What must not be reached: of view synthesis in a step, and of a step with video to one of labels alone."""


def main() -> int:
    """Run, print and write; the exit code says whether both limits are kept."""
    options = _options()
    torch.set_num_threads(1)
    single, twice, video = "labels alone", "labels alone, as many images", "labels and video"
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder, watch:
        ways = {
            single: _steps(options, options.batch_size, None, Path(folder)),
            twice: _steps(options, 2 * options.batch_size, None, Path(folder)),
            video: _steps(options, options.batch_size, DepthTask(_spec(options, ", neighbours=True")), Path(folder)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        shares: list[float] = []
        for turn in range(options.turns + 1):
            for name, clock in ways.items():
                watch.seconds = 0.0
                took = next(clock)
                if turn:  # the first chooses kernels and fills caches
                    seconds[name].append(took)
                    shares += [watch.seconds / took] if name == video else []
    median = {name: statistics.median(some) for name, some in seconds.items()}
    ratios = {name: round(median[video] / median[name], 3) for name in (single, twice)}
    share = round(statistics.median(shares), 4)
    found = {"view_synthesis": share, "step_with_video_to": ratios, "met": share < SHARE and ratios[single] <= RATIO}
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    about = {"command": shlex.join(["python", *sys.argv]), "commit": commit(), **versions()}
    about |= {"device": device_name(torch.device("cpu")), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    rounded = {name: [round(s, 3) for s in some] for name, some in seconds.items()}
    limits = {"view_synthesis": SHARE, "step": RATIO}
    text = json.dumps({**found, "limits": limits, "seconds": rounded, "settings": settings, **about}, indent=2)
    print(text)
    options.out.write_text(text + "\n", encoding="utf-8")
    return 0 if found["met"] else 1


class Watch:
    """Within: counts the processor's seconds in view synthesis, there and back, where one thing runs after the other."""

    def __init__(self) -> None:
        self.seconds, self._since, self._missing, self._plain = 0.0, 0.0, 0, DepthFromVideo.view

    def __enter__(self) -> None:
        DepthFromVideo.view = lambda *given, **options: self._view(*given, **options)  # type: ignore[method-assign]

    def __exit__(self, *error: object) -> None:
        DepthFromVideo.view = self._plain  # type: ignore[method-assign]

    def _view(self, task: DepthFromVideo, network: Any, scene: Scene, video: Any, **options: Any) -> ViewSynthesis:
        # On the way back what was done last comes first: all of it lies between the loss and the last of its inputs.
        inputs = (scene.disparity, scene.pose_previous, scene.pose_next)
        self._missing = len(inputs)
        for tensor in inputs:
            tensor.register_hook(lambda gradient: self._arrived())
        start = time.process_time()
        # as in nine tenths of a training: with frames aligned and searched (`depth.UNMASKED`)
        view = self._plain(task, network, scene, video, **{**options, "progress": 1.0})
        view.loss.register_hook(lambda gradient: self._start())
        self.seconds += time.process_time() - start
        return view

    def _start(self) -> None:
        self._since = time.process_time()

    def _arrived(self) -> None:
        self._missing -= 1
        if not self._missing:
            self.seconds += time.process_time() - self._since


def _spec(options: argparse.Namespace, more: str = "", frames: int = 0) -> str:
    return f"streets(scenes=1, frames={frames or options.batch_size}, size='{options.size}', split='train'{more})"


def _steps(options: argparse.Namespace, count: int, depth: DepthTask | None, folder: Path) -> Iterator[float]:
    """The processor's seconds of one step after the other."""
    network, data = api.network(options.network), api.data(_spec(options, frames=count))
    recipe = Recipe(epochs=10**6, batch_size=count, crop=parse_size(options.size), check_every=10**6)
    setup = Setup(network, data, data, recipe, fabric_on("cpu"))
    training = Training(task_of(setup, depth=depth), folder)
    for step in range(10**6):
        start = time.process_time()
        training.step(step)
        yield time.process_time() - start


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="multitask(encoder='resnet18')")
    parser.add_argument("--size", default="192x640", help="HxW")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "multitask_speed.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
