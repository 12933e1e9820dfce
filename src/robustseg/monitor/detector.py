"""Which of three networks is under attack, told from where they differ.

    d = D(g(teacher), g(adaptive)) - D(g(student), g(adaptive))

with g the argmax of each pixel and D the share of pixels that differ. The adaptive network (A) was trained to label as the
teacher (T) does while its inner features keep away from those of the student (S), so an attack on either of the two
moves A less than its victim: a large d speaks against T, a small one against S. All scores here are means over a tile
of pixels of the same difference map; a whole image is one tile.

Source: Baer, Klingner, Varghese, Hueger, Schlicht, Fingscheidt, CVPRW 2020.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from robustseg.core.errors import SpecError
from robustseg.core.types import Labels, Logits, PerImage, most_likely

MEMBERS = ("teacher", "student", "adaptive")

Threshold = float | tuple[float | None, float | None]
"""One number, the paper's rule: `d >= it` speaks against T, all else against S. Or two, with quiet between them:
`d <= low` speaks against S, `d >= high` against T; None on a side never speaks."""


def finite(logits: Tensor) -> Tensor:
    """Whether all values of an image `[b, …]` are numbers, bool `[b]`; a fraction of the time of `isfinite` on each."""
    values = logits.detach().flatten(1)
    return values.amin(1).isfinite() & values.amax(1).isfinite()


def label_difference(teacher: Labels, student: Labels, adaptive: Labels, *, dtype: torch.dtype) -> Tensor:
    """`difference` by Hamming distance, from labels: 1 where only T differs from A, -1 where only S does."""
    return (teacher != adaptive).to(dtype) - (student != adaptive).to(dtype)


def pixel_hamming(first: Logits, second: Logits) -> Tensor:
    """1 where the labels differ, 0 elsewhere, `[b, h, w]`. No gradient."""
    return (most_likely(first) != most_likely(second)).to(torch.promote_types(first.dtype, torch.float32))


def pixel_variation(first: Logits, second: Logits) -> Tensor:
    """Total variation of the posteriors, `sum |p - q| / 2`, `[b, h, w]`, 0 to 1: the soft Hamming distance."""
    return (_posteriors(first) - _posteriors(second)).abs().sum(1) / 2


def pixel_kl(first: Logits, second: Logits) -> Tensor:
    """Symmetric Kullback-Leibler divergence of the posteriors, `(KL(p, q) + KL(q, p)) / 2`, `[b, h, w]`."""
    p, q = (logits.contiguous().log_softmax(1) for logits in (first, second))
    return ((p.exp() - q.exp()) * (p - q)).sum(1) / 2


def pixel_cosine(first: Logits, second: Logits) -> Tensor:
    """`1 - cos(p, q)` of the posteriors, `[b, h, w]`, 0 to 1."""
    return 1 - F.cosine_similarity(_posteriors(first), _posteriors(second), dim=1)


DISTANCES = {"hamming": pixel_hamming, "kl": pixel_kl, "cosine": pixel_cosine}
"""How two answers differ at a pixel. The last two go by posteriors, not by labels alone, and have gradients."""


def _posteriors(logits: Tensor) -> Tensor:
    return logits.contiguous().softmax(1)


def difference(teacher: Logits, student: Logits, adaptive: Logits, *, distance: str, soft: bool = False) -> Tensor:
    """What d is the mean of: `D(T, A) - D(S, A)` at each pixel, `[b, h, w]`.

    Args:
        teacher, student, adaptive: logits `[b, k, h, w]`.
        distance: a name of `DISTANCES`.
        soft: with a gradient: `pixel_variation` in place of `hamming`.
    """
    between = pixel_variation if soft and distance == "hamming" else DISTANCES[distance]
    return between(teacher, adaptive) - between(student, adaptive)


def tiled(values: Tensor, tile: int | None) -> Tensor:
    """Means over tiles of `tile` x `tile` pixels, `[b, h, w] -> [b, rows, columns]`; tiles at the edge may be smaller.

    None is one tile, the image.
    """
    if tile is None:
        return values.mean((1, 2), keepdim=True)
    height, width = values.shape[1:]
    padded = F.pad(values, (0, -width % tile, 0, -height % tile))
    inside = F.pad(torch.ones_like(values[:1]), (0, -width % tile, 0, -height % tile))
    return _sums(padded, tile) / _sums(inside, tile)


def _sums(values: Tensor, tile: int) -> Tensor:
    b, h, w = values.shape
    return values.view(b, h // tile, tile, w // tile, tile).sum((2, 4))


def untiled(values: Tensor, tile: int | None, size: tuple[int, int]) -> Tensor:
    """The value of its tile at each pixel, `[b, rows, columns] -> [b, h, w]`: the way back from `tiled`."""
    height, width = size
    if tile is None:
        return values.expand(-1, height, width)
    return values.repeat_interleave(tile, 1).repeat_interleave(tile, 2)[:, :height, :width]


def bounds(threshold: Threshold) -> tuple[float, float]:
    """`(low, high)`: S is blamed at or below the first, T at or above the second; infinite where never.

    Raises:
        SpecError: not in order.
    """
    if not isinstance(threshold, tuple):
        return -float("inf"), float(threshold)
    low, high = threshold
    if low is not None and high is not None and not low < high:
        raise SpecError(f"expected thresholds (low, high) with low < high, got {threshold}; try (-0.05, 0.05)")
    return -float("inf") if low is None else low, float("inf") if high is None else high


def extreme(tiles: Tensor) -> PerImage:
    """The d of the tile whose d is farthest from 0, `[b]`: positive speaks against T, negative against S."""
    high, low = tiles.amax((1, 2)), tiles.amin((1, 2))
    return torch.where(high >= -low, high, low)


def excess(tiles: Tensor, threshold: Threshold) -> PerImage:
    """How far the most suspicious tile of each image is beyond the thresholds, float64 `[b]` on the CPU; NaN stays NaN.

    In float64, so that a threshold fitted on scores holds for these scores exactly.
    """
    low, high = bounds(threshold)
    flat = tiles.detach().cpu().double().flatten(1)
    return torch.maximum(flat - high, low - flat).amax(1)


def blamed(tiles: Tensor, threshold: Threshold) -> list[str]:
    """Who is under attack in each image, by its tiles `[b, rows, columns]`: T where any tile speaks against it.

    Compared in float64, so that a threshold fitted on scores holds for these scores exactly.
    """
    low, high = bounds(threshold)
    quiet = "none" if isinstance(threshold, tuple) else "student"
    flat = tiles.detach().cpu().double().flatten(1)
    against_teacher, against_student = (flat >= high).any(1), (flat <= low).any(1)
    failed = flat.isnan().any(1)
    return [
        "unknown" if lost else "teacher" if t else "student" if s else quiet
        for lost, t, s in zip(failed.tolist(), against_teacher.tolist(), against_student.tolist(), strict=True)
    ]
