"""One frame from beginning to end: what stands in view, what the rays meet, edges seen more often, light, labels, depth."""

import numpy as np
import torch
from torch import Tensor

from robustseg.core.types import Sample
from robustseg.datasets.streets.ground import grassy
from robustseg.datasets.streets.render import (
    KERB_HIT,
    NOTHING,
    PAVEMENT_HIT,
    ROAD_HIT,
    Bodies,
    Hits,
    Pairs,
    Rays,
    camera_boxes,
    keep_nearest,
    look,
    meet_ground,
    pack,
    shadow_map,
    street_coordinates,
    unpack,
)
from robustseg.datasets.streets.scene import Street
from robustseg.datasets.streets.shading import develop, shade, turned
from robustseg.datasets.streets.shapes import HEDGE, LEAF

SKY_DEPTH = 10_000.0
"""The depth (metres) of the sky: far enough that only the camera's rotation moves it."""
OFFSETS = ((0.10, -0.36), (0.27, 0.27), (-0.36, 0.10))
"""Where pixels at edges are seen besides their centre, pixels."""


def intrinsics_of(scene: Street, size: tuple[int, int]) -> Tensor:
    """`[3, 3]`: square pixels, the optical axis in the middle of the image."""
    h, w = size
    focal = w / (2 * np.tan(scene.field_of_view / 2))
    return torch.tensor([[focal, 0, (w - 1) / 2], [0, focal, (h - 1) / 2], [0, 0, 1]], dtype=torch.float32)


@torch.no_grad()
def render(scene: Street, frame: int, size: tuple[int, int], step: int = 1) -> Sample:
    """One frame with everything that is known about it, and the poses of those `step` frames away; see `Streets`."""
    h, w = size
    view = scene.view(frame)
    bodies, camera, k = Bodies.of(view), torch.from_numpy(view.camera).float(), intrinsics_of(scene, size)
    origin, pixel = camera[:3, 3], 1 / float(k[0, 0])
    to_world = camera[:3, :3] @ torch.linalg.inv(k)
    rays = Rays(bodies, origin, to_world, spread=True)
    grid_y, grid_x = (g.flatten().float() for g in torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"))
    direction = _directions(grid_x, grid_y, to_world)
    hits = look(rays, *camera_boxes(bodies, camera, k, size), meet_ground(scene, view, origin, direction), w)
    shadow = shadow_map(bodies, turned(scene.look.sun, -view.heading))

    # pixels at the edges of things are seen more often; only what their neighbours see can be seen there
    rows, candidate, solid = _edges(hits, bodies, h, w)
    parts, directions = [hits], [direction]
    at_x, at_y = grid_x[rows], grid_y[rows]
    for dx, dy in OFFSETS:
        bent = _directions(at_x + dx, at_y + dy, to_world)
        best = pack(meet_ground(scene, view, origin, bent))
        keep_nearest(rays, Pairs(solid, candidate, at_x[candidate] + dx, at_y[candidate] + dy), best)
        parts.append(unpack(best))
        directions.append(bent)
    every = Hits(*(torch.cat(p) for p in zip(*parts, strict=True)))
    light = shade(scene, view, bodies, shadow, every, origin, torch.cat(directions), pixel)
    rgb = light[: h * w]
    # averaged below the brightness of paper, so that bright sky does not eat thin branches
    seen = light[h * w :].view(len(OFFSETS), len(rows), 3).clamp_max(1.5).sum(0)
    rgb[rows] = (seen + rgb[rows].clamp_max(1.5)) / (1 + len(OFFSETS))

    generator = torch.Generator().manual_seed(seed_of(*scene.key, frame))
    labels, moving = _labels(scene, bodies, hits, origin, direction)
    extras = {
        "depth": torch.where(hits.solid == NOTHING, SKY_DEPTH, hits.depth).view(h, w),
        "intrinsics": k,
        "pose_next": torch.from_numpy(scene.pose(frame, frame + step)).float(),
        "pose_previous": torch.from_numpy(scene.pose(frame, frame - step)).float(),
        "moving": moving.view(h, w),
    }
    image = develop(scene.look, rgb.view(h, w, 3), generator)
    return Sample(image, labels.view(h, w), f"streets-{scene.key[1]:04d}_{frame:06d}", extras)


def seed_of(*numbers: int) -> int:
    """A seed of 32 bits from some whole numbers."""
    return int(np.random.SeedSequence([n + 1_000_000 for n in numbers]).generate_state(1)[0])


def _directions(x: Tensor, y: Tensor, to_world: Tensor) -> Tensor:
    return torch.stack([torch.addcmul(y * row[1] + row[2], x, row[0]) for row in to_world], 1)


def _edges(hits: Hits, bodies: Bodies, h: int, w: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels at which a neighbour shows another thing, `[m]`, and their candidates (index into those pixels, solid)."""
    leaves = (bodies.material == LEAF) | (bodies.material == HEDGE)
    ids = hits.solid.clamp_min(-1).int()
    face = torch.where(leaves[ids.clamp_min(0)], 0, hits.face)
    key = (torch.where(ids < 0, hits.solid, ids) * 16 + face).int().view(h, w)
    edge = torch.zeros(h, w, dtype=torch.bool)
    down, right = key[1:] != key[:-1], key[:, 1:] != key[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    rows = edge.flatten().nonzero()[:, 0]
    padded = torch.nn.functional.pad(ids.view(1, 1, h, w).float(), (1, 1, 1, 1), mode="replicate").int().view(-1)
    at = (rows // w + 1) * (w + 2) + rows % w + 1
    seen = [padded[at + o] for o in (0, 1, -1, w + 2, -w - 2)]
    number = torch.arange(len(rows), dtype=torch.int32)
    index, solid = [], []
    for i, one in enumerate(seen):
        fresh = one >= 0
        for other in seen[:i]:
            fresh &= one != other
        chosen = fresh.nonzero()[:, 0]
        index.append(number[chosen])
        solid.append(one[chosen])
    return rows, torch.cat(index), torch.cat(solid)


def _labels(scene: Street, bodies: Bodies, hits: Hits, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Train ids and which pixels show something that moves by itself, flat."""
    known = hits.solid.clamp_min(0)
    labels = torch.where(hits.solid >= 0, bodies.label[known], 0)
    labels[hits.solid == ROAD_HIT] = 3
    paved = (hits.solid == PAVEMENT_HIT) | (hits.solid == KERB_HIT)
    labels[paved] = 4
    if scene.style == "suburb":
        rows = paved.nonzero()[:, 0]
        place = origin + direction[rows] * hits.depth[rows, None]
        lateral, _ = street_coordinates(scene, place[:, 0], place[:, 2])
        labels[rows[grassy(scene, lateral)]] = 5
    return labels, (hits.solid >= 0) & bodies.moving[known]
