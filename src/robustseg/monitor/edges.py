"""A network that labels and sees depth watches itself: its edges must lie where those of the image are.

A perturbation made to break the labels rarely breaks depth in the same places, and the image itself hardly changes. So the
edges of image, depth and labels, three maps of one street, fall apart under attack. Three pairs are compared, and an alarm is
what two of them agree on.

Source: Klingner, Kumar, Yogamani, Bär, Fingscheidt, IROS 2022, "Detecting Adversarial Perturbations in Multi-Task Perception".
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robustseg.core.errors import SpecError
from robustseg.core.registry import network
from robustseg.core.types import Assessment, Dataset, Depth, Images, Labels, Logits, Network, PerImage, most_likely
from robustseg.losses.similarity import ssim
from robustseg.monitor import conformal
from robustseg.monitor.calibration import condition_of, suspicions
from robustseg.monitor.detector import finite
from robustseg.networks.around import Around

PAIRS = ("image_labels", "image_depth", "labels_depth")
"""What is compared with what."""
NEVER = (math.inf,) * len(PAIRS)
"""Thresholds that raise no alarm."""


@network("edges")
class EdgeMonitor(Around):
    """A network with a depth head that tells from its own edges whether it is attacked: `edges(zoo:NAME, thresholds=…)`.

    As a network it is the one that it watches.

    Args:
        network: labels images and has `depth(images) -> [b, h, w]` in metres.
        thresholds: for each of `PAIRS` the suspicion from which on it speaks; infinity, the default, never speaks. `fit`
            finds them on clean images.
        rate, condition: the false-alarm rate that they promise and on what they were fitted, as `fit` wrote them.

    Raises:
        SpecError: the network has no depth, or there are not three thresholds.

    Source: Klingner et al. 2022; gradients and SSIM as in their code.
    Differs: maps are brought to 0 to 1 in each image alone, where they do so in the batch; SSIM reflects the border.
    """

    unspoken: ClassVar[Mapping[str, Any]] = {"thresholds": NEVER, "rate": None, "condition": ""}
    network: Any

    def __init__(
        self,
        network: Network,
        *,
        thresholds: Sequence[float] = NEVER,
        rate: float | None = None,
        condition: str = "",
    ):
        if not callable(getattr(network, "depth", None)):
            raise SpecError(f"expected a network with depth(images), got {network.spec}; try multitask(…)")
        if len(thresholds) != len(PAIRS):
            raise SpecError(f"expected thresholds for {', '.join(PAIRS)}, got {thresholds}; try fit")
        thresholds = tuple(float(t) for t in thresholds)
        super().__init__(network, "edges", thresholds=thresholds, rate=rate, condition=condition)
        self.thresholds, self.rate, self.condition = thresholds, rate, condition

    def forward(self, images: Images) -> Logits:
        """The logits of the network."""
        logits: Tensor = self.network(images)
        return logits

    def predict(self, images: Images) -> Labels:
        """The labels of the network."""
        labels: Tensor = self.network.predict(images)
        return labels

    def depth(self, images: Images) -> Depth:
        """The depth of the network, metres."""
        depth: Tensor = self.network.depth(images)
        return depth

    def score(self, images: Images) -> PerImage:
        """How far the second most suspicious pair of each image is beyond its threshold, `[b]`: an alarm from 0 on."""
        return self.watch(images).scores

    def fit(self, data: Dataset, *, rate: float = 0.05, batch_size: int = 4) -> "EdgeMonitor":
        """The same network with thresholds that promise a false-alarm rate on images like these clean ones.

        Each pair speaks on at most two thirds of `rate` of clean images (split conformal). An alarm needs two pairs, so it
        comes on at most `2/3 * 3 / 2 = 1` times the rate, however the pairs depend on each other; mostly on far fewer.

        Args:
            data: clean images that the network was not trained or chosen on; their labels are not used.
            rate: of clean images with an alarm, at most, 0 to 1. batch_size: images at a time.

        Returns:
            A copy around the same network whose spec carries the rate and the condition.

        Raises:
            RobustsegError: too few images for the rate, or the network failed on one.

        Differs: Klingner et al. take the 5th percentile of each pair, which promises 7.5 % of the majority.
        """
        found = suspicions(self, data, batch_size=batch_size)
        thresholds = tuple(conformal.threshold(found[pair], 2 / 3 * rate) for pair in PAIRS)
        return self.with_(thresholds=thresholds, rate=rate, condition=condition_of(data))

    def watch(self, images: Images) -> Assessment:
        """The labels, and whether their edges fit those of image and depth: one pass for the labels, one for depth.

        `attacked` is `network` at an alarm; `suspicion` is `1 - SSIM` of the edges of each of `PAIRS`, and `disagreement` is
        `(1 - SSIM) / 2`, the mean over pairs and both directions.
        """
        logits, depth = self(images), self.depth(images)
        labels, lost = most_likely(logits), ~(finite(logits) & finite(depth))
        apart = [_apart(images, labels, depth, axis) for axis in (2, 3)]  # [pairs, b, h, w] each
        disagreement = torch.stack(
            [F.pad(a, (0, axis - 2, 0, 3 - axis)) for a, axis in zip(apart, (2, 3), strict=True)]
        )
        suspicion = torch.stack([a.mean((2, 3)) for a in apart]).mean(0)
        suspicion = suspicion.masked_fill(lost, torch.nan)
        # in float64, as the thresholds are, so that one fitted on scores holds for these exactly
        beyond = suspicion.detach().cpu().double() - torch.tensor(self.thresholds, dtype=torch.float64)[:, None]
        scores = beyond.sort(0).values[1]
        alarm = (scores >= 0).tolist()
        return Assessment(
            labels=labels,
            scores=scores,
            attacked=[
                "unknown" if gone else "network" if yes else "none" for gone, yes in zip(lost, alarm, strict=True)
            ],
            failed=[("network",) if gone else () for gone in lost],
            disagreement=(disagreement.mean((0, 1)) / 2).clamp(0, 1),
            suspicion=dict(zip(PAIRS, suspicion, strict=True)),
            tiles=scores.view(-1, 1, 1),
        )


def _apart(images: Images, labels: Labels, depth: Depth, axis: int) -> Tensor:
    """`1 - SSIM` of the edges across an axis of images, for each pair at each pixel but the last: `[pairs, b, h', w']`."""
    image = _spread(images.diff(dim=axis).abs().mean(1))
    changes = labels.diff(dim=axis - 1).ne(0).to(image)
    relative = depth / depth.mean((1, 2), keepdim=True)
    near = _spread(relative.diff(dim=axis - 1).abs().to(image))
    of = {"image": image, "labels": changes, "depth": near}
    pairs = [[of[name].unsqueeze(1) for name in pair.split("_")] for pair in PAIRS]
    return torch.stack([1 - ssim(*pair) for pair in pairs])


def _spread(edges: Tensor) -> Tensor:
    """Maps `[b, h, w]` brought to 0 to 1, each by its own smallest and largest value; 0 where they are equal."""
    low, high = edges.amin((1, 2), keepdim=True), edges.amax((1, 2), keepdim=True)
    return (edges - low) / (high - low).clamp_min(torch.finfo(edges.dtype).tiny)
