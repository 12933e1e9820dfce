"""The colour of what a ray meets: ground, materials, sky, light. Linear RGB throughout; `develop` makes the picture.

Patterns are averaged over the footprint of a pixel where that is cheap (bands, windows, joints), so that they fade with
distance instead of flickering.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from robustseg.data.streets import shapes
from robustseg.data.streets.facade import facade
from robustseg.data.streets.ground import ground
from robustseg.data.streets.noise import cell_random, grain, leafy
from robustseg.data.streets.patterns import Surface, band, mix, step
from robustseg.data.streets.render import KERB_HIT, NOTHING, Bodies, Hits, ShadowMap, sunlit
from robustseg.data.streets.scene import Look, Street, View
from robustseg.data.streets.shapes import Solids


class Paint(NamedTuple):
    """What a surface does with light: albedo `[n, 3]`, mirror share `[n]`, own light `[n, 3]` or None."""

    albedo: Tensor
    mirror: Tensor
    glow: Tensor | None = None


def colour(values: np.ndarray) -> Tensor:
    """A colour or direction of the scene as a float tensor."""
    return torch.from_numpy(np.asarray(values)).float()


def sky(look: Look, direction: Tensor, *, clouds: bool, turn: float = 0.0, drift: float = 0.0) -> Tensor:
    """The sky `[n, 3]` along unit directions; `turn` is the heading of the street, so that clouds stay where they are."""
    up = (-direction[:, 1]).clamp_min(0)
    rgb = mix(colour(look.horizon), colour(look.sky_colour), (1 - (-up * 4.5).exp())[:, None])
    if not clouds:
        return rgb
    c, s = float(np.cos(turn)), float(np.sin(turn))
    reach = 1 / (up + 0.12)
    u, v = (c * direction[:, 0] + s * direction[:, 2]) * reach, (c * direction[:, 2] - s * direction[:, 0]) * reach
    soft = grain(u + drift, v, 14.0)[1] * 0.8 + grain(v, u - drift, 4.0)[2] * 0.22
    cover = ((soft + look.clouds * 2.6 - 1.5) * 0.9).clamp(0, 1) * (up * 12).clamp(0, 1)
    bright = (0.92 - 0.16 * (soft - 0.3).clamp(-1, 2))[:, None] * colour(look.horizon) * (1.12 if not look.overcast else 1.0)
    rgb = mix(rgb, bright, cover[:, None])
    if not look.overcast:
        near = (direction @ colour(turned(look.sun, -turn))).clamp_min(0)
        rgb = rgb + colour(look.sun_colour) * (0.10 * near**12 + 0.35 * near**180 + 4.0 * (near > 0.9996))[:, None]
    return rgb


def turned(vector: np.ndarray, heading: float) -> np.ndarray:
    """A direction of the world at along 0, seen from the frame of a street that has turned by `-heading`."""
    return shapes.yaw(heading) @ vector


def surface(bodies: Bodies, hits: Hits, point: Tensor, direction: Tensor, pixel: float, rows: Tensor) -> Surface:
    """All that a material may ask about the points it colours."""
    solid = hits.solid[rows]
    turn, sides = bodies.turn[solid], bodies.sides[solid]
    local = (turn * (point[rows] - bodies.centre[solid])[:, :, None]).sum(1)
    half = bodies.half[solid]
    flat = bodies.planes[solid, hits.face[rows]][:, :3]
    e, g = bodies.quadric[solid, 0], bodies.quadric[solid, 1]
    unit = local / half
    curved = torch.stack([unit[:, 0], e * unit[:, 1] - g, unit[:, 2]], 1)
    cap = (unit[:, 1].abs() > 0.998) & (e != 1)
    curved = torch.where(cap[:, None], torch.stack([0 * e, unit[:, 1].sign(), 0 * e], 1), curved) / half
    curved = curved / curved.norm(dim=1, keepdim=True).clamp_min(1e-9)
    own = torch.where((sides > 0)[:, None], flat, curved)
    normal = (turn * own[:, None]).sum(2)
    facing = (normal * direction[rows]).sum(1)
    normal = torch.where((facing > 0)[:, None], -normal, normal)
    return Surface(
        solid, local, half, own, normal, cap, bodies.colours[solid], bodies.traits[solid],
        hits.depth[rows] * pixel, (facing.abs() / direction[rows].norm(dim=1)).clamp_min(0.03), point[rows], bodies.planes,
    )  # fmt: skip


def _plain(s: Surface) -> Paint:
    kind = s.traits[:, 0]
    u, v = s.local[:, 2] + 0.7 * s.local[:, 0], s.local[:, 1]
    rough = grain(u, v, 4.0)
    stripes = band(s.local[:, 2], 0.0, 0.28, s.pixel, period=0.56)
    bars = band(s.local[:, 2], 0.0, 0.035, s.pixel, period=0.11)
    rgb = torch.where((kind == 2)[:, None], mix(s.colours[:, 0], s.colours[:, 1], stripes[:, None]), s.colours[:, 0])
    rgb = torch.where((kind == 3)[:, None], rgb * (0.35 + 0.65 * bars[:, None]), rgb)
    return Paint(rgb * (1 + 0.10 * rough[1] + 0.04 * rough[0] * (0.02 / s.pixel).clamp_max(1))[:, None], 0 * kind)


def _roof(s: Surface) -> Paint:
    across = s.traits[:, 0] > 0
    gable = torch.where(across, s.own[:, 0].abs(), s.own[:, 2].abs()) > 0.9
    u, v = torch.where(across, s.local[:, 0], s.local[:, 2]), s.local[:, 1]
    row = torch.floor(v / 0.22)
    lines = band(v, 0.0, 0.06, s.pixel / s.facing, period=0.22)
    tile = cell_random(torch.floor(u / 0.3 + 0.5 * row), row, s.traits[:, 1])
    rough = grain(u, v, 9.0)[1]
    fade = (0.12 / s.pixel).clamp_max(1)
    rgb = s.colours[:, 0] * (1 - 0.4 * lines + 0.35 * (tile - 0.5) * fade + 0.12 * rough)[:, None]
    return Paint(torch.where(gable[:, None], s.colours[:, 1], rgb), torch.full_like(v, 0.02))


def _leaf(s: Surface) -> Paint:
    cell, seed = s.traits[:, 0], s.traits[:, 1]
    fine = leafy(s.local, cell * 0.45, seed + 0.3)
    coarse = leafy(s.local, cell * 1.6, seed + 0.6)
    outer = (s.local / s.half).norm(dim=1).clamp_max(1)
    rgb = mix(s.colours[:, 0], s.colours[:, 1], coarse[:, None]) * (0.45 + 1.1 * fine[:, None])
    # lower and inner leaves are darker; some light shines through from behind
    low = 0.5 - 0.5 * (s.local[:, 1] / s.half[:, 1]).clamp(-1, 1)
    return Paint(rgb * (0.45 + 0.65 * low * outer)[:, None], 0.015 + 0 * fine)


def _hedge(s: Surface) -> Paint:
    cell, seed = s.traits[:, 0], s.traits[:, 1]
    fine, coarse = leafy(s.local, cell * 0.5, seed), leafy(s.local, cell * 2.5, seed + 0.5)
    return Paint(mix(s.colours[:, 0], s.colours[:, 1], coarse[:, None]) * (0.4 + 1.1 * fine[:, None]), 0 * fine)


def _bark(s: Surface) -> Paint:
    angle = torch.atan2(s.local[:, 0], s.local[:, 2])
    rough = grain(angle * 1.5, s.local[:, 1] * 0.25, 1.5)
    return Paint(s.colours[:, 0] * (1 + 0.25 * rough[0] * (0.03 / s.pixel).clamp_max(1) + 0.15 * rough[1])[:, None], 0 * angle)


def _metal(s: Surface) -> Paint:
    return Paint(s.colours[:, 0], torch.full_like(s.pixel, 0.10))


def _cloth(s: Surface) -> Paint:
    rough = grain(s.local[:, 0] + s.local[:, 2], s.local[:, 1], 1.2)
    return Paint(s.colours[:, 0] * (1 + 0.12 * rough[1] + 0.08 * rough[0] * (0.01 / s.pixel).clamp_max(1))[:, None], 0 * s.pixel)


def _ring(s: Surface) -> Paint:
    radius = (s.local[:, 1] * 0 + (s.local[:, 0] ** 2 + s.local[:, 2] ** 2).sqrt()) / s.traits[:, 0]
    tyre = step(radius, 0.93, s.pixel / s.traits[:, 0])
    return Paint(mix(s.colours[:, 1], s.colours[:, 0], tyre[:, None]), 0.05 * (1 - tyre))


def _wheel(s: Surface) -> Paint:
    r = s.traits[:, 0]
    radius = (s.local[:, 0] ** 2 + s.local[:, 2] ** 2).sqrt() / r
    angle = torch.atan2(s.local[:, 0], s.local[:, 2]) / torch.pi
    fw = s.pixel / r
    spoke = band(angle * 5 + s.traits[:, 1], 0.0, 1.0, fw * 3, period=2.0) * (radius > 0.15)
    rim = (1 - step(radius, 0.64, fw)) * s.cap
    tyre = s.colours[:, 0] * (1 + 0.5 * band(radius, 0.78, 0.03, fw))[:, None]
    inner = s.colours[:, 1] * (1 - 0.8 * spoke)[:, None]
    return Paint(mix(tyre, inner, rim[:, None]), 0.25 * rim * (1 - spoke))


def _fence(s: Surface) -> Paint:
    kind, z, y = s.traits[:, 0], s.local[:, 2], s.local[:, 1]
    board = torch.floor(z / 0.14)
    gap = band(z, 0.0, 0.02, s.pixel / s.facing, period=0.14)
    shade = 0.75 + 0.5 * cell_random(board, 0 * board, s.traits[:, 1])
    rails = band(y, 0.0, 0.09, s.pixel, period=0.6)
    wood = s.colours[:, 0] * (shade * (1 + 0.12 * grain(z * 3, y * 0.3, 3.0)[1]))[:, None]
    wood = mix(wood, s.colours[:, 1], gap[:, None])
    bars = band(z, 0.0, 0.035, s.pixel / s.facing, period=0.12)
    ends = torch.maximum(bars, 1 - step(s.half[:, 1] - y.abs(), 0.05, s.pixel))
    iron = mix(s.colours[:, 1] * 0 + 0.055, s.colours[:, 0], ends[:, None])
    mesh = torch.maximum(band(z + y, 0.0, 0.02, s.pixel / s.facing, period=0.1), band(z - y, 0.0, 0.02, s.pixel / s.facing, period=0.1))
    wire = mix(torch.tensor([0.055, 0.065, 0.045]), s.colours[:, 0], torch.maximum(mesh, rails * 0.8)[:, None])
    rgb = torch.where((kind == 0)[:, None], wood, torch.where((kind == 1)[:, None], iron, wire))
    return Paint(rgb, 0 * kind)


def _sign(s: Surface) -> Paint:
    kind, seed = s.traits[:, 0], s.traits[:, 1]
    wide, tall = s.traits[:, 2], s.traits[:, 3]
    # discs are tubes along z: their local x and z span the face
    disc = kind == 0
    x = s.local[:, 0]
    y = torch.where(disc, -s.local[:, 2], s.local[:, 1])
    front = s.normal[:, 2] < -0.5
    front = torch.where(kind == 5, s.own[:, 2] < -0.5, (s.own[:, 2] < -0.5) | (disc & s.cap))
    fw = s.pixel
    radius = (x * x + y * y).sqrt() / wide
    red_edge = torch.where(disc, step(radius, 0.74, fw / wide), 0.0)
    triangle = torch.maximum(y / tall + 0.0 * x, -0.0 * y) * 0 + torch.maximum(y / tall, (x.abs() / wide) * 0.9 - y / tall * 0.45)
    red_edge = torch.where(kind == 2, 1 - step(0.62 - triangle, 0.0, fw / wide), red_edge)
    red_edge = torch.where(kind == 3, 1 - step(wide * 0.76 - torch.maximum(x.abs(), y.abs()), 0.0, fw), red_edge)
    bar = torch.where(seed < 0.5, band(y, 0.0, 0.3 * wide, fw) * (x.abs() < 0.55 * wide), band(x, 0.0, 0.22 * wide, fw) * (y.abs() < 0.5 * wide))
    text = band(y, 0.12 * tall, tall * 0.17, fw, period=tall * 0.42) * (cell_random(torch.floor(x / 0.06), torch.floor(y / (tall * 0.42)), seed) > 0.35)
    text = text * (x.abs() < wide * 0.40) * (kind == 4)
    rgb = mix(s.colours[:, 0], s.colours[:, 1], red_edge[:, None])
    rgb = mix(rgb, s.colours[:, 2], torch.where(kind < 4, bar * (radius < 0.6), 0.0)[:, None])
    rgb = mix(rgb, s.colours[:, 1], text[:, None])
    lamp = torch.floor(seed * 3)
    lights = torch.tensor([[1.0, 0.05, 0.03], [1.0, 0.5, 0.03], [0.05, 0.9, 0.35]])
    glow = torch.zeros_like(rgb)
    for i in range(3):
        spot = (1 - step((x * x + (y - (i - 1) * 0.29) ** 2).sqrt(), 0.11, fw)) * (kind == 5) * front
        rgb = mix(rgb, lights[i] * 0.12, spot[:, None])
        glow = glow + (spot * (lamp == i))[:, None] * lights[i] * 1.1
    rgb = torch.where(front[:, None] | (kind == 5)[:, None], rgb, torch.tensor([0.16, 0.165, 0.17]))
    return Paint(rgb, 0.02 + 0 * kind, glow)


def _paint(s: Surface) -> Paint:
    """The body of a car: wheel arches, sills, doors, lights, grille, number plate."""
    half, w, b, front_z, rear_z, wheel, centre, seed, bus, low = s.traits[:, :10].unbind(1)
    x, y, z = s.local.unbind(1)
    up, fw = centre - y, s.pixel
    side, nose, tail = s.own[:, 0].abs() > 0.7, s.own[:, 2] > 0.6, s.own[:, 2] < -0.6
    rgb = s.colours[:, 0].clone()
    dark = torch.tensor([0.012, 0.012, 0.013])
    doors = torch.zeros_like(z)
    for place in (0.62, -0.38, -1.32):
        doors = torch.maximum(doors, band(z, place, 0.022, fw))
    doors = doors * (up > low + 0.12) * side * (bus < 0.5)
    handle = band(z, -0.22, 0.18, fw) * band(up, centre + b * 0.42, 0.04, fw) + band(z, -1.15, 0.18, fw) * band(up, centre + b * 0.42, 0.04, fw)
    rgb = mix(rgb, rgb * 0.25, torch.maximum(doors, (handle * side * (bus < 0.5)).clamp_max(1))[:, None])
    crease = band(up, centre + b * 0.3, 0.03, fw) * side
    rgb = mix(rgb, rgb * 1.35, crease[:, None])
    stripe = band(up, centre + b * 0.1, 0.3, fw) * side * (bus > 0.5)
    rgb = mix(rgb, torch.tensor([0.7, 0.7, 0.68]), stripe[:, None])
    sill = (1 - step(up, low + 0.10, fw)) * 0.9
    bumper = (1 - step(up, low + 0.22, fw)) * (nose | tail) * (seed < 0.45)
    rgb = mix(rgb, dark, torch.maximum(sill, bumper * 0.9)[:, None])
    for place in (front_z, rear_z):
        arch = 1 - step(((z - place) ** 2 + (up - wheel) ** 2).sqrt(), wheel * 1.16, fw)
        rgb = mix(rgb, dark, (arch * side)[:, None])
    glow = torch.zeros_like(rgb)
    # front: lamps, grille, plate
    grille = band(up, low + 0.34, 0.16, fw) * (x.abs() < w * 0.48) * nose
    rgb = mix(rgb, dark, (grille * 0.9)[:, None])
    lamp_height = torch.where(bus > 0.5, low + 0.35, centre + b * 0.12)
    lamp = band(up, lamp_height, 0.17, fw) * band(x.abs(), w * 0.74, w * 0.34, fw)
    headlamp, tail_lamp = lamp * nose, band(up, lamp_height + 0.05, 0.24, fw) * band(x.abs(), w * 0.80, w * 0.26, fw) * tail
    rgb = mix(rgb, torch.tensor([0.75, 0.76, 0.78]), (headlamp * 0.9)[:, None])
    glow = glow + (headlamp * torch.where(seed > 0.5, 0.9, 0.08))[:, None]
    corner = band(up, lamp_height, 0.15, fw) * side
    rgb = mix(rgb, torch.tensor([0.7, 0.7, 0.7]), (corner * (z > half - 0.42))[:, None])
    rgb = mix(rgb, torch.tensor([0.42, 0.01, 0.01]), torch.maximum(tail_lamp, corner * (z < 0.25 - half))[:, None])
    glow = glow + tail_lamp[:, None] * torch.tensor([0.35, 0.01, 0.01]) * torch.where(seed > 0.6, 1.6, 0.25)[:, None]
    plate_up = torch.where(nose, low + 0.18, low + 0.42)
    plate = band(up, plate_up, 0.115, fw) * band(x, 0.0, 0.52, fw) * (nose | tail)
    letters = plate * band(up, plate_up, 0.06, fw) * (cell_random(torch.floor(x / 0.035), 0 * x, seed) > 0.45) * (x.abs() < 0.22)
    rgb = mix(rgb, torch.tensor([0.7, 0.7, 0.66]), plate[:, None])
    rgb = mix(rgb, dark, letters[:, None])
    mirror = 0.11 * (1 - torch.maximum(sill, plate)) * (rgb.amax(1) > 0.013)
    return Paint(rgb, mirror, glow)


def _cabin(s: Surface) -> Paint:
    """Glass with a painted roof and pillars along its edges."""
    half, w, h, c, panel, seed, bus = s.traits[:, :7].unbind(1)
    planes = s.planes[s.solid]
    gaps = planes[..., 3] - (planes[..., :3] * s.local[:, None]).sum(2)
    used = planes[..., :3].abs().sum(2) > 0
    gaps = torch.where(used, gaps, torch.inf)
    edge = gaps.topk(2, dim=1, largest=False).values[:, 1]
    roof = s.own[:, 1] < -0.75
    side = s.own[:, 0].abs() > 0.6
    low = h - s.local[:, 1] * -1  # above the belt line, from below: local y is down
    low = h - s.local[:, 1]
    frame = 1 - step(edge, 0.055, s.pixel)
    frame = torch.where(low < 0.06, torch.zeros_like(frame), frame)
    z = s.local[:, 2]
    pillars = torch.where(bus > 0.5, band(z, 0.0, 0.10, s.pixel, period=1.5), torch.maximum(band(z, -0.08, 0.09, s.pixel), band(z, -1.02, 0.07, s.pixel)))
    frame = torch.maximum(frame, pillars * side)
    frame = torch.where((panel > 0.5) & side & (z < c - 1.5), 1.0, frame)
    frame = torch.where(roof | (s.own[:, 1].abs() > 0.5) & side, 1.0, frame)
    # vague seats and heads behind the glass
    inside = cell_random(torch.floor(z / 0.55), torch.floor(s.local[:, 0] / 0.45), seed) * (low < 0.28)
    glass = s.colours[:, 1] * (0.7 + 0.9 * inside)[:, None]
    rgb = mix(glass, s.colours[:, 0] * torch.where(pillars * side > 0.5, 0.25, 1.0)[:, None], frame[:, None])
    return Paint(rgb, mix(torch.full_like(z, 0.32), torch.full_like(z, 0.10), frame))


def _facade(s: Surface) -> Paint:
    return Paint(*facade(s))


MATERIALS: dict[int, Callable[[Surface], Paint]] = {
    shapes.FACADE: _facade, shapes.ROOF: _roof, shapes.LEAF: _leaf, shapes.BARK: _bark, shapes.PAINT: _paint,
    shapes.CABIN: _cabin, shapes.WHEEL: _wheel, shapes.SIGN: _sign, shapes.CLOTH: _cloth, shapes.FENCE: _fence,
    shapes.METAL: _metal, shapes.PLAIN: _plain, shapes.RING: _ring, shapes.HEDGE: _hedge,
}  # fmt: skip


def shade(scene: Street, view: View, bodies: Bodies, shadow: ShadowMap, hits: Hits, origin: Tensor, direction: Tensor,
          pixel: float) -> Tensor:  # fmt: skip
    """Linear RGB `[n, 3]` of rays from `origin [3]` along `direction [n, 3]`; `pixel` is a pixel's size at one metre."""
    look, count = scene.look, len(direction)
    unit = direction / direction.norm(dim=1, keepdim=True)
    point = origin + direction * torch.where(hits.depth.isfinite(), hits.depth, 0)[:, None]
    albedo, normal = torch.zeros(count, 3), torch.zeros(count, 3)
    mirror, glow = torch.zeros(count), torch.zeros(count, 3)
    soft = torch.zeros(count)
    normal[:, 1] = -1
    material = torch.where(hits.solid >= 0, bodies.material[hits.solid.clamp_min(0)], -1)
    for kind, function in MATERIALS.items():
        rows = (material == kind).nonzero()[:, 0]
        if not len(rows):
            continue
        s = surface(bodies, hits, point, direction, pixel, rows)
        paint = function(s)
        albedo[rows], normal[rows], mirror[rows] = paint.albedo, s.normal, paint.mirror
        if paint.glow is not None:
            glow[rows] = paint.glow
        if kind in (shapes.LEAF, shapes.HEDGE):
            soft[rows] = 1
    rows = ((hits.solid < 0) & (hits.solid != NOTHING)).nonzero()[:, 0]
    albedo[rows], mirror[rows] = ground(scene, view, hits.solid[rows], point[rows], hits.depth[rows], pixel, float(-origin[1]))
    kerb = (hits.solid == KERB_HIT).nonzero()[:, 0]
    normal[kerb, 0], normal[kerb, 1] = -point[kerb, 0].sign() * 0.97, -0.24

    sun = colour(turned(look.sun, -view.heading))
    slant = normal @ sun
    slant = torch.where(soft > 0, (0.45 + 0.55 * slant).clamp_min(0.08), slant.clamp_min(0))
    away = torch.where(soft > 0, 0.0, 0.06)
    at = point + normal * away[:, None]
    light = slant * sunlit(shadow, at[:, 0], -at[:, 1] + 0.35 * soft, at[:, 2], look.softness)
    above = 0.5 - 0.5 * normal[:, 1]
    low = (-point[:, 1] / 2.5).clamp(0, 1)
    open_sky = (0.62 + 0.38 * low) * (0.55 + 0.45 * above)
    ambient = (colour(look.sky_colour) * 0.45 + colour(look.horizon) * 0.42) * (0.95 if look.overcast else 0.62)
    bounce = colour(look.sun_colour) * 0.035
    rgb = albedo * (light[:, None] * colour(look.sun_colour) + open_sky[:, None] * ambient + bounce)
    shiny = (mirror > 0).nonzero()[:, 0]
    if len(shiny):
        n, d = normal[shiny], unit[shiny]
        facing = (n * d).sum(1, keepdim=True)
        bounced = d - 2 * facing * n
        seen = sky(look, bounced, clouds=False) * torch.where(bounced[:, 1:2] < 0.02, 0.75, 0.16)
        spark = ((bounced @ sun).clamp_min(0) ** 90 * 2.5 * light[shiny])[:, None] * colour(look.sun_colour)
        fresnel = mirror[shiny, None] + (1 - mirror[shiny, None]) * (1 + facing).clamp(0, 1) ** 5 * (mirror[shiny, None] * 8).clamp_max(1)
        rgb[shiny] = rgb[shiny] * (1 - fresnel) + fresnel * (seen + spark)
    rgb = rgb + glow
    air = (-hits.depth * look.haze).exp()[:, None]
    rgb = mix(colour(look.horizon) * 0.92, rgb, air)
    rows = (hits.solid == NOTHING).nonzero()[:, 0]
    rgb[rows] = sky(look, unit[rows], clouds=True, turn=view.heading, drift=float(scene.key[1] % 97))
    return rgb


def develop(look: Look, rgb: Tensor, generator: torch.Generator) -> Tensor:
    """The picture `[3, h, w]` in [0, 1] from linear light `[h, w, 3]`: vignette, exposure, tone curve, sensor noise."""
    h, w = rgb.shape[:2]
    y, x = torch.linspace(-1, 1, h)[:, None], torch.linspace(-1, 1, w)[None]
    vignette = 1 - 0.10 * (x * x + y * y)
    value = rgb.clamp_min(0) * (1.25 * look.exposure * vignette[..., None] * colour(look.balance))
    value = (1 - (-1.15 * value).exp()).clamp_min(1e-5) ** (1 / 2.2)
    value = value + look.noise * torch.randn(h, w, 3, generator=generator)
    return value.clamp(0, 1).permute(2, 0, 1).contiguous()


__all__ = ["Paint", "Solids", "colour", "develop", "shade", "sky", "turned"]
