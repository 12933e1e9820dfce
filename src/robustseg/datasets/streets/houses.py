"""Buildings: the box with the painted facade, its roof, and what sticks out of it.

A house stands at the origin; its front looks along -x (towards a street on its left) and runs along z.
"""

import numpy as np

from robustseg.datasets.streets.objects import BUILDING, choice
from robustseg.datasets.streets.shapes import FACADE, METAL, PLAIN, ROOF, Builder, Solids

PLASTERS = (
    (0.62, 0.58, 0.50), (0.70, 0.68, 0.64), (0.55, 0.45, 0.30), (0.60, 0.50, 0.40), (0.45, 0.33, 0.25), (0.50, 0.52, 0.50),
    (0.62, 0.48, 0.24), (0.48, 0.24, 0.18), (0.35, 0.42, 0.45), (0.65, 0.60, 0.42),
)  # fmt: skip
BRICKS = (
    (0.30, 0.12, 0.08),
    (0.36, 0.18, 0.11),
    (0.24, 0.11, 0.08),
    (0.42, 0.30, 0.19),
    (0.33, 0.22, 0.16),
    (0.18, 0.12, 0.10),
)
TILES = ((0.26, 0.10, 0.06), (0.10, 0.10, 0.11), (0.17, 0.09, 0.06), (0.07, 0.075, 0.08), (0.22, 0.14, 0.10))
FRAMES = (
    (0.75, 0.75, 0.73),
    (0.75, 0.75, 0.73),
    (0.65, 0.62, 0.55),
    (0.08, 0.07, 0.06),
    (0.16, 0.09, 0.05),
    (0.05, 0.12, 0.09),
)
FRONTS = (
    (0.45, 0.03, 0.03), (0.03, 0.10, 0.35), (0.02, 0.16, 0.08), (0.04, 0.04, 0.04), (0.60, 0.45, 0.06), (0.65, 0.65, 0.62),
    (0.25, 0.06, 0.22), (0.05, 0.28, 0.33), (0.55, 0.22, 0.03),
)  # fmt: skip
PLASTER, BRICK, MODERN = 0, 1, 2
DOORS, SHOP, SAME = 0, 1, 2


def house(rng: np.random.Generator, *, front: float, deep: float, style: str) -> Solids:
    """A house of a `style` ('city', 'suburb', 'modern'), `front` metres along the street and `deep` metres back."""
    suburb = style == "suburb"
    modern = style == "modern" and rng.random() < 0.6
    walls = MODERN if modern else BRICK if rng.random() < (0.55 if suburb else 0.4) else PLASTER
    storeys = int(rng.integers(2, 4) if suburb else rng.integers(4, 11) if modern else rng.integers(3, 7))
    storey = rng.uniform(2.7, 3.1) if suburb else rng.uniform(2.9, 3.6)
    ground = DOORS if suburb else SHOP if rng.random() < 0.6 else (SAME if modern else DOORS)
    ground_height = storey + (rng.uniform(0.4, 1.0) if ground == SHOP else 0.25)
    height = ground_height + storey * (storeys - 1) + rng.uniform(0.25, 0.8)
    wall = choice(rng, BRICKS if walls == BRICK else PLASTERS)
    if walls == MODERN:
        wall = np.array([0.4, 0.41, 0.42]) * rng.uniform(0.3, 1.5) * rng.uniform(0.9, 1.1, 3)
    trim, accent = choice(rng, FRAMES), choice(rng, FRONTS)
    bay = front / max(2, round(front / rng.uniform(2.0, 3.4)))
    window = rng.uniform(0.72, 0.94) if walls == MODERN else rng.uniform(0.36, 0.56)
    tall = rng.uniform(0.55, 0.8) if walls == MODERN else rng.uniform(0.45, 0.62)
    traits = (storey, bay, window, tall, rng.random(), ground, walls, height, ground_height, rng.random())
    build = Builder()
    build.box((0, height / 2, 0), (deep, height, front), BUILDING, FACADE, (wall, trim, accent), traits)
    if suburb or (not modern and rng.random() < 0.45):
        _pitched_roof(build, rng, front, deep, height, wall)
    else:
        edge = wall * rng.uniform(0.6, 1.1) if modern else np.minimum(wall * 1.2, 0.75)
        out = rng.uniform(0.05, 0.35)
        build.box(
            (0, height + 0.1, 0),
            (deep + out, rng.uniform(0.25, 0.5), front + min(out, 0.1)),
            BUILDING,
            PLAIN,
            (edge,),
            (1.0,),
        )
        if rng.random() < 0.6:
            size = (deep * 0.3, rng.uniform(1.5, 3.0), front * 0.3)
            build.box(
                (0.1 * deep, height + 1.2, rng.uniform(-0.2, 0.2) * front), size, BUILDING, PLAIN, (wall * 0.7,), (1.0,)
            )
    _front_things(build, rng, front, deep, height, ground, ground_height, storey, storeys, bay, (wall, trim, accent))
    return build.solids()


def _pitched_roof(
    build: Builder, rng: np.random.Generator, front: float, deep: float, height: float, wall: np.ndarray
) -> None:
    rise, tile = deep * rng.uniform(0.26, 0.42), choice(rng, TILES)
    wide, seed = deep / 2 + 0.35, rng.random()
    across = rng.random() < 0.25  # the gable looks at the street
    w, length = (front / 2 + 0.05, deep + 0.4) if across else (wide, front + 0.1)
    size = (deep + 0.4, rise, front + 0.1) if across else (2 * wide, rise, length)
    d = w * rise / 2
    cuts = [(0, w, s * rise, d) if across else (s * rise, w, 0, d) for s in (-1, 1)]
    build.hull((0, height + rise / 2, 0), size, cuts, BUILDING, ROOF, (tile, wall * 0.9, tile), (float(across), seed))
    for side in (-1, 1):
        if rng.random() < 0.6:
            at = (rng.uniform(-0.05, 0.05) * deep, height + rise + 0.2, side * front * rng.uniform(0.2, 0.42))
            build.box(at, (0.6, 1.8, 0.9), BUILDING, PLAIN, (choice(rng, BRICKS),), (1.0,))
    if not across and rng.random() < 0.5:
        for z in np.linspace(-0.3, 0.3, 1 + int(front > 8)) * front:
            dormer = (-deep * 0.27, height + rise * 0.36, z)
            traits = (1.5, 1.6, 0.6, 0.65, rng.random(), 2, 0, 1.5, 1.5, 0.5)
            build.box(
                dormer, (deep * 0.3, 1.5, 1.6), BUILDING, FACADE, (np.minimum(wall * 1.1, 0.7), FRAMES[0], wall), traits
            )
            build.box((dormer[0], dormer[1] + 0.8, z), (deep * 0.32, 0.14, 1.9), BUILDING, PLAIN, (tile,))


def _front_things(build, rng, front, deep, height, ground, ground_height, storey, storeys, bay, colours) -> None:  # type: ignore[no-untyped-def]
    """Awnings, balconies, bay windows, steps, gutters: what makes a front more than paint."""
    wall, trim, accent = colours
    face = -deep / 2
    if ground == SHOP and rng.random() < 0.6:
        out = rng.uniform(0.7, 1.3)
        cuts = [(-0.45, out, 0, 0.0)]
        build.hull((face - out / 2, ground_height - 0.75, 0), (out, 0.45, front * 0.9), [(-0.45, out, 0, 0.02 * out)], BUILDING,
                   PLAIN, (accent, accent * 0.6 + 0.2), (2.0,)) if cuts else None  # fmt: skip
    if ground == SHOP and rng.random() < 0.5:
        build.box(
            (face - 0.55, ground_height + 0.2, rng.uniform(-0.3, 0.3) * front),
            (0.9, 0.7, 0.12),
            BUILDING,
            PLAIN,
            (choice(rng, FRONTS),),
            (1.0,),
        )
    if storeys > 2 and rng.random() < 0.4:
        for level in range(1, storeys):
            for z in (np.arange(-front / 2 + 1.5 * bay, front / 2 - bay, 2 * bay)) if front > 4 * bay else (0.0,):
                floor = ground_height + storey * (level - 1)
                build.box(
                    (face - 0.5, floor + 0.05, z),
                    (1.0, 0.14, bay * 1.05),
                    BUILDING,
                    PLAIN,
                    (np.minimum(wall * 1.1, 0.7),),
                    (1.0,),
                )
                build.box(
                    (face - 0.98, floor + 0.55, z), (0.05, 0.9, bay * 1.05), BUILDING, PLAIN, (trim * 0.5,), (3.0,)
                )
    if ground == DOORS and rng.random() < 0.4:
        tall = ground_height + storey * (0 if storeys < 2 or rng.random() < 0.4 else 0.9)
        cuts = [(-1, 0, s, 0.45 + 0.9) for s in (-1, 1)]
        z = rng.uniform(-0.2, 0.25) * front
        traits = (storey, 1.35, 0.7, 0.6, rng.random(), 2, 0, tall, ground_height, 0.5)
        build.hull(
            (face - 0.4, tall / 2, z),
            (0.9, tall, 2.3),
            cuts,
            BUILDING,
            FACADE,
            (np.minimum(wall * 1.15, 0.7), trim, accent),
            traits,
        )
        build.hull((face - 0.42, tall + 0.1, z), (1.05, 0.22, 2.5), cuts, BUILDING, PLAIN, (trim * 0.8,))
    if rng.random() < 0.6:
        z = front / 2 - 0.15
        build.tube((face - 0.06, 0, z), (face - 0.06, height, z), 0.06, BUILDING, METAL, (trim * 0.6,))
