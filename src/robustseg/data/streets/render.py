"""What each ray meets: solids by their boxes on the image, the ground in closed form, and the shadow map of the sun.

Nothing loops over objects: all (solid, pixel) pairs whose box covers the pixel stand in one list, are met in a few
vector operations, and the nearest of each pixel wins. The sun's shadow map is the same with parallel rays.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from robustseg.data.streets.noise import leafy
from robustseg.data.streets.scene import KERB, Street, View
from robustseg.data.streets.shapes import LEAF, PLANES, RING

NEAR = 0.25
GROUND_FAR = 1500.0
ROAD_HIT, PAVEMENT_HIT, KERB_HIT, NOTHING = -1, -2, -3, -4


@dataclass(frozen=True)
class Bodies:
    """The solids of a view as tensors; see `shapes.Solids`. `rows [n, 3, 3]` leads from world to local units."""

    centre: Tensor
    turn: Tensor
    half: Tensor
    planes: Tensor
    sides: Tensor
    quadric: Tensor
    label: Tensor
    material: Tensor
    colours: Tensor
    traits: Tensor
    moving: Tensor
    rows: Tensor

    @classmethod
    def of(cls, view: View) -> "Bodies":
        """Tensors of the solids in view."""
        s = view.solids
        parts = {name: torch.from_numpy(np.ascontiguousarray(getattr(s, name))) for name in vars(s)}
        turn, half = parts["turn"], parts["half"]
        units = torch.where((parts["sides"] == 0)[:, None], half, torch.ones_like(half))
        return cls(**parts, rows=turn.mT / units[:, :, None])


class Rays(NamedTuple):
    """How rays depend on their two image coordinates (p, q): origin and direction are affine, `[3, 3]` @ (p, q, 1)."""

    origin: Tensor
    direction: Tensor


class Hits(NamedTuple):
    """Per ray: the solid (>= 0) or what else was hit, the depth, and the face of a polyhedron (or back of a quadric)."""

    solid: Tensor
    depth: Tensor
    face: Tensor


class Pairs(NamedTuple):
    """Candidates: which solid, which pixel (flat), and the image coordinates of the ray."""

    solid: Tensor
    pixel: Tensor
    p: Tensor
    q: Tensor


def boxes_on_image(corners: Tensor, size: tuple[int, int], pad: float) -> Tensor:
    """From points `[n, m, 2]` (nan where there is none) the pixel ranges `[n, 4]` = x0, x1, y0, y1 (ends excluded)."""
    h, w = size
    low = torch.where(corners.isnan(), torch.inf, corners).amin(1) - pad
    high = torch.where(corners.isnan(), -torch.inf, corners).amax(1) + pad
    limit = torch.tensor([w, h], dtype=corners.dtype)
    low = low.ceil().clamp_min(0).minimum(limit)
    high = (high.floor() + 1).clamp_min(0).minimum(limit)
    return torch.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], 1).long()


def list_pairs(boxes: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """All (solid, x, y) with the pixel in the solid's box, as int32."""
    wide, tall = (boxes[:, 1] - boxes[:, 0]).clamp_min(0), (boxes[:, 3] - boxes[:, 2]).clamp_min(0)
    rows = torch.repeat_interleave(torch.arange(len(boxes)), tall * (wide > 0))
    starts = torch.cumsum(tall * (wide > 0), 0) - tall * (wide > 0)
    y = torch.arange(len(rows)) - starts[rows] + boxes[rows, 2]
    row_wide = wide[rows]
    line = torch.repeat_interleave(torch.arange(len(rows)), row_wide)
    first = torch.cumsum(row_wide, 0) - row_wide
    x = torch.arange(len(line)) + (boxes[rows, 0] - first)[line]
    return rows[line], x, y[line]


def corners_of(bodies: Bodies) -> Tensor:
    """The eight corners of every bounding box, `[n, 8, 3]`."""
    signs = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    return bodies.centre[:, None] + (signs * bodies.half[:, None]) @ bodies.turn.mT


EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1]


def camera_boxes(bodies: Bodies, camera: Tensor, k: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixel boxes of all solids, clipped at the near plane, padded by one pixel."""
    points = (corners_of(bodies) - camera[:3, 3]) @ camera[:3, :3]
    a, b = points[:, [e[0] for e in EDGES]], points[:, [e[1] for e in EDGES]]
    share = (NEAR - a[..., 2:]) / (b[..., 2:] - a[..., 2:])
    cut = torch.where((share > 0) & (share < 1), a + share * (b - a), torch.nan)
    points = torch.cat([torch.where(points[..., 2:] >= NEAR, points, torch.nan), cut], 1)
    pixels = points[..., :2] / points[..., 2:] * torch.stack([k[0, 0], k[1, 1]]) + k[:2, 2]
    return boxes_on_image(pixels, size, 1.0)


def meet(bodies: Bodies, rays: Rays, pairs: Pairs, *, last: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays meet their candidates: (depth, face, index into pairs); the exit instead of the entry with `last`.

    Only pairs that meet are returned.
    """
    # affine forms over (p, q, 1) of each plane's distance at the origin and along the direction
    count = bodies.sides[pairs.solid]
    found = [
        _meet_planes(bodies, rays, pairs, ((count > 0) & (count <= 6)).nonzero()[:, 0], 6, last),
        _meet_planes(bodies, rays, pairs, (count > 6).nonzero()[:, 0], PLANES, last),
        _meet_quadrics(bodies, rays, pairs, (count == 0).nonzero()[:, 0], last),
    ]
    depth, face, index = (torch.cat(parts) for parts in zip(*found, strict=True))
    return depth, face, index


def _along(table: Tensor, row: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """`table[row] @ (p, q, 1)` for tables `[n, 3]`; the parts that are all zero cost nothing."""
    value = table[:, 2][row]
    for column, coordinate in ((0, p), (1, q)):
        if bool(table[:, column].any()):
            value = torch.addcmul(value, table[:, column][row], coordinate)
    return value


def _meet_planes(bodies: Bodies, rays: Rays, pairs: Pairs, index: Tensor, sides: int, last: bool):  # type: ignore[no-untyped-def]
    solid, p, q = pairs.solid[index], pairs.p[index], pairs.q[index]
    enter, leave = torch.full_like(p, -torch.inf), torch.full_like(p, torch.inf)
    face = torch.zeros_like(solid)
    for k in range(sides):
        normal = (bodies.turn @ bodies.planes[:, k, :3, None])[..., 0]
        away = normal @ rays.origin
        away[:, 2] -= (normal * bodies.centre).sum(1) + bodies.planes[:, k, 3]
        speed = _along(normal @ rays.direction, solid, p, q)
        speed = torch.where(speed.abs() < 1e-9, 1e-9, speed)
        t = -_along(away, solid, p, q) / speed
        inward = speed < 0
        if last:
            leave = torch.where(inward, leave, leave.minimum(t))
            enter = torch.where(inward, enter.maximum(t), enter)
        else:
            closer = inward & (t > enter)
            enter, face = torch.where(closer, t, enter), torch.where(closer, k, face)
            leave = torch.where(inward, leave, leave.minimum(t))
    depth = leave if last else enter
    met = ((enter < leave) & (depth > (0.02 if last else NEAR))).nonzero()[:, 0]
    return depth[met], face[met], index[met]


def _meet_quadrics(bodies: Bodies, rays: Rays, pairs: Pairs, index: Tensor, last: bool):  # type: ignore[no-untyped-def]
    solid, p, q = pairs.solid[index], pairs.p[index], pairs.q[index]
    start = bodies.rows @ rays.origin
    start[:, :, 2] -= (bodies.rows @ bodies.centre[:, :, None])[..., 0]
    step = bodies.rows @ rays.direction
    ox, oy, oz = (_along(start[:, i], solid, p, q) for i in range(3))
    dx, dy, dz = (_along(step[:, i], solid, p, q) for i in range(3))
    e, g, limit = (bodies.quadric[:, i][solid] for i in range(3))
    a = dx * dx + dz * dz + e * dy * dy
    b = ox * dx + oz * dz + (e * oy - g) * dy
    c = ox * ox + oz * oz + (e * oy - 2 * g) * oy - limit
    inside = b * b - a * c
    root = inside.clamp_min(0).sqrt()
    a = torch.where(a.abs() < 1e-12, 1e-12, a)
    dy = torch.where(dy.abs() < 1e-9, 1e-9, dy)
    low, high = (-1 - oy) / dy, (1 - oy) / dy
    enter = ((-b - root) / a).maximum(low.minimum(high))
    leave = ((-b + root) / a).minimum(low.maximum(high))
    met = ((inside > 0) & (a > 0) & (enter < leave) & (leave > (0.02 if last else NEAR))).nonzero()[:, 0]
    solid, enter, leave = solid[met], enter[met], leave[met]
    material = bodies.material[solid]
    first, second = (leave, enter) if last else (enter, leave)
    back = torch.zeros_like(solid)
    holed = ((material == LEAF) | (material == RING)).nonzero()[:, 0]
    if len(holed):
        at = [torch.stack([o[met][holed], d[met][holed]]) for o, d in ((ox, dx), (oy, dy), (oz, dz))]
        keep_first, keep_second = (
            _solid_there(bodies, solid[holed], torch.stack([o + t[holed] * d for o, d in at], 1)) for t in (first, second)
        )
        back[holed] = (~keep_first).long()
        first[holed] = torch.where(keep_first, first[holed], torch.where(keep_second, second[holed], torch.nan))
    seen = (first > (0.02 if last else NEAR)).nonzero()[:, 0]
    return first[seen], back[seen], index[met[seen]]


def _solid_there(bodies: Bodies, solid: Tensor, local: Tensor) -> Tensor:
    """Whether a leafy or ring-like surface has substance at local points."""
    traits = bodies.traits[solid]
    leaf = leafy(local * bodies.half[solid], traits[:, 0], traits[:, 1]) > traits[:, 2]
    radius = (local[:, 0] ** 2 + local[:, 2] ** 2).sqrt()
    spoke = torch.atan2(local[:, 0], local[:, 2]) * (14 / torch.pi)
    ring = (radius > 0.86) | (radius < 0.12) | ((spoke - spoke.round()).abs() < 0.05)
    return torch.where(bodies.material[solid] == RING, ring, leaf)


def nearest(bodies: Bodies, rays: Rays, pairs: Pairs, count: int) -> Hits:
    """The nearest solid of each of `count` pixels; `NOTHING` where there is none."""
    depth, face, index = meet(bodies, rays, pairs, last=False)
    key = (depth.view(torch.int32).long() << 32) | torch.arange(len(depth))
    best = torch.full((count,), torch.iinfo(torch.int64).max)
    best.scatter_reduce_(0, pairs.pixel[index], key, "amin")
    met = (best < torch.iinfo(torch.int64).max).nonzero()[:, 0]
    winner = best[met] & 0xFFFFFFFF
    solid, far, side = torch.full((count,), NOTHING), torch.full((count,), torch.inf), torch.zeros(count, dtype=torch.long)
    solid[met], far[met], side[met] = pairs.solid[index[winner]], depth[winner], face[winner]
    return Hits(solid, far, side)


def street_coordinates(scene: Street, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """(lateral, along) of points on the ground, relative to the tangent point; the inverse of `Street.bend`."""
    k = scene.curvature
    if abs(k) < 1e-4:
        return x - 0.5 * k * z * z, z
    u, v = 1 - k * x, k * z
    rho = (u * u + v * v).sqrt()
    return (2 * x - k * (x * x + z * z)) / (1 + rho), torch.atan2(v, u) / k


def on_pavement(scene: Street, view: View, x: Tensor, z: Tensor) -> Tensor:
    """Whether ground points lie on a pavement (or beyond), not on a road."""
    lateral, ahead = street_coordinates(scene, x, z)
    along = ahead + view.along
    left, right = lateral < -scene.half[0], lateral > scene.half[1]
    beside = left | right
    for start, end, opens_left, opens_right in view.crossings:
        within = (along > start) & (along < end)
        if opens_left:
            beside = beside & ~(within & left)
        if opens_right:
            beside = beside & ~(within & right)
    return beside


def meet_ground(scene: Street, view: View, origin: Tensor, direction: Tensor, hits: Hits) -> Hits:
    """Put road, pavement and kerb behind the solids. `direction [n, 3]` from the camera at `origin [3]`."""
    down = direction[:, 1]
    reach = GROUND_FAR * down > -origin[1]
    rows = (reach & (hits.depth > -(origin[1] + KERB) / down.clamp_min(1e-9))).nonzero()[:, 0]
    dx, dy, dz = direction[rows].unbind(1)
    low, high = -origin[1] / dy, -(origin[1] + KERB) / dy
    top = on_pavement(scene, view, origin[0] + high * dx, origin[2] + high * dz)
    below = on_pavement(scene, view, origin[0] + low * dx, origin[2] + low * dz)
    depth = torch.where(top, high, low)
    kind = torch.where(top, PAVEMENT_HIT, ROAD_HIT)
    kerb = (~top & below).nonzero()[:, 0]
    if len(kerb):
        near, far = high[kerb], low[kerb]
        for _ in range(9):
            middle = (near + far) / 2
            past = on_pavement(scene, view, origin[0] + middle * dx[kerb], origin[2] + middle * dz[kerb])
            near, far = torch.where(past, near, middle), torch.where(past, middle, far)
        depth[kerb], kind[kerb] = far, KERB_HIT
    closer = depth < hits.depth[rows]
    solid, far, face = hits.solid.clone(), hits.depth.clone(), hits.face
    solid[rows[closer]], far[rows[closer]] = kind[closer], depth[closer]
    return Hits(solid, far, face)


class ShadowMap(NamedTuple):
    """Heights (metres above the road) below which sunlight does not come, over a stretched map of the road plane."""

    heights: Tensor
    sun: Tensor
    spans: tuple[float, float, float, float]

    def place(self, x: Tensor, up: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map cell coordinates of points: they slide along the sun's rays down to the road."""
        slide = up / -self.sun[1]
        return _stretch(x - slide * self.sun[0], z - slide * self.sun[2], self.spans)


def _stretch(x: Tensor, z: Tensor, spans: tuple[float, float, float, float]) -> tuple[Tensor, Tensor]:
    fine_x, scale_x, fine_z, scale_z = spans
    column = torch.asinh(x / fine_x) * scale_x
    row = torch.asinh((z - 6) / fine_z) * scale_z
    return column, row


MAP = (384, 384)  # rows (along), columns (across)


def shadow_map(bodies: Bodies, sun: np.ndarray) -> ShadowMap:
    """The shadow map of all solids: of each road point the highest exit of the ray to the sun."""
    rows, columns = MAP
    fine_x, fine_z = 9.0, 9.0
    scale_x = (columns / 2) / float(np.arcsinh(75 / fine_x))
    scale_z = (rows / 2) / float(np.arcsinh(130 / fine_z))
    spans = (fine_x, scale_x, fine_z, scale_z)
    light = torch.from_numpy(sun).float()
    corners = corners_of(bodies)
    slide = (-corners[..., 1]).clamp_min(0) / -light[1]
    column, row = _stretch(corners[..., 0] - slide * light[0], corners[..., 2] - slide * light[2], spans)
    boxes = boxes_on_image(torch.stack([column + columns / 2, row + rows / 2], -1), MAP, 0.5)
    solid, x, y = list_pairs(boxes, columns)
    p = torch.sinh((torch.arange(columns) - columns / 2) / scale_x) * fine_x
    q = torch.sinh((torch.arange(rows) - rows / 2) / scale_z) * fine_z + 6
    pairs = Pairs(solid, y * columns + x, p[x], q[y])
    origin = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 1.0, 0]])
    direction = torch.zeros(3, 3)
    direction[:, 2] = light / -light[1]
    depth, _, index = meet(bodies, Rays(origin, direction), pairs, last=True)
    heights = torch.zeros(rows * columns)
    heights.scatter_reduce_(0, pairs.pixel[index], depth, "amax")
    return ShadowMap(heights, light, spans)


def sunlit(shadow: ShadowMap, x: Tensor, up: Tensor, z: Tensor, blur: float) -> Tensor:
    """The share of sunlight, 0 to 1, at points; averaged over taps `blur` cells wide."""
    rows, columns = MAP
    column, row = shadow.place(x, up, z)
    light = torch.zeros_like(x)
    bias = up + 0.06
    taps = [(0.0, 0.0), (0.9, 0.3), (-0.3, 0.9), (-0.9, -0.3), (0.3, -0.9)]
    if blur > 2:
        taps += [(1.6, -1.3), (-1.6, 1.3), (1.4, 1.6), (-1.4, -1.6)]
    for a, b in taps:
        c = (column + (columns / 2 + a * blur + 0.5)).clamp(0, columns - 1).to(torch.int32)
        r = (row + (rows / 2 + b * blur + 0.5)).clamp(0, rows - 1).to(torch.int32)
        light += shadow.heights[r * columns + c] < bias
    return light / len(taps)
