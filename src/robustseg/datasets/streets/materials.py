"""The materials of what is neither house nor car: leaves, bark, roofs, fences, signs, clothes; and the table of all."""

from collections.abc import Callable

import torch

from robustseg.datasets.streets.cars import body, cabin, wheel
from robustseg.datasets.streets.facade import facade
from robustseg.datasets.streets.noise import cell_random, grain, leafy
from robustseg.datasets.streets.patterns import Paint, Surface, band, dot, mix, step
from robustseg.datasets.streets.shapes import (
    BARK,
    CABIN,
    CLOTH,
    FACADE,
    FENCE,
    HEDGE,
    LEAF,
    METAL,
    PAINT,
    PLAIN,
    RING,
    ROOF,
    SIGN,
    WHEEL,
)


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
    fine = leafy(s.local, cell * 0.7, seed + 0.3)
    coarse = leafy(s.local, cell * 5, seed + 0.6)
    outer = dot(s.local / s.half, s.local / s.half).sqrt().clamp_max(1)
    rgb = mix(s.colours[:, 0], s.colours[:, 1], coarse[:, None]) * (0.25 + 1.5 * fine * fine + 0.25 * coarse)[:, None]
    # lower and inner leaves are darker
    low = 0.5 - 0.5 * (s.local[:, 1] / s.half[:, 1]).clamp(-1, 1)
    return Paint(rgb * (0.40 + 0.75 * low * outer)[:, None], 0.012 + 0 * fine)


def _hedge(s: Surface) -> Paint:
    cell, seed = s.traits[:, 0], s.traits[:, 1]
    fine, coarse = leafy(s.local, cell * 0.5, seed), leafy(s.local, cell * 6, seed + 0.5)
    return Paint(mix(s.colours[:, 0], s.colours[:, 1], coarse[:, None]) * (0.4 + 1.1 * fine[:, None]), 0 * fine)


def _bark(s: Surface) -> Paint:
    angle = torch.atan2(s.local[:, 0], s.local[:, 2])
    rough = grain(angle * 1.5, s.local[:, 1] * 0.25, 1.5)
    return Paint(
        s.colours[:, 0] * (1 + 0.25 * rough[0] * (0.03 / s.pixel).clamp_max(1) + 0.15 * rough[1])[:, None], 0 * angle
    )


def _metal(s: Surface) -> Paint:
    return Paint(s.colours[:, 0], torch.full_like(s.pixel, 0.10))


def _cloth(s: Surface) -> Paint:
    rough = grain(s.local[:, 0] + s.local[:, 2], s.local[:, 1], 1.2)
    return Paint(
        s.colours[:, 0] * (1 + 0.12 * rough[1] + 0.08 * rough[0] * (0.01 / s.pixel).clamp_max(1))[:, None], 0 * s.pixel
    )


def _ring(s: Surface) -> Paint:
    radius = (s.local[:, 1] * 0 + (s.local[:, 0] ** 2 + s.local[:, 2] ** 2).sqrt()) / s.traits[:, 0]
    tyre = step(radius, 0.93, s.pixel / s.traits[:, 0])
    return Paint(mix(s.colours[:, 1], s.colours[:, 0], tyre[:, None]), 0.05 * (1 - tyre))


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
    mesh = torch.maximum(
        band(z + y, 0.0, 0.02, s.pixel / s.facing, period=0.1), band(z - y, 0.0, 0.02, s.pixel / s.facing, period=0.1)
    )
    wire = mix(torch.tensor([0.055, 0.065, 0.045]), s.colours[:, 0], torch.maximum(mesh, rails * 0.8)[:, None])
    rgb = torch.where((kind == 0)[:, None], wood, torch.where((kind == 1)[:, None], iron, wire))
    return Paint(rgb, 0 * kind)


def sign(s: Surface) -> Paint:
    """The face of a traffic sign, a board or a traffic light."""
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
    gap = torch.minimum((tall - 1.73 * x.abs() + y) / 2, tall - y)  # to the nearest edge of a triangle
    red_edge = torch.where(kind == 2, 1 - step(gap, 0.2 * wide, fw), red_edge)
    red_edge = torch.where(kind == 3, 1 - step(wide * 0.76 - torch.maximum(x.abs(), y.abs()), 0.0, fw), red_edge)
    bar = torch.where(
        seed < 0.5,
        band(y, 0.0, 0.3 * wide, fw) * (x.abs() < 0.55 * wide),
        band(x, 0.0, 0.22 * wide, fw) * (y.abs() < 0.5 * wide),
    )
    text = band(y, 0.12 * tall, tall * 0.17, fw, period=tall * 0.42) * (
        cell_random(torch.floor(x / 0.06), torch.floor(y / (tall * 0.42)), seed) > 0.35
    )
    text = text * (x.abs() < wide * 0.40) * (kind == 4)
    rgb = mix(s.colours[:, 0], s.colours[:, 1], red_edge[:, None])
    rgb = mix(
        rgb, s.colours[:, 2], torch.where(kind < 4, bar * (radius < torch.where(kind == 2, 0.3, 0.6)), 0.0)[:, None]
    )
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


MATERIALS: dict[int, Callable[[Surface], Paint]] = {
    FACADE: facade, ROOF: _roof, LEAF: _leaf, BARK: _bark, PAINT: body,
    CABIN: cabin, WHEEL: wheel, SIGN: sign, CLOTH: _cloth, FENCE: _fence,
    METAL: _metal, PLAIN: _plain, RING: _ring, HEDGE: _hedge,
}  # fmt: skip
