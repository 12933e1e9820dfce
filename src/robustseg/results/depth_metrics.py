"""Errors of depth maps and of camera motion, and the baselines that need no network. Sums first, ratios last; no torch.

Depth and motion learnt from video are known up to one factor, so both are scaled to the truth before they are judged: depth
by the ratio of medians of each image, motion by the best factor of each snippet of frames.

Sources: Eigen, Puhrsch, Fergus, NeurIPS 2014 (the figures of depth); Zhou, Brown, Snavely, Lowe, CVPR 2017 (median scaling,
snippets).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustseg.core.errors import RobustsegError, ShapeError

NEAREST, FARTHEST = 1e-3, 80.0
"""Only truth between these depths (metres) counts; predictions are brought within them, as usual on KITTI."""

RATIO = 1.25
"""A depth within this factor of the truth is right in `delta_1`, within its square and cube in `delta_2` and `delta_3`."""


@dataclass(frozen=True)
class DepthSums:
    """Sums over the pixels of known depth of each image; `+` puts images one after another.

    Args:
        ids: n image ids.
        pixels: int64 `[n]`, how many pixels were compared.
        sums: float64 `[n, 7]`: `|p - t| / t`, `(p - t)^2 / t`, `(p - t)^2`, `(log p - log t)^2`, and how many pixels have
            `max(p / t, t / p) < 1.25`, `< 1.25^2`, `< 1.25^3`.
        scales: float64 `[n]`, by what each prediction was multiplied; NaN where nothing was compared.
    """

    ids: tuple[str, ...]
    pixels: np.ndarray
    sums: np.ndarray
    scales: np.ndarray

    def __add__(self, other: "DepthSums") -> "DepthSums":
        rows = zip((self.pixels, self.sums, self.scales), (other.pixels, other.sums, other.scales), strict=True)
        return DepthSums(self.ids + other.ids, *(np.concatenate(pair) for pair in rows))


def depth_sums(
    truth: np.ndarray,
    prediction: np.ndarray,
    ids: Sequence[str],
    *,
    median_scaling: bool = True,
    farthest: float = FARTHEST,
) -> DepthSums:
    """Compare depth maps pixel by pixel wherever the truth is known.

    Args:
        truth: `[n, h, w]`, metres, 0 where nothing is known.
        prediction: `[n, h, w]`, above 0; a small one is brought to the truth's size by the caller, never the other way.
        ids: n image ids.
        median_scaling: multiply each prediction by `median(truth) / median(prediction)` over its compared pixels.
        farthest: truth beyond it (metres) does not count.

    Raises:
        ShapeError: the shapes differ. RobustsegError: a prediction that is not above 0 where the truth is known.

    Source: Eigen et al. 2014; scaled and capped as Zhou et al. 2017 and Godard et al., ICCV 2019, do.
    """
    if truth.shape != prediction.shape or truth.ndim != 3 or len(truth) != len(ids):
        raise ShapeError(f"expected two depth maps [{len(ids)}, h, w], got {truth.shape} and {prediction.shape}")
    pixels, sums, scales = np.zeros(len(ids), np.int64), np.zeros((len(ids), 7)), np.full(len(ids), np.nan)
    for i, (whole, guess) in enumerate(zip(truth, prediction, strict=True)):
        known = (whole > NEAREST) & (whole < farthest)
        if not known.any():
            continue
        t, p = whole[known].astype(np.float64), guess[known].astype(np.float64)
        if not (np.isfinite(p).all() and (p > 0).all()):
            raise RobustsegError(
                f"expected depths above 0 for '{ids[i]}', got {p.min()}; try a network whose depth is positive and finite"
            )
        scales[i] = np.median(t) / np.median(p) if median_scaling else 1.0
        p = np.clip(p * scales[i], NEAREST, farthest)
        ratio, gap = np.maximum(p / t, t / p), p - t
        parts = [np.abs(gap) / t, gap**2 / t, gap**2, np.log(p / t) ** 2, *(ratio < RATIO**k for k in (1, 2, 3))]
        pixels[i], sums[i] = len(t), [part.sum() for part in parts]
    return DepthSums(tuple(ids), pixels, sums, scales)


def depth_figures(sums: DepthSums) -> dict[str, float]:
    """`abs_rel`, `sq_rel`, `rmse`, `rmse_log`, `delta_1`, `delta_2`, `delta_3`: of each image, and the mean over images.

    Images without known depth are left out; NaN where there is no other. `rmse` in metres, `sq_rel` in metres too.
    """
    names = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta_1", "delta_2", "delta_3")
    known = sums.pixels > 0
    if not known.any():
        return dict.fromkeys(names, float("nan"))
    means = sums.sums[known] / sums.pixels[known, None]
    means[:, 2:4] = np.sqrt(means[:, 2:4])
    return dict(zip(names, means.mean(0).tolist(), strict=True))


def row_medians(depths: np.ndarray) -> np.ndarray:
    """The baseline that knows a street but looks at no image: the median depth of each row over a whole video, `[h]`.

    Args:
        depths: `[n, h, w]`, metres, 0 or NaN where nothing is known. Rows without any known depth take what lies between
            the nearest rows that have some.

    Raises:
        RobustsegError: no depth is known at all.
    """
    depths = np.where(depths > 0, depths, np.nan).transpose(1, 0, 2).reshape(depths.shape[1], -1)
    known = np.isfinite(depths).any(1)
    if not known.any():
        raise RobustsegError("expected known depth in some pixel, got none; try data with depth maps")
    rows = np.flatnonzero(known)
    return np.interp(np.arange(len(depths)), rows, np.nanmedian(depths[rows], axis=1))


def snippet_errors(truth: np.ndarray, prediction: np.ndarray, *, frames: int = 5) -> np.ndarray:
    """Absolute trajectory error of every snippet of some frames in a row, `[n - frames + 2]`, metres.

    The positions of the cameras of a snippet, seen from its first camera, are multiplied by the factor that brings them
    nearest to the true ones; the error is the root of the summed squared distances over the number of frames.

    Args:
        truth, prediction: `[n, 4, 4]`, the poses from each camera of one sequence to the next (`pose_next`).
        frames: of a snippet.

    Raises:
        ShapeError: the shapes differ, or there are fewer frames than a snippet has.

    Source: Zhou et al. 2017, section 4.3, as their code computes it (`sqrt(sum of squares) / frames`, which is smaller
        than the root mean square by the root of `frames`).
    """
    if truth.shape != prediction.shape or truth.shape[1:] != (4, 4) or len(truth) + 1 < frames:
        raise ShapeError(
            f"expected two runs of at least {frames - 1} poses [n, 4, 4], got {truth.shape} and {prediction.shape}; "
            "try poses of all frames of one sequence"
        )
    errors = []
    for start in range(len(truth) - frames + 2):
        steps = slice(start, start + frames - 1)
        true, guess = positions(truth[steps]), positions(prediction[steps])
        length = np.square(guess).sum()
        scale = (true * guess).sum() / length if length > 0 else 0.0
        errors.append(np.sqrt(np.square(true - scale * guess).sum()) / frames)
    return np.array(errors)


def positions(steps: np.ndarray) -> np.ndarray:
    """Where the camera stands after each step, seen from the first camera: poses `[n, 4, 4]` -> metres `[n + 1, 3]`."""
    back, found = np.eye(4), [np.zeros(3)]
    for step in steps:
        back = back @ np.linalg.inv(step.astype(np.float64))
        found.append(back[:3, 3])
    return np.stack(found)


def forward_motion(steps: int) -> np.ndarray:
    """The baseline that always drives straight ahead, one metre a step: poses `[steps, 4, 4]` from each camera to the next."""
    poses = np.tile(np.eye(4), (steps, 1, 1))
    poses[:, 2, 3] = -1.0
    return poses
