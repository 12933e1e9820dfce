"""Where the time of an SEA run goes: the network, the losses, and everything else.

    python benchmarks/profile_sea.py

ERFNet with random weights, as its fast copy, on one random image with labels of which half begin right. *Network*: from
images to logits, and from the gradient in the logits to the gradient in the images. *Loss*: from logits to values, and
back to the gradient in the logits. *Rest*: what is neither forward nor backward: judging iterates, moving, projecting,
remembering the best, and counting the result. Times are those of the processor, on one thread: what else the machine does
matters little. Exit code 1 where the rest takes 10 % of a run or more.
"""

import argparse
import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustseg.attacks import apgd, steps
from robustseg.core.provenance import commit, device_name, versions
from robustseg.core.random import ImageRng
from robustseg.core.types import Network
from robustseg.networks.erfnet import ERFNet
from robustseg.networks.fast import fast
from robustseg.results.metrics import count

LIMIT = 0.1
PARTS = ("network forward", "network backward", "loss forward", "loss backward", "rest")


def main() -> int:
    """Run, print and write; the exit code says whether the rest stays below the limit."""
    options = _options()
    torch.set_num_threads(1)
    found = {}
    for classes in options.classes:
        found[str(classes)] = measure(classes, options)
        print(classes, json.dumps(found[str(classes)]), file=sys.stderr, flush=True)
    met = all(row["shares"]["rest"] < LIMIT for row in found.values())
    about = {"command": shlex.join(["python", *sys.argv]), "commit": commit(), **versions()}
    about |= {"device": device_name(torch.device("cpu")), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    text = json.dumps({"met": met, "limit": LIMIT, "classes": found, "settings": settings, **about}, indent=2)
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text + "\n", encoding="utf-8")
    return 0 if met else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[19, 150])
    parser.add_argument("--size", default="512x1024", help="HxW")
    parser.add_argument("--steps", type=int, default=10, help="of each of the three runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "profile_sea.json")
    return parser.parse_args()


def measure(classes: int, options: argparse.Namespace) -> dict[str, Any]:
    """One SEA run and the counting of its result: seconds and shares of each part."""
    height, width = map(int, options.size.split("x"))
    network, images, labels = scene(classes, height, width)
    seconds: Counter[str] = Counter()
    for _ in range(2):  # the first run chooses kernels and fills caches
        seconds.clear()
        start = time.process_time()
        with watched(network, seconds):
            rng = ImageRng(0, ("image",))
            result = apgd.sea(network, images, labels, budget="linf:0.5/255", steps=options.steps, rng=rng)
            predictions = network.predict(result)
        count(labels.numpy(), predictions.numpy(), ("image",), classes)
        total = time.process_time() - start
    seconds["rest"] = total - sum(seconds.values())
    wrong = float((predictions != labels).double().mean())
    shares = {part: round(seconds[part] / total, 4) for part in PARTS}
    return {"seconds": round(total, 2), "shares": shares, "wrong_pixels": round(wrong, 3)}


def scene(classes: int, height: int, width: int) -> tuple[Network, Tensor, Tensor]:
    """A network of as many classes, one image, and its labels `[1, h, w]`: half what the network says, half at random."""
    generator = torch.Generator().manual_seed(0)
    network = ERFNet(classes=classes)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:  # as large coming out of a layer as going in
                size = (2 / parameter[0].numel()) ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
    quick = fast(network)
    images = torch.rand((1, 3, height, width), generator=generator)
    with torch.no_grad():
        said = quick.predict(images)
    others = torch.randint(classes, said.shape, generator=generator)
    return quick, images, torch.where(torch.rand(said.shape, generator=generator) < 0.5, said, others)


@contextmanager
def watched(network: Network, seconds: Counter[str]) -> Iterator[None]:
    """Time each part of an SEA run on a CPU, where one thing runs after the other."""
    since: dict[str, float] = {}

    def end(part: str, next_part: str = "") -> None:
        now = time.process_time()
        seconds[part] += now - since[part]
        since[next_part] = now

    def before(module: Any, inputs: Any) -> None:
        since["network forward"] = time.process_time()
        if inputs[0].requires_grad:
            inputs[0].register_hook(lambda gradient: end("network backward"))

    def after(module: Any, inputs: Any, logits: Tensor) -> None:
        end("network forward", "loss forward")
        if logits.requires_grad:
            logits.register_hook(lambda gradient: end("loss backward", "network backward"))

    def timed(objective: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*inputs: Any) -> Tensor:
            values = objective(*inputs)
            end("loss forward")
            return values

        return run

    def gradient(values: Tensor, images: Tensor) -> Tensor:
        since["loss backward"] = time.process_time()
        return of_steps(values, images)

    of_steps, named, balanced = steps._gradient, apgd.named_objective, apgd.balanced
    handles = [network.register_forward_pre_hook(before), network.register_forward_hook(after)]
    steps._gradient = gradient
    apgd.named_objective = lambda name: timed(named(name))
    apgd.balanced = lambda pixels: timed(balanced(pixels))
    try:
        yield
    finally:
        steps._gradient, apgd.named_objective, apgd.balanced = of_steps, named, balanced
        for handle in handles:
            handle.remove()


if __name__ == "__main__":
    sys.exit(main())
