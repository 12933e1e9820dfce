"""Look at a data set, and a network on it, before anything is measured: what is there, what is missing, what is odd.

Lines are plain sentences. `Problem:` is what a run would stop at or what makes its numbers wrong; `Warning:` is what
one should know; the rest is a description.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from robustseg.core import registry
from robustseg.core.errors import RobustsegError
from robustseg.core.labels import IGNORE, LabelSpace
from robustseg.core.types import Dataset, Network, Sample, device_of, dtype_of, frozen, most_likely
from robustseg.datasets import read
from robustseg.networks.adapters import Adapted, Guess, Input, guess_input
from robustseg.results.metrics import count, miou
from robustseg.results.record import Counts

NETWORK_SAMPLES = 5
"""How many images a network is tried on: enough to tell value ranges and colour orders apart."""


class Diagnosis(NamedTuple):
    """What was found: sentences in reading order, and whether a run would go through."""

    lines: list[str]
    ok: bool


def examine(
    data: str | Dataset,
    network: str | Network | None = None,
    *,
    samples: int | None = 20,
    on_sample: Callable[[int, int], None] = lambda done, total: None,
) -> Diagnosis:
    """Say in plain words whether a data set, and a network on it, can be measured.

    Args:
        data: a data set or its spec.
        network: also run it on a few images; for an adapted module, say which form of input fits the labels best.
        samples: how many images to read, spread evenly; None reads all.
        on_sample: called with images read and images to read.

    Returns:
        The sentences, and False where there is a problem. Nothing that is wrong with data or network raises.
    """
    try:
        built: Dataset = registry.build("data", data) if isinstance(data, str) else data
    except RobustsegError as error:
        return Diagnosis([f"Problem: {error}"], False)
    lines, readable = _look(built, samples, on_sample)
    if network is not None and readable:
        lines += _try(network, built, readable)
    return Diagnosis(lines, not any(line.startswith("Problem:") for line in lines))


@dataclass
class _Seen:
    """What the samples read so far showed."""

    pixels: np.ndarray
    images: np.ndarray
    void: int = 0
    unlabelled: list[str] = field(default_factory=list)
    flat: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        labels = sample.labels.numpy()
        pixels = np.bincount(labels.ravel(), minlength=IGNORE + 1)
        void, pixels = int(pixels[IGNORE]), pixels[: len(self.pixels)]
        self.pixels += pixels
        self.images += pixels > 0
        self.void += void
        self.sizes[labels.shape] += 1
        if void == labels.size:
            self.unlabelled.append(sample.id)
        if sample.image.amax() == sample.image.amin():
            self.flat.append(sample.id)


def _look(data: Dataset, samples: int | None, on_sample: Callable[[int, int], None]) -> tuple[list[str], list[int]]:
    """Sentences on a data set, and the indices of the samples that a network can be tried on."""
    total = len(data)
    if not total:
        return [f"Problem: expected images in {data.spec}, got an empty data set; try another split"], []
    chosen = _spread(total, samples or total)
    seen = _Seen(np.zeros(len(data.label_space), np.int64), np.zeros(len(data.label_space), np.int64))
    readable = []
    for done, index in enumerate(chosen, 1):
        try:
            seen.add(read(data, index))
            readable.append(index)
        except RobustsegError as error:
            seen.broken.append(str(error))
        on_sample(done, len(chosen))
    looked = "all of them looked at" if len(chosen) == total else f"{len(chosen)} of them looked at, spread evenly"
    lines = [f"{data.spec}: {_number(total, 'image')}, {looked}{f', {len(readable)} read' if seen.broken else ''}."]
    twice = [name for name, times in Counter(data.ids).items() if times > 1]
    if twice:
        lines.append(f"Problem: {len(twice)} ids occur more than once, the first is '{twice[0]}'; try unique names.")
    lines += [f"Problem: {text}" for text in seen.broken[:5]]
    if len(seen.broken) > 5:
        lines.append(f"Problem: {len(seen.broken) - 5} more of the images cannot be used.")
    described = _describe(seen, data.label_space) if readable else []
    if len(readable) == total:
        described.append(
            f"Pixels of each class, for the attack sea: class_pixels=({', '.join(map(str, seen.pixels))})."
        )
    return lines + described, readable if seen.pixels.any() else []


def _spread(total: int, samples: int) -> list[int]:
    """Even distances, the first and the last image among them."""
    if samples >= total:
        return list(range(total))
    return sorted({round(i * (total - 1) / max(1, samples - 1)) for i in range(max(1, samples))})


def _number(many: int, noun: str) -> str:
    return f"{many} {noun}{'' if many == 1 else 's'}"


def _describe(seen: _Seen, space: LabelSpace) -> list[str]:
    sizes = [f"{width}x{height} ({times})" for (height, width), times in seen.sizes.most_common(4)]
    lines = [f"Sizes, width x height: {', '.join(sizes)}{', …' if len(seen.sizes) > 4 else ''}."]
    if len(seen.sizes) > 1:
        lines.append("Warning: images differ in size, so a batch ends where the size changes; try --size HxW.")
    labelled = int(seen.pixels.sum())
    void = seen.void / max(1, seen.void + labelled)
    lines.append(f"Void: {void:.1%} of the pixels.")
    if not labelled:
        lines.append("Problem: every pixel read is void, as where labels are withheld; try a split with labels.")
        return lines
    if void > 0.5:
        lines.append("Warning: more than half of the pixels are void; try another void value if that surprises you.")
    if seen.unlabelled:
        lines.append(
            f"Warning: {_number(len(seen.unlabelled), 'image')} without a label, the first is '{seen.unlabelled[0]}'."
        )
    if seen.flat:
        lines.append(f"Warning: {_number(len(seen.flat), 'image')} of one single value, the first is '{seen.flat[0]}'.")
    present = [i for i in np.argsort(-seen.pixels, kind="stable") if seen.pixels[i]]
    shares = [f"{space.names[i]} {_share(seen.pixels[i] / labelled)} (in {seen.images[i]})" for i in present]
    lines.append(f"Classes seen, share of the labelled pixels (in how many images): {', '.join(shares)}.")
    never = [name for name, pixels in zip(space.names, seen.pixels, strict=True) if not pixels]
    if never:
        lines.append(f"Warning: never seen in the images read: {', '.join(never)}.")
    if len(present) == 1 and len(space) > 1:
        lines.append("Warning: there is one class only; try the index masks, not instance or binary ones.")
    return lines


def _share(value: float) -> str:
    return f"{value:.1%}" if value >= 0.001 else "under 0.1%"


def _try(network: str | Network, data: Dataset, readable: Sequence[int]) -> list[str]:
    """Sentences on a network on some of the readable samples."""
    chosen = [readable[i] for i in _spread(len(readable), NETWORK_SAMPLES)]
    try:
        built: Network = registry.build("network", network) if isinstance(network, str) else network
        built.label_space.require_same(data.label_space, mine=built.spec, theirs=data.spec)
        score, finite = _score(built, data, chosen)
        lines = [f"{built.spec}: mIoU {score:.1%} on {_number(len(chosen), 'image')}."]
        if not finite:
            lines.append("Problem: some logits are NaN or infinite; try the value range that the network expects.")
        if score < 1 / len(data.label_space):
            lines.append(
                "Warning: that is no better than guessing; try the order of the classes and the trained weights."
            )
        if isinstance(built, Adapted):
            lines += _forms(built.expects, score, guess_input(built, _samples(data, chosen)))
    except RobustsegError as error:
        return [f"Problem: {error}"]
    except RuntimeError as error:  # what torch raises where sizes do not fit each other inside the network
        reason = str(error).partition("\n")[0]
        name = network if isinstance(network, str) else network.spec
        return [f"Problem: expected logits from {name}, got '{reason}'; try divisor=32, or an input_size."]
    return lines


def _score(network: Network, data: Dataset, chosen: Sequence[int]) -> tuple[float, bool]:
    """mIoU over the chosen samples, and whether all logits were finite."""
    counts, finite = Counts.empty(len(data.label_space)), True
    device, dtype = device_of(network), dtype_of(network)
    with torch.no_grad(), frozen(network):
        for sample in _samples(data, chosen):
            logits = network(sample.image[None].to(device, dtype))
            finite = finite and bool(torch.isfinite(logits).all())
            guess = most_likely(logits).cpu().numpy()
            counts += count(sample.labels[None].numpy(), guess, [sample.id], len(data.label_space))
    return miou(counts), finite


def _samples(data: Dataset, chosen: Sequence[int]) -> Iterator[Sample]:
    return (read(data, index) for index in chosen)


def _forms(now: Input, score: float, guesses: Sequence[Guess]) -> list[str]:
    best = guesses[0]
    table = ", ".join(f"{guess.name} {guess.miou:.1%}" for guess in guesses[:4])
    lines = [f"Forms of input tried, best first: {table}. The best is {best.name}."]
    if best.miou > score + 0.01:
        text = best.expects.text or "no arguments for colour order, range, mean and std"
        lines.append(
            f"Warning: {best.name} gives {best.miou - score:.1%} more than what is set ({now.text or 'RGB in [0, 1]'}); try {text}."
        )
    return lines
