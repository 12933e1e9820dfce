"""Streets: a procedural street video with exact labels, depth, poses and moving objects. The built-in data set.

Everything is drawn from (seed, scene, frame): frames do not depend on each other, on the call order or on how many
are asked for. The classes are CamVid's eleven.
"""

import functools
import re

import numpy as np
import torch
from torch import Tensor

from robustseg.spaces import CAMVID
from robustseg.data.streets.ground import grassy
from robustseg.data.streets.render import (
    KERB_HIT, NOTHING, PAVEMENT_HIT, ROAD_HIT, Bodies, Hits, Pairs, Rays, camera_boxes, list_pairs, meet_ground, nearest,
    shadow_map, street_coordinates,
)  # fmt: skip
from robustseg.data.streets.scene import Street, street
from robustseg.data.streets.shading import develop, shade, turned
from robustseg.records import SpecError
from robustseg.registry import dataset
from robustseg.types import Sample

SKY_DEPTH = 10_000.0
"""The depth (metres) of the sky: far enough that only the camera's rotation moves it."""
SPLITS = {"train": (0, 8000), "val": (8000, 1000), "test": (9000, 1000)}
"""Split -> first scene and how many there are."""


@dataset("streets")
class Streets:
    """Procedural street video rendered by ourselves, with labels, depth, poses and moving objects.

    Frame t of a scene is 0.1 s after frame t - 1. Extras of every sample: `depth [h, w]` (metres along the optical
    axis, sky `SKY_DEPTH`), `intrinsics [3, 3]`, `pose_next` and `pose_previous [4, 4]` (points of this camera to the
    neighbour's camera), `moving [h, w]` (bool); with `neighbours` also the images `next` and `previous [3, h, w]`.

    Args:
        seed: of the whole world.
        scenes, frames: how many scenes, and frames of each; more of either never changes those before.
        size: `'HxW'` or (h, w).
        split: `train`, `val` or `test`: different scenes.
        neighbours: whether samples carry the images of the frames before and after.

    Raises:
        SpecError: an argument makes no sense.
    """

    label_space = CAMVID

    def __init__(
        self,
        *,
        seed: int = 0,
        scenes: int = 10,
        frames: int = 10,
        size: str | tuple[int, int] = "256x512",
        split: str = "test",
        neighbours: bool = False,
    ):
        if split not in SPLITS:
            raise SpecError(f"expected the split train, val or test, got '{split}'; try streets(split='train')")
        first, most = SPLITS[split]
        if not 1 <= scenes <= most:
            raise SpecError(f"expected 1 to {most} scenes in {split}, got {scenes}; try streets(scenes=10)")
        if frames < 1 or seed < 0:
            raise SpecError(f"expected frames >= 1 and seed >= 0, got {frames} and {seed}; try streets(frames=10, seed=0)")
        self.seed, self.size, self.neighbours = seed, parse_size(size), neighbours
        self.frames = [(first + s, f) for s in range(scenes) for f in range(frames)]
        self.ids = tuple(f"streets-{s:04d}_{f:06d}" for s, f in self.frames)
        h, w = self.size
        self.spec = f"streets(seed={seed}, scenes={scenes}, frames={frames}, size='{h}x{w}', split='{split}')"

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        scene, frame = self.frames[index]
        sample = self.frame(scene, frame)
        if self.neighbours:
            near = {"next": self.frame(scene, frame + 1).image, "previous": self.frame(scene, frame - 1).image}
            return Sample(sample.image, sample.labels, sample.id, {**sample.extras, **near})
        return sample

    def frame(self, scene: int, frame: int) -> Sample:
        """Any frame of any scene, within the set or not (negative frames lie before the start)."""
        return _rendered(self.seed, scene, frame, *self.size)

    def neighbour(self, index: int, offset: int = 1) -> Sample:
        """The frame `offset` after the one at `index`, of the same scene."""
        scene, frame = self.frames[index]
        return self.frame(scene, frame + offset)


def parse_size(size: str | tuple[int, int]) -> tuple[int, int]:
    """`'256x512'` as (256, 512).

    Raises:
        SpecError: it is not two whole numbers of at least 16.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", size) if isinstance(size, str) else None
    numbers = tuple(int(n) for n in (match.groups() if match else () if isinstance(size, str) else size))
    if len(numbers) != 2 or min(numbers) < 16:
        raise SpecError(f"expected a size like '256x512', at least 16x16, got '{size}'; try size='256x512'")
    return numbers[0], numbers[1]


@functools.lru_cache(maxsize=4)
def _rendered(seed: int, scene: int, frame: int, height: int, width: int) -> Sample:
    return render(street(seed, scene), frame, (height, width))


def intrinsics_of(scene: Street, size: tuple[int, int]) -> Tensor:
    """`[3, 3]`: square pixels, the optical axis in the middle of the image."""
    h, w = size
    focal = w / (2 * np.tan(scene.field_of_view / 2))
    return torch.tensor([[focal, 0, (w - 1) / 2], [0, focal, (h - 1) / 2], [0, 0, 1]], dtype=torch.float32)


@torch.no_grad()
def render(scene: Street, frame: int, size: tuple[int, int]) -> Sample:
    """One frame with everything that is known about it; see `Streets`."""
    h, w = size
    view = scene.view(frame)
    bodies, camera, k = Bodies.of(view), torch.from_numpy(view.camera).float(), intrinsics_of(scene, size)
    origin, pixel = camera[:3, 3], 1 / float(k[0, 0])
    to_world = camera[:3, :3] @ torch.linalg.inv(k)
    still = torch.zeros(3, 3)
    still[:, 2] = origin
    rays = Rays(still, to_world)
    solid, x, y = list_pairs(camera_boxes(bodies, camera, k, size), w)
    flat = y * w + x
    pairs = Pairs(solid, flat, x.float(), y.float())

    grid_y, grid_x = (g.flatten().float() for g in torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"))
    direction = torch.stack([grid_x, grid_y, torch.ones_like(grid_x)], 1) @ to_world.T
    hits = meet_ground(scene, view, origin, direction, nearest(bodies, rays, pairs, h * w))
    shadow = shadow_map(bodies, turned(scene.look.sun, -view.heading))

    # pixels at the edges of things are seen four times more
    edge = _edges(hits, bodies, h, w)
    number = torch.full((h * w,), -1)
    rows = edge.nonzero()[:, 0]
    number[rows] = torch.arange(len(rows))
    chosen = edge[flat].nonzero()[:, 0]
    parts, directions = [hits], [direction]
    for dx, dy in ((-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125)):
        offset = Pairs(solid[chosen], number[flat[chosen]], pairs.p[chosen] + dx, pairs.q[chosen] + dy)
        bent = torch.stack([grid_x[rows] + dx, grid_y[rows] + dy, torch.ones(len(rows))], 1) @ to_world.T
        parts.append(meet_ground(scene, view, origin, bent, nearest(bodies, rays, offset, len(rows))))
        directions.append(bent)
    every = Hits(*(torch.cat(p) for p in zip(*parts, strict=True)))
    light = shade(scene, view, bodies, shadow, every, origin, torch.cat(directions), pixel)
    rgb = light[: h * w]
    # averaged as seen, not as light, so that bright sky does not eat thin branches
    rgb[rows] = light[h * w :].view(4, len(rows), 3).clamp_max(3).mean(0)

    generator = torch.Generator().manual_seed(hash_of(*scene.key, frame))
    image = develop(scene.look, rgb.view(h, w, 3), generator)
    labels, moving = _labels(scene, view, bodies, hits, origin, direction)
    depth = torch.where(hits.solid == NOTHING, SKY_DEPTH, hits.depth).view(h, w)
    extras = {
        "depth": depth,
        "intrinsics": k,
        "pose_next": torch.from_numpy(scene.pose(frame, frame + 1)).float(),
        "pose_previous": torch.from_numpy(scene.pose(frame, frame - 1)).float(),
        "moving": moving.view(h, w),
    }
    return Sample(image, labels.view(h, w), f"streets-{scene.key[1]:04d}_{frame:06d}", extras)


def hash_of(*numbers: int) -> int:
    """A seed of 32 bits from some whole numbers."""
    return int(np.random.SeedSequence([n + 1_000_000 for n in numbers]).generate_state(1)[0])


def _edges(hits: Hits, bodies: Bodies, h: int, w: int) -> Tensor:
    """Pixels whose neighbour shows another solid or another face; `[h * w]`."""
    key = (hits.solid * 16 + hits.face).view(h, w)
    edge = torch.zeros(h, w, dtype=torch.bool)
    down, right = key[1:] != key[:-1], key[:, 1:] != key[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge.flatten()


def _labels(scene: Street, view, bodies: Bodies, hits: Hits, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    """Train ids and which pixels show something that moves by itself, flat."""
    known = hits.solid.clamp_min(0)
    labels = torch.where(hits.solid >= 0, bodies.label[known], 0)
    labels[hits.solid == ROAD_HIT] = 3
    paved = (hits.solid == PAVEMENT_HIT) | (hits.solid == KERB_HIT)
    labels[paved] = 4
    rows = paved.nonzero()[:, 0]
    place = origin + direction[rows] * hits.depth[rows, None]
    lateral, _ = street_coordinates(scene, place[:, 0], place[:, 2])
    labels[rows[grassy(scene, lateral)]] = 5
    return labels, (hits.solid >= 0) & bodies.moving[known]


__all__ = ["SKY_DEPTH", "SPLITS", "Streets", "intrinsics_of", "parse_size", "render"]
