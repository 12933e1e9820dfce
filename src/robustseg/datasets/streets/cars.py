"""What is painted on cars: wheels, doors, lights, number plates, windows."""

import torch

from robustseg.datasets.streets.noise import cell_random
from robustseg.datasets.streets.patterns import Paint, Surface, band, mix, step


def wheel(s: Surface) -> Paint:
    """A tyre with a spoked rim."""
    r = s.traits[:, 0]
    radius = (s.local[:, 0] ** 2 + s.local[:, 2] ** 2).sqrt() / r
    angle = torch.atan2(s.local[:, 0], s.local[:, 2]) / torch.pi
    fw = s.pixel / r
    spoke = band(angle * 5 + s.traits[:, 1], 0.0, 1.0, fw * 3, period=2.0) * (radius > 0.15)
    rim = (1 - step(radius, 0.64, fw)) * s.cap
    tyre = s.colours[:, 0] * (1 + 0.5 * band(radius, 0.78, 0.03, fw))[:, None]
    inner = s.colours[:, 1] * (1 - 0.8 * spoke)[:, None]
    return Paint(mix(tyre, inner, rim[:, None]), 0.25 * rim * (1 - spoke))


def body(s: Surface) -> Paint:
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
    handle = band(z, -0.22, 0.18, fw) * band(up, centre + b * 0.42, 0.04, fw) + band(z, -1.15, 0.18, fw) * band(
        up, centre + b * 0.42, 0.04, fw
    )
    rgb = mix(rgb, rgb * 0.25, torch.maximum(doors, (handle * side * (bus < 0.5)).clamp_max(1))[:, None])
    crease = band(up, centre + b * 0.3, 0.03, fw) * side
    rgb = mix(rgb, rgb * 1.35, crease[:, None])
    stripe = band(up, centre + b * 0.1, 0.3, fw) * side * (bus > 0.5)
    rgb = mix(rgb, torch.tensor([0.7, 0.7, 0.68]), stripe[:, None])
    sill = (1 - step(up, low + 0.10, fw)) * 0.9
    bumper = (1 - step(up, low + 0.22, fw)) * (nose | tail) * (seed < 0.45)
    rgb = mix(rgb, dark, torch.maximum(sill, bumper * 0.9)[:, None])
    for axle in (front_z, rear_z):
        arch = 1 - step(((z - axle) ** 2 + (up - wheel) ** 2).sqrt(), wheel * 1.16, fw)
        rgb = mix(rgb, dark, (arch * side)[:, None])
    glow = torch.zeros_like(rgb)
    # front: lamps, grille, plate
    grille = band(up, low + 0.34, 0.16, fw) * (x.abs() < w * 0.48) * nose
    rgb = mix(rgb, dark, (grille * 0.9)[:, None])
    lamp_height = torch.where(bus > 0.5, low + 0.35, centre + b * 0.12)
    lamp = band(up, lamp_height, 0.17, fw) * band(x.abs(), w * 0.74, w * 0.34, fw)
    headlamp, tail_lamp = (
        lamp * nose,
        band(up, lamp_height + 0.05, 0.24, fw) * band(x.abs(), w * 0.80, w * 0.26, fw) * tail,
    )
    rgb = mix(rgb, torch.tensor([0.75, 0.76, 0.78]), (headlamp * 0.9)[:, None])
    glow = glow + (headlamp * torch.where(seed > 0.5, 0.9, 0.08))[:, None]
    corner = band(up, lamp_height, 0.15, fw) * side
    rgb = mix(rgb, torch.tensor([0.7, 0.7, 0.7]), (corner * (z > half - 0.42))[:, None])
    rgb = mix(rgb, torch.tensor([0.42, 0.01, 0.01]), torch.maximum(tail_lamp, corner * (z < 0.25 - half))[:, None])
    glow = glow + tail_lamp[:, None] * torch.tensor([0.35, 0.01, 0.01]) * torch.where(seed > 0.6, 1.6, 0.25)[:, None]
    plate_up = torch.where(nose, low + 0.18, low + 0.42)
    plate = band(up, plate_up, 0.115, fw) * band(x, 0.0, 0.52, fw) * (nose | tail)
    letters = (
        plate
        * band(up, plate_up, 0.06, fw)
        * (cell_random(torch.floor(x / 0.035), 0 * x, seed) > 0.45)
        * (x.abs() < 0.22)
    )
    rgb = mix(rgb, torch.tensor([0.7, 0.7, 0.66]), plate[:, None])
    rgb = mix(rgb, dark, letters[:, None])
    mirror = 0.11 * (1 - torch.maximum(sill, plate)) * (rgb.amax(1) > 0.013)
    return Paint(rgb, mirror, glow)


def cabin(s: Surface) -> Paint:
    """Glass with a painted roof and pillars along its edges."""
    _, _, h, c, panel, seed, bus = s.traits[:, :7].unbind(1)
    planes = s.planes[s.solid]
    gaps = planes[..., 3] - (planes[..., :3] * s.local[:, None]).sum(2)
    used = planes[..., :3].abs().sum(2) > 0
    same = (planes[..., :3] * s.own[:, None]).sum(2) > 0.9  # the face itself, or the box that it cuts
    edge = torch.where(used & ~same, gaps, torch.inf).amin(1)
    roof = s.own[:, 1] < -0.95
    side = s.own[:, 0].abs() > 0.6
    low = h - s.local[:, 1]  # metres above the belt line (local y is down)
    frame = 1 - step(edge, 0.055, s.pixel)
    frame = torch.where(low < 0.06, torch.zeros_like(frame), frame)
    z = s.local[:, 2]
    pillars = torch.where(
        bus > 0.5,
        band(z, 0.0, 0.10, s.pixel, period=1.5),
        torch.maximum(band(z, -0.08, 0.09, s.pixel), band(z, -1.02, 0.07, s.pixel)),
    )
    frame = torch.maximum(frame, pillars * side)
    frame = torch.where((panel > 0.5) & side & (z < c - 1.5), 1.0, frame)
    frame = torch.where(roof | (s.own[:, 1].abs() > 0.5) & side, 1.0, frame)
    # vague seats and heads behind the glass
    inside = cell_random(torch.floor(z / 0.55), torch.floor(s.local[:, 0] / 0.45), seed) * (low < 0.28)
    glass = s.colours[:, 1] * (0.7 + 0.9 * inside)[:, None]
    rgb = mix(glass, s.colours[:, 0] * torch.where(pillars * side > 0.5, 0.25, 1.0)[:, None], frame[:, None])
    return Paint(rgb, mix(torch.full_like(z, 0.13), torch.full_like(z, 0.09), frame))
