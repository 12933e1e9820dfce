"""Images made by climbing toward a label map: a hole is filled (`inpaint`), a scene is drawn (`generate`).

The loop of the attacks (`attacks.steps.climb`), turned round: a hole is the region of a budget, the label map is what
is climbed toward, an optimiser is a `Move`. So its promises hold here too: the network stays untouched, pixels outside
the hole stay bit for bit, every iterate lies in [0, 1] and in the budget, an image does not depend on its batch, and
for each the best iterate is kept, never one with NaN.

Source: Santurkar et al., NeurIPS 2019 (synthesis with one robust classifier); Sandoval-Segura 2022 (arXiv 2204.01099) for
segmentation, of which neither optimiser nor settings are public: all settings here are ours.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from robustseg.attacks.steps import Best, Here, climb, direction
from robustseg.core.budget import Budget
from robustseg.core.errors import RobustsegError, ShapeError, SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.core.types import Dataset, Images, Labels, Mask, Network, Objective, dtype_of, frozen, require_pair
from robustseg.datasets.views import Spread
from robustseg.losses.pixelwise import cross_entropy, total_variation
from robustseg.networks.fast import fast

log = logging.getLogger(__name__)

OPTIMISERS = ("pgd", "descent", "adam")
SHIFT = 4
"""Pixels that a shifted copy is moved by at most."""
GRAIN = 8
"""Pixels between two independent draws of a coloured start."""


@dataclass(frozen=True)
class Settings:
    """How to get from a start to a label map.

    Args:
        optimiser: `pgd` goes along the gradient at unit length, `descent` along the gradient itself, `adam` by Adam.
        steps: gradient steps.
        step: root mean square over the free values, images in [0, 1]: of every step (`pgd`), of the first, which fixes
            the rate (`descent`), roughly of each (`adam`: its learning rate).
        budget: an L2 ball around the start, such as 'l2:20'; None is all of [0, 1].
        smoothness: weight of the total variation beside the cross-entropy.
        coarse: over the first half of the steps gradients are averaged over cells of `2 ** coarse` pixels, then of half
            as many, and so on: large shapes come first.
        shifts: copies a step, the first as it is and the others shifted by up to `SHIFT` pixels; their mean is climbed.
        starts: of each image, as one batch.
        noise: root mean square of what is added to a start.

    Raises:
        SpecError: an argument outside its range.
    """

    optimiser: str = "pgd"
    steps: int = 200
    step: float = 0.01
    budget: Budget | str | None = None
    smoothness: float = 0.0
    coarse: int = 0
    shifts: int = 1
    starts: int = 1
    noise: float = 0.02

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise SpecError(f"expected an optimiser, got '{self.optimiser}'; try {', '.join(OPTIMISERS)}")
        least = {"steps": 1, "starts": 1, "shifts": 1, "coarse": 0, "step": 0, "smoothness": 0, "noise": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if not bound <= value < math.inf:
                raise SpecError(
                    f"expected {name} of at least {bound} and finite, got {value}; try {getattr(Settings, name)}"
                )
        if max(self.step, self.noise) > 1:
            raise SpecError(
                f"expected step and noise of at most 1, images being in [0, 1], got {self.step} and {self.noise}; "
                f"try {Settings.step} and {Settings.noise}"
            )
        if self.budget is not None:
            object.__setattr__(self, "budget", Budget.parse(self.budget))
            if self.ball.norm != "l2" or not self.ball.eps:
                raise SpecError(f"expected an L2 budget above 0, got '{self.ball.spec}'; try 'l2:20'")

    @property
    def ball(self) -> Budget:
        """The budget; without one, a ball that holds every image."""
        return self.budget if isinstance(self.budget, Budget) else Budget("l2", 1e6)


class SynthesisStep(NamedTuple):
    """Where a synthesis stands: steps done of all, the images `[starts * b, 3, h, w]` and the loss of each."""

    done: int
    total: int
    images: Tensor
    losses: Tensor


class Synthesis(NamedTuple):
    """What came of it, start by start.

    Args:
        images: `[starts, b, 3, h, w]`, the best iterate of each.
        losses: `[starts, b]`, of that iterate: cross-entropy to the target plus weighted total variation; infinite
            where it never was a number.
        diverged: bool `[starts, b]`: the loss became NaN or infinite, or ended above its first value.
    """

    images: Tensor
    losses: Tensor
    diverged: Tensor

    @property
    def best(self) -> Images:
        """For each image the start with the smallest loss, `[b, 3, h, w]`."""
        return self.images[self.losses.argmin(0), torch.arange(self.images.shape[1])]


def inpaint(
    network: Network,
    images: Images,
    masks: Mask,
    target: Labels | None = None,
    *,
    settings: Settings | None = None,
    rng: ImageRng,
    on_step: Callable[[SynthesisStep], None] = lambda step: None,
) -> Synthesis:
    """Fill holes so that the network sees a label map there.

    A hole starts with the colours of its border grown inward, and noise.

    Args:
        network: left as it was.
        images: `[b, 3, h, w]` in [0, 1]; what they hold inside the masks counts for nothing.
        masks: bool `[b, h, w]`, True in the hole.
        target: labels `[b, h, w]` to be seen in the hole, void where anything may stand; what it says outside the hole
            counts for nothing. None is the network's own map, `completed`.
        settings: how to get there.
        rng: one stream an image, for noise and shifts.
        on_step: called before each step and at the end.

    Returns:
        Images that are bit-equal to the input outside the masks.

    Raises:
        ShapeError: tensors that do not belong together. RobustsegError: an empty mask, or a target in the hole that is
            void only or holds a class that the network does not know.
    """
    settings = settings or Settings()
    require_masks(images, masks)
    target = completed(network, images, masks) if target is None else target
    require_pair(images, target)
    start = grown(images, ~masks).repeat(settings.starts, 1, 1, 1)
    return _synthesise(network, start, target, masks, settings, rng.repeat(settings.starts), on_step)


def generate(
    network: Network,
    target: Labels,
    *,
    colours: "ClassColours | None" = None,
    settings: Settings | None = None,
    rng: ImageRng,
    on_step: Callable[[SynthesisStep], None] = lambda step: None,
) -> Synthesis:
    """Draw images in which the network sees a label map.

    Args:
        network: left as it was.
        target: labels `[b, h, w]` in the network's label space, void where anything may stand.
        colours: each pixel starts with a draw from the Gaussian of its class; None starts at mid-grey. Noise is added.
        settings: how to get there. rng: one stream an image, for starts, noise and shifts.
        on_step: called before each step and at the end.

    Returns:
        The images of each start.

    Raises:
        RobustsegError: the target is void only, or holds a class that the network does not know.
    """
    settings = settings or Settings()
    _require_target(network, target)
    streams = rng.repeat(settings.starts)
    start = torch.full((len(streams), 3, *target.shape[1:]), 0.5, dtype=dtype_of(network), device=target.device)
    if colours is not None:
        start = colours.draw(target.repeat(settings.starts, 1, 1), streams.fork("colours"), like=start)
    everywhere = torch.ones_like(target, dtype=torch.bool)
    return _synthesise(network, start, target, everywhere, settings, streams, on_step)


def _synthesise(
    network: Network,
    start: Tensor,
    target: Labels,
    masks: Mask,
    settings: Settings,
    streams: ImageRng,
    on_step: Callable[[SynthesisStep], None],
) -> Synthesis:
    """Climb from starts `[starts * b, 3, h, w]` within masks `[b, h, w]` toward labels `[b, h, w]`."""
    labels = torch.where(masks, target, IGNORE)
    _require_target(network, labels)
    shape = (settings.starts, len(labels))
    labels, masks = labels.repeat(settings.starts, 1, 1), masks.repeat(settings.starts, 1, 1)
    noise = settings.noise * streams.fork("noise").normal(start.shape[1:], start)
    start = torch.where(masks.unsqueeze(1), (start + noise).clamp(0, 1), start)
    pulling, judge = _objectives(settings, masks, streams.fork("shifts"))
    moves, best = _Moves(settings, masks, on_step), Best(start)
    images = climb(
        fast(network),
        start,
        labels,
        objective=pulling,
        judge=judge,
        budget=replace(settings.ball, region=masks),
        steps=settings.steps,
        move=moves,
        best=best,
        rng=streams,
    )
    losses, diverged = -best.values, moves.diverged
    if diverged.any():
        log.warning("%d of %d syntheses diverged; the best image so far is kept", int(diverged.sum()), len(start))
    on_step(SynthesisStep(settings.steps, settings.steps, images, losses))
    return Synthesis(images.unflatten(0, shape), losses.unflatten(0, shape), diverged.unflatten(0, shape))


def _objectives(settings: Settings, masks: Mask, rng: ImageRng) -> tuple[Objective, Objective]:
    """What pulls, and what judges: the images as they are, without shifted copies."""

    def judge(network: Network, images: Tensor, labels: Tensor) -> Tensor:
        values = -cross_entropy(network, images, labels)
        return values - settings.smoothness * total_variation(images, masks) if settings.smoothness else values

    def pulling(network: Network, images: Tensor, labels: Tensor) -> Tensor:
        values = judge(network, images, labels)
        for _ in range(settings.shifts - 1):
            values = values + judge(network, *shifted(images, labels, rng))
        return values / settings.shifts

    return (judge if settings.shifts == 1 else pulling), judge


def shifted(images: Images, labels: Labels, rng: ImageRng) -> tuple[Images, Labels]:
    """Each image and its labels moved by up to `SHIFT` pixels each way; what comes in from the other side is void."""
    offsets = ((2 * SHIFT + 1) * rng.uniform((2,), images.detach())).floor().long() - SHIFT
    moved, follows = [], []
    for image, label, (down, right) in zip(images, labels, offsets.tolist(), strict=True):
        follow = label.roll((down, right), (0, 1))
        follow[_entered(down)] = IGNORE
        follow[:, _entered(right)] = IGNORE
        moved.append(image.roll((down, right), (1, 2)))
        follows.append(follow)
    return torch.stack(moved), torch.stack(follows)


def _entered(offset: int) -> slice:
    return slice(0, offset) if offset >= 0 else slice(offset, None)


class _Moves:
    """The move of an optimiser. It tells of each step, and remembers what diverged."""

    def __init__(self, settings: Settings, masks: Mask, on_step: Callable[[SynthesisStep], None]):
        self.settings, self.on_step = settings, on_step
        self.free = 3.0 * masks.flatten(1).sum(1).view(-1, 1, 1, 1)
        self.done = 0
        self.first = self.last = torch.zeros(len(masks), device=masks.device)
        self.broken = torch.zeros(len(masks), dtype=torch.bool, device=masks.device)
        self.rate: Tensor | None = None
        self.adam: torch.optim.Adam | None = None

    @property
    def diverged(self) -> Tensor:
        """Whose loss or move was no number at some step, or whose loss before the last step was above its first value."""
        return self.broken | (self.last > self.first)

    def __call__(self, here: Here) -> Tensor:
        """One step from here; a value that would not be finite stays."""
        self.last = -here.values
        self.first = self.first if self.done else self.last
        self.broken = self.broken | ~torch.isfinite(self.last)
        self.on_step(SynthesisStep(self.done, self.settings.steps, here.images, self.last))
        gradient = coarsened(here.budget.masked(here.gradient), self._cell())
        moved = here.images + getattr(self, f"_{self.settings.optimiser}")(here, here.budget.masked(gradient))
        self.done += 1
        finite = torch.isfinite(moved)
        self.broken = self.broken | ~finite.flatten(1).all(1)
        return torch.where(finite, moved, here.images)

    def _cell(self) -> int:
        """Side of the cells that gradients are averaged over at this step."""
        passed = self.done * 2 * self.settings.coarse // self.settings.steps
        return int(2 ** max(0, self.settings.coarse - passed))

    def _pgd(self, here: Here, gradient: Tensor) -> Tensor:
        return self.settings.step * self.free.sqrt() * direction(gradient, here.budget)

    def _descent(self, here: Here, gradient: Tensor) -> Tensor:
        if self.rate is None:
            length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            self.rate = torch.where(length > 0, self.settings.step * self.free.sqrt() / length, 0)
        return self.rate * gradient

    def _adam(self, here: Here, gradient: Tensor) -> Tensor:
        if self.adam is None:
            leaf = torch.nn.Parameter(torch.zeros_like(gradient))
            self.adam = torch.optim.Adam([leaf], lr=self.settings.step, maximize=True)
        (leaf,) = self.adam.param_groups[0]["params"]
        leaf.data.zero_()
        leaf.grad = self.free * gradient  # so that the constant of Adam's denominator is small beside it
        self.adam.step()
        change: Tensor = leaf.detach().clone()
        return change


def coarsened(gradient: Images, cell: int) -> Images:
    """Averaged over square cells of this many pixels, and interpolated back."""
    if cell == 1:
        return gradient
    size = gradient.shape[-2:]
    small = [max(1, side // cell) for side in size]
    return F.interpolate(F.interpolate(gradient, small, mode="area"), size, mode="bilinear", align_corners=False)


def grown(values: Tensor, known: Mask) -> Tensor:
    """Carry known values inward ring by ring, each pixel the mean of its neighbours that have one.

    Args:
        values: `[b, c, h, w]`. known: bool `[b, h, w]`; an image without a known pixel becomes 0.5 all over.

    Returns:
        The values, bit for bit where known.
    """
    there = known.unsqueeze(1)
    result = torch.where(there, values, 0.5)
    while True:
        weight = F.avg_pool2d(there.to(values.dtype), 3, 1, 1)
        ring = ~there & (weight > 0)
        if not ring.any():
            return result
        spread = F.avg_pool2d(torch.where(there, result, 0), 3, 1, 1)
        result = torch.where(ring, spread / weight.clamp_min(1e-3), result)
        there = there | ring


def completed(network: Network, images: Images, masks: Mask, *, without: Sequence[int] = ()) -> Labels:
    """The network's own label map outside the masks, carried into them ring by ring.

    Args:
        network: left as it was. images: `[b, 3, h, w]`. masks: bool `[b, h, w]`, True in the hole.
        without: classes that are not carried in, such as the one to be removed.

    Raises:
        RobustsegError: an image without a pixel to go by.
    """
    with frozen(network), torch.no_grad():
        seen = network.predict(images)
    classes = len(network.label_space)
    known = ~masks & (seen < classes)
    for one in without:
        known &= seen != one
    if not known.flatten(1).any(1).all():
        raise RobustsegError("expected pixels to complete the label map from, got a mask over all; try a target")
    shares = F.one_hot(torch.where(known, seen, 0), classes).permute(0, 3, 1, 2).to(images.dtype)
    return grown(shares, known).argmax(1)


def widened(masks: Mask, pixels: int) -> Mask:
    """Masks that reach so many pixels further, so that no rim of what is removed stays."""
    return F.max_pool2d(masks.float().unsqueeze(1), 2 * pixels + 1, 1, pixels).squeeze(1) > 0


class ClassColours(NamedTuple):
    """Gaussians of the colours of each class: mean `[k, 3]` and a root of the covariance `[k, 3, 3]`."""

    mean: Tensor
    root: Tensor

    def draw(self, labels: Labels, rng: ImageRng, *, like: Tensor) -> Images:
        """Images of these labels `[b, h, w]`: a colour a pixel, alike over about `GRAIN` pixels; void is mid-grey."""
        size = labels.shape[1:]
        cells = [-(-side // GRAIN) + 1 for side in size]
        field = F.interpolate(rng.normal((3, *cells), like), size, mode="bilinear", align_corners=False)
        known = labels != IGNORE
        index = torch.where(known, labels, 0)
        mean, root = self.mean.to(like)[index], self.root.to(like)[index]
        drawn = (mean + (root @ field.permute(0, 2, 3, 1).unsqueeze(-1)).squeeze(-1)).permute(0, 3, 1, 2)
        return torch.where(known.unsqueeze(1), drawn, 0.5).clamp(0, 1)


def class_colours(data: Dataset, *, images: int = 16) -> ClassColours:
    """The colours of each class over some images of a data set, evenly spread; a class without a pixel is mid-grey."""
    classes = len(data.label_space)
    count = torch.zeros(classes, dtype=torch.float64)
    first, second = count.new_zeros(classes, 3), count.new_zeros(classes, 3, 3)
    chosen = Spread(data, images)
    for number in range(len(chosen)):
        sample = chosen[number]
        known = sample.labels != IGNORE
        labels, pixels = sample.labels[known], sample.image[:, known].T.double() - 0.5
        count += labels.bincount(minlength=classes)
        first.index_add_(0, labels, pixels)
        second.index_add_(0, labels, pixels.unsqueeze(2) * pixels.unsqueeze(1))
    scale = count.clamp_min(1).view(-1, 1)
    mean = first / scale
    covariance = second / scale.unsqueeze(2) - mean.unsqueeze(2) * mean.unsqueeze(1)
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp_min(0).sqrt().unsqueeze(1)
    return ClassColours((mean + 0.5).float(), root.float())


def require_masks(images: Tensor, masks: Tensor) -> None:
    """Raise unless there is a mask bool `[h, w]` for each image, with a pixel in it."""
    if masks.dtype != torch.bool or masks.shape != (len(images), *images.shape[-2:]):
        raise ShapeError(
            f"expected bool masks {(len(images), *images.shape[-2:])}, got {masks.dtype} {tuple(masks.shape)}; "
            "try masks at the size of the images"
        )
    if not masks.flatten(1).any(1).all():
        raise RobustsegError("expected a pixel in every mask, got an empty one; try a larger mask or another one")


def _require_target(network: Network, labels: Tensor) -> None:
    known, classes = labels != IGNORE, len(network.label_space)
    if not known.flatten(1).any(1).all():
        raise RobustsegError("expected a labelled pixel to climb toward, got void only; try another label map")
    wrong = labels[known & ((labels < 0) | (labels >= classes))]
    if len(wrong):
        raise RobustsegError(
            f"expected classes 0 to {classes - 1} of {network.spec}, got {int(wrong[0])}; "
            f"try {', '.join(network.label_space.names)}"
        )
