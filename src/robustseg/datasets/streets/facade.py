"""The painted front of a building: storeys, windows with frames, curtains and reflections, doors, shops, bricks."""

import torch
from torch import Tensor

from robustseg.datasets.streets.noise import cell_random, grain
from robustseg.datasets.streets.patterns import Paint, Surface, band, mix, step


def facade(s: Surface) -> Paint:
    """The walls of a building."""
    storey, bay, window, tall, seed, ground, walls, height, ground_height, draw = s.traits[:, :10].unbind(1)
    on_side = s.own[:, 2].abs() > s.own[:, 0].abs()
    u = torch.where(on_side, s.local[:, 0], s.local[:, 2])
    up = s.half[:, 1] - s.local[:, 1]
    fu, fv = s.pixel / s.facing, s.pixel
    wall_colour, trim, accent = s.colours.unbind(1)

    ground_floor = up < ground_height
    level = torch.where(ground_floor, 0.0, 1 + torch.floor((up - ground_height) / storey))
    floor = torch.where(ground_floor, 0.0, ground_height + (level - 1) * storey)
    column = torch.round(u / bay)
    x, y = u - column * bay, up - floor
    chance = cell_random(column, level, seed)
    inside_wall = ((column.abs() + 0.5) * bay < torch.where(on_side, s.half[:, 0], s.half[:, 2]) + 0.05).float()

    rgb = _wall(s, u, up, fu, fv, level)
    # the windows of upper floors, and of the ground floor where it has no shop
    wide, high = window * bay, tall * storey
    middle = torch.where(ground_floor, 0.50 * storey, 0.52 * storey)
    bottom = middle - high / 2
    room = (floor + bottom + high < height - 0.2).float() * inside_wall
    blank = on_side & (cell_random(column, 0 * column + 77, seed) > 0.35)
    door = ground_floor & (ground == 0) & (torch.remainder(column, 3) == torch.floor(draw * 3))
    shop = ground_floor & (ground == 1) & ~on_side
    has = room * (~(blank | door | shop)).float()
    surround = band(x, 0.0, wide + 0.26, fu) * band(y, middle, high + 0.3, fv) * has * (walls < 1.5) * (draw > 0.4)
    rgb = mix(rgb, torch.minimum(wall_colour * 1.25, trim), surround[:, None] * 0.8)
    pane = band(x, 0.0, wide, fu) * band(y, middle, high, fv) * has
    sill = band(x, 0.0, wide + 0.3, fu) * band(y, bottom - 0.07, 0.12, fv) * has * (walls < 1.5)
    rgb = mix(rgb, trim * 0.9, sill[:, None])
    under = band(x, 0.0, wide + 0.2, fu) * band(y, bottom - 0.22, 0.18, fv) * has * (walls < 1.5)
    rgb = rgb * (1 - 0.25 * under)[:, None]
    glass, mirror, glow = _glass(s, x, y - bottom, wide, high, fu, fv, chance, trim, walls)
    rgb, shine = mix(rgb, glass, pane[:, None]), pane * mirror
    light = glow * pane[:, None]

    # doors
    door_shape = (
        band(x, 0.0, torch.minimum(bay * 0.5, bay * 0 + 1.15), fu) * (1 - step(y, 2.35, fv)) * door * inside_wall
    )
    step_stone = band(x, 0.0, 1.5, fu) * (1 - step(y, 0.2, fv)) * door * inside_wall
    panels = band(x, 0.0, 0.3, fu, period=0.45) * band(y, 0.5, 0.5, fv, period=0.75)
    leaf = accent * (0.8 + 0.3 * panels)[:, None]
    lintel = band(x, 0.0, 1.5, fu) * band(y, 2.45, 0.22, fv) * door * inside_wall
    rgb = mix(mix(rgb, trim, lintel[:, None]), leaf, door_shape[:, None])
    rgb = mix(rgb, wall_colour * 0 + 0.3, step_stone[:, None])
    rgb, shine, light = _shop(s, u, x, y, fu, fv, shop, rgb, shine, light)
    # cornice under the roof, darker foot, corner stones
    cornice = step(up, height - 0.38, fv) * (height > 2.2)
    rgb = mix(rgb, torch.minimum(wall_colour * 1.3, wall_colour * 0 + 0.75), (cornice * (walls < 1.5))[:, None])
    foot = (1 - step(up, 0.45, fv)) * (height > 2.2) * (~shop)
    rgb = mix(rgb, wall_colour * 0.5, (0.7 * foot)[:, None])
    return Paint(rgb, shine, light)


def _wall(s: Surface, u: Tensor, up: Tensor, fu: Tensor, fv: Tensor, level: Tensor) -> Tensor:
    walls, draw, storey, ground_height = s.traits[:, 6], s.traits[:, 9], s.traits[:, 0], s.traits[:, 8]
    shift = s.traits[:, 4] * 50
    rough = grain(u + shift, up, 11.0)
    fine = grain(u, up + shift, 2.0)[0] * (0.012 / s.pixel).clamp_max(1)
    streaks = grain((u + shift) * 3, up * 0.25, 9.0)[2]
    brightness = 1 + 0.09 * rough[1] + 0.05 * fine + 0.03 * streaks
    row = torch.floor(up / 0.085)
    brick = cell_random(torch.floor(u / 0.23 + 0.5 * torch.remainder(row, 2)), row, 0.3)
    joints = torch.maximum(
        band(up, 0.0, 0.016, fv, period=0.085), band(u + 0.115 * torch.remainder(row, 2), 0.0, 0.016, fu, period=0.23)
    )
    fade = (0.05 / fu).clamp_max(1)
    bricked = s.colours[:, 0] * (brightness + 0.45 * (brick - 0.5) * fade)[:, None]
    bricked = mix(bricked, bricked * 0.4 + 0.17, (0.8 * joints * (0.02 / torch.maximum(fu, fv)).clamp_max(1))[:, None])
    plain = s.colours[:, 0] * brightness[:, None]
    rgb = torch.where((walls == 1)[:, None], bricked, plain)
    belt = band(up - ground_height, 0.0, 0.18, fv, period=storey) * ((draw > 0.6) | (walls == 2)) * (level > 0)
    return mix(rgb, torch.minimum(rgb * 1.3, rgb * 0 + 0.7), belt[:, None])


def _glass(s, x, y, wide, high, fu, fv, chance, trim, walls):  # type: ignore[no-untyped-def]
    """Colour, mirror share and glow of a window seen from outside; (x, y) from the middle of its lower edge."""
    kind, second = torch.floor(s.traits[:, 9] * 4), torch.frac(chance * 17.3)
    share = (y / high).clamp(0, 1)
    dark = mix(torch.tensor([0.015, 0.017, 0.02]), torch.tensor([0.06, 0.065, 0.07]), (second * (1 - share))[:, None])
    curtain = torch.tensor([0.42, 0.40, 0.36]) * (0.5 + 0.6 * second)[:, None]
    folds = 0.85 + 0.15 * band(x, 0.0, 0.06, fu, period=0.12)
    drawn = torch.where(
        chance < 0.25,
        step(share, 0.35 + 0.6 * second, fv),
        torch.where(chance < 0.6, step((x / wide).abs(), 0.28 + 0.15 * second, fu), 0.0),
    )
    blinds = torch.where(
        (chance > 0.9)[:, None],
        torch.full_like(dark, 0.45) * (0.8 + 0.2 * band(y, 0.0, 0.04, fv, period=0.08))[:, None],
        dark,
    )
    rgb = mix(blinds, curtain * folds[:, None], (drawn * (walls < 1.5) * 0.85)[:, None])
    lit = ((chance > 0.62) & (chance < 0.70)).float()
    glow = lit[:, None] * torch.tensor([0.55, 0.40, 0.20]) * (0.4 + 0.5 * share)[:, None]
    # shadow of the reveal at the top and at one side
    rgb = rgb * (1 - 0.55 * step(y, high - 0.14, fv))[:, None]
    bar = torch.where(walls > 1.5, 0.05, 0.075)
    frame = torch.maximum(1 - step(wide / 2 - x.abs(), bar, fu), 1 - step(torch.minimum(y, high - y), bar, fv))
    cross = torch.where(
        kind == 0,
        band(y, high * 0.5, 0.06, fv),
        torch.where(
            kind == 1,
            torch.maximum(band(x, 0.0, 0.06, fu), band(y, high * 0.68, 0.06, fv)),
            torch.where(kind == 2, band(x, 0.0, 0.07, fu), band(x, 0.0, 0.03, fu, period=0.3)),
        ),
    )
    frame = torch.maximum(frame, cross)
    rgb = mix(rgb, trim, frame[:, None])
    return (
        rgb,
        mix(torch.where(walls > 1.5, 0.30, 0.16) * (1 - 0.5 * drawn), 0 * frame, frame),
        glow * (1 - frame)[:, None],
    )


def _shop(s, u, x, y, fu, fv, shop, rgb, shine, light):  # type: ignore[no-untyped-def]
    """Shop windows with goods, a fascia with letters, and a glass door."""
    ground_height, seed, accent, trim = s.traits[:, 8], s.traits[:, 4], s.colours[:, 2], s.colours[:, 1]
    bay = s.traits[:, 1]
    top = ground_height - 0.85
    here = shop.float()
    rgb = mix(rgb, accent * 0.75, here[:, None])
    pane = (1 - step(x.abs(), bay * 0.44, fu)) * band(y, (top + 0.55) / 2, top - 0.55, fv) * here
    goods = cell_random(torch.floor(u / 0.16), torch.floor(y / 0.28), seed)
    tint = cell_random(torch.floor(u / 0.16), torch.floor(y / 0.28) + 50, seed)
    wares = 0.10 * goods * (goods > 0.35)
    shelf = torch.stack(
        [0.03 + wares * (0.4 + tint), 0.03 + wares * (0.8 - 0.2 * tint), 0.03 + wares * (1.1 - 0.8 * tint)], 1
    )
    back = mix(torch.tensor([0.035, 0.035, 0.04]).expand_as(shelf), shelf, (0.75 * (y < top * 0.62))[:, None])
    rgb = mix(rgb, back, pane[:, None])
    mullion = band(x, 0.0, 0.07, fu) * pane
    rgb = mix(rgb, trim * 0.7, mullion[:, None])
    glowing = pane * (torch.frac(seed * 7.7) > 0.4)
    light = (
        light
        + glowing[:, None] * shelf * 0.2
        + (
            glowing
            * band(
                y,
                top - 0.25,
                0.08,
                fv,
            )
        )[:, None]
        * torch.tensor([0.5, 0.45, 0.3])
    )
    shine = torch.where(shop, pane * 0.16 * (1 - mullion), shine)
    fascia = band(y, ground_height - 0.48, 0.62, fv) * here
    rgb = mix(rgb, accent, fascia[:, None])
    span = torch.where(torch.frac(seed * 3.3) < 0.5, 0.30, 0.42) * s.half[:, 2] * 2
    letter = cell_random(torch.floor(u / 0.11), 0 * u, seed) > 0.38
    word = cell_random(torch.floor(u / 0.95), 0 * u + 3, seed) > 0.2
    text = (
        band(y, ground_height - 0.48, 0.28, fv)
        * (letter & word & (u.abs() < span)).float()
        * here
        * (0.09 / fu).clamp_max(1)
    )
    pale = torch.where((accent.mean(1) < 0.3)[:, None], torch.full_like(accent, 0.7), torch.full_like(accent, 0.04))
    return mix(rgb, pale, (0.9 * text)[:, None]), shine, light
