"""The colour of what a ray meets: ground, materials, sky, light. Linear RGB throughout; `develop` makes the picture.

Patterns are averaged over the footprint of a pixel where that is cheap (bands, windows, joints), so that they fade with
distance instead of flickering.
"""

import numpy as np
import torch
from torch import Tensor

from robustseg.datasets.streets.ground import ground
from robustseg.datasets.streets.look import Look
from robustseg.datasets.streets.materials import MATERIALS
from robustseg.datasets.streets.noise import grain
from robustseg.datasets.streets.patterns import Surface, dot, mix
from robustseg.datasets.streets.render import KERB_HIT, NOTHING, Bodies, Hits, ShadowMap, sunlit
from robustseg.datasets.streets.scene import Street, View
from robustseg.datasets.streets.shapes import HEDGE, LEAF, yaw


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
    bright = (
        (0.92 - 0.16 * (soft - 0.3).clamp(-1, 2))[:, None] * colour(look.horizon) * (1.12 if not look.overcast else 1.0)
    )
    rgb = mix(rgb, bright, cover[:, None])
    if not look.overcast:
        near = (direction @ colour(turned(look.sun, -turn))).clamp_min(0)
        rgb = rgb + colour(look.sun_colour) * (0.10 * near**12 + 0.35 * near**180 + 4.0 * (near > 0.9996))[:, None]
    return rgb


def turned(vector: np.ndarray, heading: float) -> np.ndarray:
    """A direction of the world at along 0, seen from the frame of a street that has turned by `-heading`."""
    return yaw(heading) @ vector


def surface(bodies: Bodies, hits: Hits, point: Tensor, direction: Tensor, pixel: float, rows: Tensor) -> Surface:
    """All that a material may ask about the points it colours."""
    solid, point, ray = (t.index_select(0, rows) for t in (hits.solid, point, direction))
    turn, half, quadric = (t.index_select(0, solid) for t in (bodies.turn, bodies.half, bodies.quadric))
    away = point - bodies.centre.index_select(0, solid)
    local = turn[:, 0] * away[:, :1] + turn[:, 1] * away[:, 1:2] + turn[:, 2] * away[:, 2:]
    round_ = bodies.sides.index_select(0, solid) == 0
    face = solid * bodies.planes.shape[1] + hits.face.index_select(0, rows)
    own = bodies.planes.view(-1, 4).index_select(0, face)[:, :3]
    cap = torch.zeros_like(round_)
    if bool(round_.any()):
        e, g = quadric[:, 0], quadric[:, 1]
        unit = local / half
        curved = torch.stack([unit[:, 0], e * unit[:, 1] - g, unit[:, 2]], 1)
        cap = round_ & (unit[:, 1].abs() > 0.998) & (e != 1)
        curved = torch.where(cap[:, None], torch.stack([0 * e, unit[:, 1].sign(), 0 * e], 1), curved) / half
        curved = curved / dot(curved, curved).sqrt().clamp_min(1e-9)[:, None]
        own = torch.where(round_[:, None], curved, own)
    normal = turn[:, :, 0] * own[:, :1] + turn[:, :, 1] * own[:, 1:2] + turn[:, :, 2] * own[:, 2:]
    facing = dot(normal, ray)
    normal = torch.where((facing > 0)[:, None], -normal, normal)
    return Surface(
        solid, local, half, own, normal, cap, bodies.colours.index_select(0, solid), bodies.traits.index_select(0, solid),
        hits.depth.index_select(0, rows) * pixel, (facing.abs() / dot(ray, ray).sqrt()).clamp_min(0.03), point, bodies.planes,
    )  # fmt: skip


def shade(scene: Street, view: View, bodies: Bodies, shadow: ShadowMap, hits: Hits, origin: Tensor, direction: Tensor,
          pixel: float) -> Tensor:  # fmt: skip
    """Linear RGB `[n, 3]` of rays from `origin [3]` along `direction [n, 3]`; `pixel` is a pixel's size at one metre."""
    look, count = scene.look, len(direction)
    unit = direction * dot(direction, direction).rsqrt()[:, None]
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
        for whole, part in ((albedo, paint.albedo), (normal, s.normal), (mirror, paint.mirror)):
            whole.index_copy_(0, rows, part)
        if paint.glow is not None:
            glow[rows] = paint.glow
        if kind in (LEAF, HEDGE):
            soft[rows] = 1
    rows = ((hits.solid < 0) & (hits.solid != NOTHING)).nonzero()[:, 0]
    albedo[rows], mirror[rows] = ground(
        scene, view, hits.solid[rows], point[rows], hits.depth[rows], pixel, float(-origin[1])
    )
    kerb = (hits.solid == KERB_HIT).nonzero()[:, 0]
    normal[kerb, 0], normal[kerb, 1] = -point[kerb, 0].sign() * 0.97, -0.24

    sun = colour(turned(look.sun, -view.heading))
    slant = normal @ sun
    slant = torch.where(soft > 0, (0.45 + 0.55 * slant).clamp_min(0.08), slant.clamp_min(0))
    # points are lifted off walls by about a cell of the shadow map, else walls shade themselves in stripes
    off = (0.15 + 0.02 * point[:, 2].abs()) * (1 - soft)
    at = point + normal * torch.stack([off, 0.06 * (1 - soft), off], 1)
    light = torch.zeros(count)
    lit = ((slant > 0) & hits.depth.isfinite()).nonzero()[:, 0]
    x, y, z = at.index_select(0, lit).unbind(1)
    reach = sunlit(shadow, x, 0.35 * soft.index_select(0, lit) - y, z, look.softness)
    light[lit] = slant.index_select(0, lit) * reach
    above = 0.5 - 0.5 * normal[:, 1]
    low = (-point[:, 1] / 2.5).clamp(0, 1)
    open_sky = (0.62 + 0.38 * low) * (0.55 + 0.45 * above)
    ambient = (colour(look.sky_colour) * 0.45 + colour(look.horizon) * 0.42) * (0.95 if look.overcast else 0.56)
    bounce = colour(look.sun_colour) * 0.035
    rgb = albedo * (light[:, None] * colour(look.sun_colour) + open_sky[:, None] * ambient + bounce)
    shiny = (mirror > 0).nonzero()[:, 0]
    if len(shiny):
        n, d = normal[shiny], unit[shiny]
        facing = dot(n, d)[:, None]
        bounced = d - 2 * facing * n
        # houses and trees are mirrored up to some height, the road below
        skyline = 0.30 + 0.10 * torch.sin(9 * bounced[:, :1] + 5 * bounced[:, 2:])
        seen = sky(look, bounced, clouds=False) * (0.10 + 0.75 * ((-bounced[:, 1:2] - skyline) * 6 + 0.5).clamp(0, 1))
        spark = ((bounced @ sun).clamp_min(0) ** 90 * 2.5 * light[shiny])[:, None] * colour(look.sun_colour)
        fresnel = mirror[shiny, None] + (1 - mirror[shiny, None]) * (1 + facing).clamp(0, 1) ** 5 * (
            mirror[shiny, None] * 8
        ).clamp_max(1)
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
    value = (1 - (-1.35 * value).exp()).clamp_min(1e-5) ** (1 / 2.2)
    value = value + 0.45 * (value * value * (3 - 2 * value) - value)
    value = value + look.noise * torch.randn(h, w, 3, generator=generator)
    return value.clamp(0, 1).permute(2, 0, 1).contiguous()
