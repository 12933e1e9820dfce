"""What holds for every attack of the registry: any batch size gives the same images, NaN stays where it is, slips are said."""

import inspect
import re

import pytest
import torch

from robustseg.core import registry
from robustseg.core.errors import RobustsegError
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.core.types import Network
from robustseg.results import metrics
from robustseg.testing import PixelNetwork

SHORT = {
    "almaprox": "steps=12, share=0.6",
    "apgd": "steps=12, restarts=2",
    "cospgd": "steps=5",
    "mifgsm": "steps=5",
    "pgd": "steps=5, restarts=2",
    "sea": "steps=6",
    "search": "queries=12",
    "segpgd": "steps=5",
}
NAMES = sorted({e.name for e in registry.table().values() if e.decorator == "attack"} - {"saved"})
NORMS = ("linf:8/255", "l2:0.5")


def build(name, budget="linf:8/255"):
    return registry.build("perturbation", f"{name}(budget='{budget}', {SHORT.get(name, '')})")


def scene(count=8, size=(8, 10)):
    generator = torch.Generator().manual_seed(0)
    images = 0.1 + 0.8 * torch.rand((count, 3, *size), generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (count, *size), generator=generator)
    labels[:, :2] = IGNORE
    labels[2] = IGNORE
    return images, labels


def rng(count=8):
    return ImageRng(5, [f"image_{i}" for i in range(count)])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", NAMES)
def test_any_batch_size_gives_the_same_images_and_counts(name, norm, small_network):
    images, labels = scene()
    attack, ids = build(name, norm), rng().ids
    results, counts = [], []
    for size in (8, 3, 1):
        parts = [slice(i, i + size) for i in range(0, 8, size)]
        found = [attack(small_network, images[p], labels[p], rng=ImageRng(5, ids[p])) for p in parts]
        results.append(torch.cat(found))
        predictions = [small_network.predict(r).numpy() for r in found]
        counted = [metrics.count(labels[p].numpy(), q, ids[p], 4) for p, q in zip(parts, predictions, strict=True)]
        counts.append(sum(counted[1:], counted[0]))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    assert counts[0] == counts[1] == counts[2]


class _Spotty(PixelNetwork):
    """NaN for one image, as an overflow gives it."""

    def forward(self, images):
        logits = super().forward(images)
        return torch.where(images[:, :1, :1, :1] > 0.95, logits * torch.nan, logits)


class _Breaking(Network):
    """NaN as soon as an image has moved: what is offered may be NaN where what went before was not."""

    def __init__(self):
        super().__init__(PixelNetwork().label_space)
        self.inner = PixelNetwork()

    def forward(self, images):
        logits = self.inner(images)
        return torch.where((images[:, :1, :1, :1] > 0.5) & (images[:, :1, :1, :1] != 0.75), logits * torch.nan, logits)


@pytest.mark.parametrize("name", [name for name in NAMES if "20" not in name])  # presets only call the others
@pytest.mark.parametrize("network", [_Spotty(), _Breaking()], ids=["from the start", "later"])
def test_nan_neither_spreads_nor_comes_back(name, network):
    images, labels = scene(3)
    images[0, 0, 0, 0] = 1 if isinstance(network, _Spotty) else 0.75
    images[1:, 0, 0, 0] = 0.2
    attack = build(name)
    result = attack(network, images, labels, rng=rng(3))
    assert result.isfinite().all()
    assert (result - images).abs().max() <= 8 / 255 + 1e-9
    alone = attack(network, images[1:], labels[1:], rng=rng(3).select([1, 2]))
    assert torch.equal(result[1:], alone)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("pgd(budget='linf:8/255', restarts=0)", "restarts >= 1"),
        ("pgd(budget='linf:8/255', step_size=-1)", "a step_size above 0"),
        ("apgd(budget='linf:8/255', restarts=0)", "restarts >= 1"),
        ("apgd(budget='linf:8/255', objective='entropy')", "an objective, got 'entropy'"),
        ("apgd(budget='linf:8/255', judge='entropy')", "an objective, got 'entropy'"),
        ("segpgd(budget='linf:8/255', goal='away')", "a goal, got 'away'"),
        ("cospgd(budget='linf:8/255', keep='first')", "keep='best' or 'last'"),
        ("sea(budget='linf:8/255', steps=-1)", "steps >= 1"),
        ("sea(budget='linf:8/255', draws=0)", "draws >= 1"),
        ("search(budget='linf:8/255', queries=1)", "queries >= 2"),
        ("sea(budget='linf:8/255', class_pixels=(0, -1))", "numbers of pixels, 0 or more"),
        ("almaprox(share=0)", "0 < share <= 1"),
        ("saved(perturbation=pgd(budget='linf:8/255', restarts=0), folder='x')", "restarts >= 1"),
        ("gaussian(rms=-1)", "an rms of 0 to 1"),
    ],
)
def test_a_value_outside_its_range_is_said_when_a_spec_is_built(spec, sentence):
    with pytest.raises(RobustsegError, match=sentence):
        registry.build("perturbation", spec)


ZERO_MEANS_SOMETHING = {"decay", "rms"}
"""Iterative FGSM, and the images themselves."""


@pytest.mark.parametrize("name", sorted(n for kind, n in registry.table() if kind == "perturbation"))
def test_numbers_that_mean_nothing_are_refused(name):
    """Of every perturbation, by its signature: 0, -1, NaN, infinity and fractions where counts are meant."""
    parameters = inspect.signature(registry.function("perturbation", name)).parameters.values()
    numbers = [
        p
        for p in parameters
        if p.name != "rng" and re.search(r"\b(int|float)\b", inspect.formatannotation(p.annotation))
    ]
    needed = {"budget": "'linf:8/255'", "rms": "'8/255'"}
    required = {p.name: needed[p.name] for p in parameters if p.name in needed and p.default is p.empty}
    for parameter in numbers:
        if "Tensor" in str(parameter.annotation) or "Sequence" in str(parameter.annotation):
            continue
        for value in (
            "0",
            "-1",
            "'nan'",
            "'inf'",
            "1e400",
            "0.5" if "float" not in str(parameter.annotation) else "-0.5",
        ):
            if value == "0" and parameter.name in ZERO_MEANS_SOMETHING:
                continue
            arguments = ", ".join(f"{key}={text}" for key, text in {**required, parameter.name: value}.items())
            with pytest.raises(RobustsegError):
                registry.build("perturbation", f"{name}({arguments})")


@pytest.mark.parametrize("name", ["pgd", "apgd", "sea", "mifgsm", "almaprox", "segpgd", "cospgd", "ifgsm", "search"])
@pytest.mark.parametrize("value", [0, -1])
def test_no_step_is_refused_in_python_too(name, value):
    images, labels = (x[:1] for x in scene(3))
    count = "queries" if name == "search" else "steps"
    with pytest.raises(RobustsegError, match=f"{count} >= "):
        registry.function("perturbation", name)(
            PixelNetwork(), images, labels, budget="linf:8/255", rng=rng(1), **{count: value}
        )
