"""Road with markings, kerb, pavement slabs and grass."""

import torch
from torch import Tensor

from robustseg.datasets.streets.noise import cell_random, grain
from robustseg.datasets.streets.patterns import band, mix, step
from robustseg.datasets.streets.render import KERB_HIT, ROAD_HIT, street_coordinates
from robustseg.datasets.streets.scene import Street, View

WHITE = torch.tensor([0.58, 0.58, 0.55])


def grassy(scene: Street, lateral: Tensor) -> Tensor:
    """Whether the ground is a garden (of the class tree, as CamVid's low vegetation is)."""
    if scene.style != "suburb":
        return torch.zeros_like(lateral, dtype=torch.bool)
    return (lateral > scene.half[1] + scene.pavement) | (lateral < -scene.half[0] - scene.pavement)


def ground(
    scene: Street, view: View, kind: Tensor, point: Tensor, depth: Tensor, pixel: float, eye: float
) -> tuple[Tensor, Tensor]:
    """Albedo `[n, 3]` and mirror share `[n]` of ground points."""
    lateral, ahead = street_coordinates(scene, point[:, 0], point[:, 2])
    along = ahead + view.along
    across = depth * pixel
    forward = across * (depth / eye).clamp_min(1)
    albedo, mirror = torch.zeros(len(kind), 3), torch.zeros(len(kind))
    road = (kind == ROAD_HIT).nonzero()[:, 0]
    albedo[road], mirror[road] = _road(scene, view, lateral[road], along[road], across[road], forward[road])
    rest = (kind != ROAD_HIT).nonzero()[:, 0]
    albedo[rest] = _pavement(scene, lateral[rest], along[rest], across[rest], forward[rest], kind[rest] == KERB_HIT)
    return albedo, mirror


def _road(scene: Street, view: View, x: Tensor, z: Tensor, fx: Tensor, fz: Tensor) -> tuple[Tensor, Tensor]:
    tone = 0.075 + 0.06 * float(scene.rng(20).random())
    fine, broad = grain(x, z, 2.6), grain(x, z + 11, 33.0)
    fade = (0.05 / fz).clamp_max(1)
    value = 1 + 0.20 * fine[0] * fade + 0.05 * fine[1] * fade + 0.10 * broad[1]
    tracks = band(x.abs() - scene.lane * 0.5, 0.75, 0.5, fx + 0.5) + band(
        x.abs() - scene.lane * 0.5, -0.75, 0.5, fx + 0.5
    )
    value = value * (1 - 0.12 * tracks * (1 + 0.5 * broad[2]).clamp(0, 2))
    stain = band(x.abs(), scene.lane * 0.5, 0.35, fx + 0.5) * (0.5 + 0.5 * broad[2]).clamp(0, 1)
    value = value * (1 - 0.10 * stain)
    # patches where the road was opened, and cracks
    patch_z, patch_x = torch.floor(z / 8.5), torch.floor(x / 2.3)
    patched = (cell_random(patch_x, patch_z, 0.7) > 0.88).float()
    inner_x, inner_z = x - (patch_x + 0.5) * 2.3, z - (patch_z + 0.5) * 8.5
    shape = band(inner_x, 0.0, 1.7, fx) * band(inner_z, 0.0, 5.5, fz) * patched
    value = value * (1 - 0.25 * shape * (cell_random(patch_x, patch_z, 0.2) - 0.25).sign())
    crack = (1 - (grain(x, z, 14.0)[2].abs() / 0.035)).clamp(0, 1) * (broad[1] > 0.4) * (0.03 / fz).clamp_max(1)
    rgb = (tone * value * (1 - 0.5 * crack)).clamp(0.015, 0.4)[:, None] * torch.tensor([1.0, 1.0, 1.03])
    # gutters
    edge = torch.where(x > 0, scene.half[1] - x, scene.half[0] + x)
    rgb = rgb * (1 - 0.35 * band(edge, 0.12, 0.3, fx + 0.05))[:, None]
    cell = torch.floor(z / 19)
    cover_x, cover_z = (
        (cell_random(cell, 0 * cell, 0.4) - 0.5) * 2 * scene.lane,
        (cell + 0.2 + 0.6 * cell_random(cell, 0 * cell + 1, 0.4)) * 19,
    )
    radius = ((x - cover_x) ** 2 + (z - cover_z) ** 2).sqrt()
    cover = 1 - step(radius, 0.33, fz)
    rgb = mix(
        rgb, torch.tensor([0.045, 0.042, 0.04]) * (1 + 0.6 * band(radius, 0.24, 0.04, fz))[:, None], cover[:, None]
    )
    paint, yellow = _markings(scene, view, x, z, fx, fz)
    worn = (0.92 - 0.35 * (broad[2] + fine[2] * fade - 0.4).clamp(0, 1.6)).clamp(0.2, 1)
    rgb = mix(rgb, WHITE, (paint * worn)[:, None])
    rgb = mix(rgb, torch.tensor([0.52, 0.38, 0.06]), (yellow * worn)[:, None])
    puddle = ((broad[1] - 1.3) * 2).clamp(0, 1) * (scene.look.wet > 0.75)
    return rgb * (1 - 0.45 * puddle)[:, None], 0.10 * puddle + 0 * x


def _markings(scene: Street, view: View, x: Tensor, z: Tensor, fx: Tensor, fz: Tensor) -> tuple[Tensor, Tensor]:
    """White and yellow paint, 0 to 1."""
    rng = scene.rng(21)
    solid_middle, dash, bays = rng.random() < 0.2, rng.choice([2.0, 3.0, 4.0]), rng.random() < 0.6
    dashes = band(z, 0.0, dash, fz, period=2.2 * dash) if not solid_middle else torch.ones_like(z)
    white = band(x, 0.0, 0.12, fx) * dashes
    yellow = torch.zeros_like(x)
    for sign, half, parking in ((-1, scene.half[0], scene.parking[0]), (1, scene.half[1], scene.parking[1])):
        side = (x * sign > 0).float()
        if parking and bays:
            white = torch.maximum(white, band(x * sign, half - 2.1, 0.10, fx) * side)
            white = torch.maximum(
                white, band(x * sign, half - 1.05, 2.1, fx) * band(z, 0.0, 0.10, fz, period=6.0) * side
            )
        elif not parking and scene.side < 0:
            yellow = torch.maximum(
                yellow, (band(x * sign, half - 0.28, 0.09, fx) + band(x * sign, half - 0.48, 0.09, fx)) * side
            )
        elif not parking:
            white = torch.maximum(white, band(x * sign, half - 0.30, 0.10, fx) * side)
    for start, end, *_ in view.crossings:
        inside = ((z > start - 6) & (z < end)).float()
        white, yellow = white * (1 - inside), yellow * (1 - inside)
        within = ((x < scene.half[1]) & (x > -scene.half[0])).float()
        zebra = band(z, start - 3.0, 3.0, fz) * band(x, 0.25, 0.5, fx, period=1.0) * within
        own = (x * scene.side > 0).float()
        stop = band(z, start - 5.4, 0.35, fz) * within * own
        white = torch.maximum(white, torch.maximum(zebra, stop))
    return white, yellow


def _pavement(scene: Street, x: Tensor, z: Tensor, fx: Tensor, fz: Tensor, kerb_face: Tensor) -> Tensor:
    rng = scene.rng(22)
    wide, long = ((0.5, 0.5), (0.6, 0.9), (0.3, 0.3), (0.9, 0.6))[int(rng.integers(4))]
    base = torch.tensor([0.30, 0.285, 0.26]) * float(rng.uniform(0.65, 1.2)) + torch.tensor([0.05, 0.0, -0.02]) * float(
        rng.random()
    )
    fine, broad = grain(x, z, 2.2), grain(x + 7, z, 27.0)
    fade = (0.05 / fz).clamp_max(1)
    column = torch.floor(x / wide)
    shift = 0.5 * long * torch.remainder(column, 2)
    slab = cell_random(column, torch.floor((z + shift) / long), 0.55)
    joints = torch.maximum(band(x, 0.0, 0.02, fx, period=wide), band(z + shift, 0.0, 0.02, fz, period=long))
    value = 1 + 0.10 * fine[0] * fade + 0.12 * broad[1] + 0.22 * (slab - 0.5) * (0.4 / fz).clamp_max(1)
    rgb = base * (value * (1 - 0.55 * joints))[:, None]
    gum = (cell_random(torch.floor(x / 0.35), torch.floor(z / 0.35), 0.9) > 0.93) & (fz < 0.12)
    rgb = rgb * (1 - 0.15 * gum.float())[:, None]
    beyond = torch.where(x > 0, x - scene.half[1], -x - scene.half[0])
    stone = ((beyond < 0.17) & (beyond > -0.3)) | kerb_face
    kerb = torch.tensor([0.36, 0.36, 0.35]) * (1 + 0.10 * fine[1] - 0.5 * band(z, 0.0, 0.025, fz, period=0.95))[:, None]
    rgb = torch.where(stone[:, None], kerb * torch.where(kerb_face, 0.75, 1.0)[:, None], rgb)
    grass = grassy(scene, x)
    if bool(grass.any()):
        blades = grain(x, z, 1.7)[0] * fade
        lawn = torch.tensor([0.075, 0.13, 0.035]) * (1 + 0.3 * blades + 0.22 * broad[1] + 0.1 * fine[1])[:, None]
        rgb = torch.where(grass[:, None], lawn, rgb)
    return rgb
