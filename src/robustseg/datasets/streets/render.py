"""What each ray meets: solids by their boxes on the image, the ground in closed form, and the shadow map of the sun.

Nothing loops over objects: all (solid, pixel) pairs whose box covers the pixel stand in one list, are met in a few
vector operations, and the nearest of each pixel wins. The sun's shadow map is the same with parallel rays.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from robustseg.datasets.streets.noise import leafy
from robustseg.datasets.streets.scene import KERB, Street, View
from robustseg.datasets.streets.shapes import LEAF, PLANES, RING

NEAR = 0.25
GROUND_FAR = 1500.0
ROAD_HIT, PAVEMENT_HIT, KERB_HIT, NOTHING = -1, -2, -3, -4


@dataclass(frozen=True)
class Bodies:
    """The solids of a view as tensors; see `shapes.Solids`. `rows [n, 3, 3]` leads from world to local units,
    `normals [n, PLANES, 3]` are the planes' in the world."""

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
    normals: Tensor

    @classmethod
    def of(cls, view: View) -> "Bodies":
        """Tensors of the solids in view."""
        s = view.solids
        parts = {name: torch.from_numpy(np.ascontiguousarray(getattr(s, name))) for name in vars(s)}
        turn, half, planes = parts["turn"], parts["half"], parts["planes"]
        units = torch.where((parts["sides"] == 0)[:, None], half, torch.ones_like(half))
        return cls(**parts, rows=turn.mT / units[:, :, None], normals=planes[:, :, :3] @ turn.mT)


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


class Rays:
    """Rays that depend on two coordinates (p, q), with tables of how all solids see them.

    From one point (`spread`): origin `[3]`, direction `[3, 3] @ (p, q, 1)`. Parallel: origin (p, 0, q), direction `[3]`.
    """

    def __init__(self, bodies: Bodies, origin: Tensor, direction: Tensor, *, spread: bool):
        self.bodies, self.spread = bodies, spread
        offset = (bodies.normals * bodies.centre[:, None]).sum(2) + bodies.planes[:, :, 3]  # [n, PLANES]
        middle = (bodies.rows @ bodies.centre[:, :, None])[..., 0]
        if spread:
            away = bodies.normals @ origin - offset
            speed, start, step = bodies.normals @ direction, bodies.rows @ origin - middle, bodies.rows @ direction
            self.fixed, self.varying = away.T.contiguous(), speed.permute(1, 2, 0).contiguous()
            self.fixed_row, self.varying_row = start.T.contiguous(), step.permute(1, 2, 0).contiguous()
        else:
            away = torch.stack([bodies.normals[..., 0], bodies.normals[..., 2], -offset], -1)
            start = torch.stack([bodies.rows[..., 0], bodies.rows[..., 2], -middle], -1)
            self.fixed, self.varying = (bodies.normals @ direction).T.contiguous(), away.permute(1, 2, 0).contiguous()
            self.fixed_row, self.varying_row = (
                (bodies.rows @ direction).T.contiguous(),
                start.permute(1, 2, 0).contiguous(),
            )

    def plane(self, k: int, solid: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Distance beyond plane k at the origin, and its change along the ray."""
        return self._order(self.fixed[k].index_select(0, solid), _affine(self.varying[k], solid, p, q))

    def local(self, axis: int, solid: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Origin and direction along a local axis."""
        return self._order(self.fixed_row[axis].index_select(0, solid), _affine(self.varying_row[axis], solid, p, q))

    def _order(self, fixed: Tensor, varying: Tensor) -> tuple[Tensor, Tensor]:
        return (fixed, varying) if self.spread else (varying, fixed)


def _affine(table: Tensor, solid: Tensor, p: Tensor, q: Tensor) -> Tensor:
    value = table[2].index_select(0, solid)
    value.addcmul_(table[0].index_select(0, solid), p)
    return value.addcmul_(table[1].index_select(0, solid), q)


def boxes_on_image(corners: Tensor, size: tuple[int, int], pad: float) -> Tensor:
    """From points `[n, m, 2]` (nan where there is none) the pixel ranges `[n, 4]` = x0, x1, y0, y1 (ends excluded)."""
    h, w = size
    low = torch.where(corners.isnan(), torch.inf, corners).amin(1) - pad
    high = torch.where(corners.isnan(), -torch.inf, corners).amax(1) + pad
    limit = torch.tensor([w, h], dtype=corners.dtype)
    low = low.ceil().clamp_min(0).minimum(limit)
    high = (high.floor() + 1).clamp_min(0).minimum(limit)
    return torch.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], 1).int()


def list_pairs(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All (box, x, y) with the pixel in the box, int32."""
    wide, tall = (boxes[:, 1] - boxes[:, 0]).clamp_min(0), (boxes[:, 3] - boxes[:, 2]).clamp_min(0)
    tall = tall * (wide > 0)
    row = torch.repeat_interleave(torch.arange(len(boxes), dtype=torch.int32), tall)
    y = torch.arange(len(row), dtype=torch.int32) + (boxes[:, 2] - (tall.cumsum(0) - tall).int()).index_select(0, row)
    wide = wide.index_select(0, row)
    line = torch.repeat_interleave(torch.arange(len(row), dtype=torch.int32), wide)
    first = boxes[:, 0].index_select(0, row) - (wide.cumsum(0) - wide).int()
    x = torch.arange(len(line), dtype=torch.int32) + first.index_select(0, line)
    return row.index_select(0, line), x, y.index_select(0, line)


def corners_of(bodies: Bodies) -> Tensor:
    """The eight corners of every bounding box, `[n, 8, 3]`."""
    signs = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    return bodies.centre[:, None] + (signs * bodies.half[:, None]) @ bodies.turn.mT


EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if (a ^ b).bit_count() == 1]


def camera_boxes(bodies: Bodies, camera: Tensor, k: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The pixel boxes of all solids, clipped at the near plane, and the least depth of each."""
    points = (corners_of(bodies) - camera[:3, 3]) @ camera[:3, :3]
    a, b = points[:, [e[0] for e in EDGES]], points[:, [e[1] for e in EDGES]]
    share = (NEAR - a[..., 2:]) / (b[..., 2:] - a[..., 2:])
    cut = torch.where((share > 0) & (share < 1), a + share * (b - a), torch.nan)
    least = points[..., 2].amin(1).clamp_min(NEAR)
    points = torch.cat([torch.where(points[..., 2:] >= NEAR, points, torch.nan), cut], 1)
    pixels = points[..., :2] / points[..., 2:] * torch.stack([k[0, 0], k[1, 1]]) + k[:2, 2]
    return boxes_on_image(pixels, size, 0.0), least


def meet(rays: Rays, pairs: Pairs, *, last: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays meet their candidates: (depth, face, index into pairs); the exit instead of the entry with `last`.

    Only pairs that meet are returned.
    """
    count = rays.bodies.sides.int().index_select(0, pairs.solid)
    found = [
        _meet_planes(rays, pairs, ((count > 0) & (count <= 6)).nonzero()[:, 0], 6, last),
        _meet_planes(rays, pairs, (count > 6).nonzero()[:, 0], PLANES, last),
        _meet_quadrics(rays, pairs, (count == 0).nonzero()[:, 0], last),
    ]
    depth, face, index = (torch.cat(parts) for parts in zip(*found, strict=True))
    return depth, face, index


def _meet_planes(rays: Rays, pairs: Pairs, index: Tensor, sides: int, last: bool) -> tuple[Tensor, Tensor, Tensor]:
    solid, p, q = (t.index_select(0, index) for t in (pairs.solid, pairs.p, pairs.q))
    enter, leave = torch.full_like(p, -torch.inf), torch.full_like(p, torch.inf)
    face = torch.zeros_like(solid)
    for k in range(sides):
        away, speed = rays.plane(k, solid, p, q)
        t = away.neg_().div_(speed)  # +-inf where parallel, which sorts itself out below
        inward = speed < 0
        if not last:
            closer = inward & (t > enter)
            face.masked_fill_(closer, k)
        enter = torch.where(inward, enter.maximum(t), enter)
        leave = torch.where(inward, leave, leave.minimum(t))
    depth = leave if last else enter
    met = ((enter < leave) & (depth > (0.02 if last else NEAR))).nonzero()[:, 0]
    return depth.index_select(0, met), face.index_select(0, met), index.index_select(0, met)


def _meet_quadrics(rays: Rays, pairs: Pairs, index: Tensor, last: bool) -> tuple[Tensor, Tensor, Tensor]:
    solid, p, q = (t.index_select(0, index) for t in (pairs.solid, pairs.p, pairs.q))
    (ox, dx), (oy, dy), (oz, dz) = (rays.local(i, solid, p, q) for i in range(3))
    e, g, limit = (c.index_select(0, solid) for c in rays.bodies.quadric.T.contiguous())
    a = dx * dx + dz * dz + e * dy * dy
    b = ox * dx + oz * dz + (e * oy - g) * dy
    c = ox * ox + oz * oz + (e * oy - 2 * g) * oy - limit
    inside = b * b - a * c
    maybe = ((inside > 0) & (a > 0)).nonzero()[:, 0]
    a, b, inside, start, step = (t.index_select(0, maybe) for t in (a, b, inside, oy, dy))
    root = inside.sqrt()
    low, high = (-1 - start) / step, (1 - start) / step
    enter = ((-b - root) / a).maximum(low.minimum(high))
    leave = ((-b + root) / a).minimum(low.maximum(high))
    met = ((enter < leave) & (leave > (0.02 if last else NEAR))).nonzero()[:, 0]
    enter, leave, met = (t.index_select(0, met) for t in (enter, leave, maybe))
    solid = solid.index_select(0, met)
    material = rays.bodies.material.index_select(0, solid)
    first, second = (leave, enter) if last else (enter, leave)
    back = torch.zeros_like(solid)
    holed = ((material == LEAF) | (material == RING)).nonzero()[:, 0]
    if len(holed):
        rows = met[holed]
        at = [(o.index_select(0, rows), d.index_select(0, rows)) for o, d in ((ox, dx), (oy, dy), (oz, dz))]
        keep_first, keep_second = (
            _solid_there(rays.bodies, solid[holed], torch.stack([o + t[holed] * d for o, d in at], 1))
            for t in (first, second)
        )
        back[holed] = (~keep_first).int()
        first[holed] = torch.where(keep_first, first[holed], torch.where(keep_second, second[holed], torch.nan))
    seen = (first > (0.02 if last else NEAR)).nonzero()[:, 0]
    return first.index_select(0, seen), back.index_select(0, seen), index.index_select(0, met.index_select(0, seen))


def _solid_there(bodies: Bodies, solid: Tensor, local: Tensor) -> Tensor:
    """Whether a leafy or ring-like surface has substance at local points."""
    traits = bodies.traits.index_select(0, solid)
    metres = local * bodies.half.index_select(0, solid)
    there = leafy(metres, traits[:, 0], traits[:, 1]) > traits[:, 2]
    rings = (bodies.material.index_select(0, solid) == RING).nonzero()[:, 0]
    if len(rings):
        x, z = local[rings, 0], local[rings, 2]
        radius, spoke = (x * x + z * z).sqrt(), torch.atan2(x, z) * (14 / torch.pi)
        there[rings] = (radius > 0.86) | (radius < 0.12) | ((spoke - spoke.round()).abs() < 0.05)
    return there


# A hit is one whole number: the bits of the depth (positive floats sort as integers), then solid and face.
_LOW = (1 << 32) - 1
_GROUND = 1 << 31


def pack(hits: Hits) -> Tensor:
    """Hits of ground or nothing as numbers of which the least is the nearest."""
    return (hits.depth.view(torch.int32).long() << 32) | (_GROUND - hits.solid)


def unpack(best: Tensor) -> Hits:
    """The hits that `pack` and `keep_nearest` wrote."""
    low = best & _LOW
    solid, depth = low >> 4, (best >> 32).int().view(torch.float32)
    return Hits(torch.where(low >= _GROUND, _GROUND - low, solid), depth, torch.where(low >= _GROUND, 0, low & 15))


def keep_nearest(rays: Rays, pairs: Pairs, best: Tensor) -> None:
    """Write the nearest solid of each pixel into `best` wherever it is nearer than what stands there."""
    depth, face, index = meet(rays, pairs, last=False)
    low = (pairs.solid.index_select(0, index) << 4) | face
    key = (depth.view(torch.int32).long() << 32) | low
    best.scatter_reduce_(0, pairs.pixel.index_select(0, index).long(), key, "amin")


SLICES = (9.0, 18.0, 36.0, 75.0)
"""Solids are met from near to far, so that what is hidden (metres) costs little."""


def look(rays: Rays, boxes: Tensor, least: Tensor, ground: Hits, width: int) -> Hits:
    """What all pixels of the image see, over the ground."""
    best = pack(ground)
    for near, far in itertools.pairwise((0.0, *SLICES, torch.inf)):
        chosen = ((least >= near) & (least < far) & (boxes[:, 1] > boxes[:, 0])).nonzero()[:, 0].int()
        index, x, y = list_pairs(boxes[chosen])
        solid, flat = chosen.index_select(0, index), y * width + x
        if near > 0:
            depth = (best >> 32).int().view(torch.float32)
            open_ = (least.index_select(0, solid) < depth.index_select(0, flat)).nonzero()[:, 0]
            solid, x, y, flat = (t.index_select(0, open_) for t in (solid, x, y, flat))
        keep_nearest(rays, Pairs(solid, flat, x.float(), y.float()), best)
    return unpack(best)


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


def meet_ground(scene: Street, view: View, origin: Tensor, direction: Tensor) -> Hits:
    """Road, pavement, kerb or nothing for rays `direction [n, 3]` from the camera at `origin [3]`."""
    count = len(direction)
    solid, depth = torch.full((count,), NOTHING), torch.full((count,), torch.inf)
    rows = (GROUND_FAR * direction[:, 1] > -origin[1]).nonzero()[:, 0]
    dx, dy, dz = direction[rows].unbind(1)
    low, high = -origin[1] / dy, -(origin[1] + KERB) / dy
    top = on_pavement(scene, view, origin[0] + high * dx, origin[2] + high * dz)
    below = on_pavement(scene, view, origin[0] + low * dx, origin[2] + low * dz)
    far, kind = torch.where(top, high, low), torch.where(top, PAVEMENT_HIT, ROAD_HIT)
    kerb = (~top & below).nonzero()[:, 0]
    if len(kerb):
        near, beyond = high[kerb], low[kerb]
        for _ in range(9):
            middle = (near + beyond) / 2
            past = on_pavement(scene, view, origin[0] + middle * dx[kerb], origin[2] + middle * dz[kerb])
            near, beyond = torch.where(past, near, middle), torch.where(past, middle, beyond)
        far[kerb], kind[kerb] = beyond, KERB_HIT
    solid[rows], depth[rows] = kind, far
    return Hits(solid, depth, torch.zeros_like(solid))


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


MAP = (320, 320)  # rows (along), columns (across)


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
    boxes = boxes_on_image(torch.stack([column + columns / 2, row + rows / 2], -1), MAP, 0.0)
    solid, x, y = list_pairs(boxes)
    p = torch.sinh((torch.arange(columns) - columns / 2) / scale_x) * fine_x
    q = torch.sinh((torch.arange(rows) - rows / 2) / scale_z) * fine_z + 6
    pairs = Pairs(solid, y * columns + x, p.index_select(0, x), q.index_select(0, y))
    rays = Rays(bodies, torch.zeros(3), light / -light[1], spread=False)
    depth, _, index = meet(rays, pairs, last=True)
    heights = torch.zeros(rows * columns)
    heights.scatter_reduce_(0, pairs.pixel.index_select(0, index).long(), depth, "amax")
    return ShadowMap(heights, light, spans)


def sunlit(shadow: ShadowMap, x: Tensor, up: Tensor, z: Tensor, blur: float) -> Tensor:
    """The share of sunlight, 0 to 1, at points `up` metres over the road; shadows fade over `blur` cells."""
    rows, columns = MAP
    column, row = shadow.place(x, up, z)
    bias = up + 0.06
    column, row = column + columns / 2, row + rows / 2
    left, top = column.floor(), row.floor()
    share_x, share_y = column - left, row - top
    light = torch.zeros_like(x)
    # a tent over three by three taps, `blur` cells apart: continuous at the borders of cells
    for b, wy in ((-1, 1 - share_y), (0, None), (1, share_y)):
        r = (top + b * blur).clamp(0, rows - 1).to(torch.int32) * columns
        across = torch.zeros_like(x)
        for a, wx in ((-1, 1 - share_x), (0, None), (1, share_x)):
            c = (left + a * blur).clamp(0, columns - 1).to(torch.int32)
            seen = (shadow.heights.index_select(0, r + c) < bias).to(x.dtype)
            across = across + (seen if wx is None else seen * wx)
        light = light + (across if wy is None else across * wy)
    return light / 4
