"""What stands and moves in a street: cars, people, cyclists, trees, lamps, signs, fences, bins. Each is a few solids.

Objects are built on the ground at the origin and face z (forward); metres; colours are linear RGB.
"""

from collections.abc import Sequence

import numpy as np

from robustseg.core.labels import IGNORE
from robustseg.datasets.streets.shapes import (
    BARK,
    CABIN,
    CLOTH,
    FENCE,
    HEDGE,
    LEAF,
    METAL,
    PAINT,
    PLAIN,
    RING,
    SIGN,
    WHEEL,
    Builder,
    Colour,
    Solids,
)

BUILDING, POLE, TREE, SIGN_LABEL, FENCE_LABEL, CAR, PEDESTRIAN, BICYCLIST = 1, 2, 5, 6, 7, 8, 9, 10

PAINTS = (
    (0.62, 0.63, 0.65), (0.40, 0.42, 0.45), (0.12, 0.13, 0.15), (0.03, 0.03, 0.035), (0.75, 0.75, 0.73), (0.45, 0.03, 0.03),
    (0.03, 0.08, 0.30), (0.05, 0.20, 0.40), (0.02, 0.12, 0.07), (0.40, 0.33, 0.22), (0.55, 0.20, 0.02), (0.20, 0.02, 0.05),
    (0.55, 0.45, 0.05), (0.25, 0.27, 0.30),
)  # fmt: skip
CLOTHES = (
    (0.03, 0.03, 0.04), (0.05, 0.07, 0.15), (0.10, 0.14, 0.30), (0.30, 0.04, 0.05), (0.55, 0.52, 0.48), (0.70, 0.70, 0.70),
    (0.12, 0.10, 0.07), (0.28, 0.20, 0.11), (0.05, 0.15, 0.08), (0.50, 0.30, 0.05), (0.14, 0.14, 0.15), (0.40, 0.12, 0.30),
    (0.60, 0.55, 0.10), (0.10, 0.30, 0.40),
)  # fmt: skip
SKINS = ((0.60, 0.36, 0.25), (0.50, 0.28, 0.18), (0.30, 0.15, 0.09), (0.14, 0.07, 0.04))
HAIRS = ((0.02, 0.015, 0.01), (0.08, 0.045, 0.02), (0.25, 0.16, 0.07), (0.35, 0.33, 0.31))


def choice(rng: np.random.Generator, many: Sequence[Colour]) -> np.ndarray:
    """One of some colours, a little lighter or darker."""
    return np.array(many[int(rng.integers(len(many)))]) * rng.uniform(0.8, 1.2)


def car(rng: np.random.Generator, kind: str | None = None) -> Solids:
    """A hatchback, saloon, estate, van or bus: body, cabin, wheels, mirrors; lights and doors are painted on."""
    kind = kind or str(
        rng.choice(["hatch", "saloon", "estate", "suv", "van", "bus"], p=[0.32, 0.28, 0.15, 0.14, 0.08, 0.03])
    )
    #        length width height belt  wheel  cabin front, rear base (z), slopes, hood drop, boot drop
    shape = {
        "hatch": (3.9, 1.70, 1.46, 0.93, 0.30, 0.85, -1.85, 0.85, 0.45, 0.26, 0.30),
        "saloon": (4.5, 1.78, 1.42, 0.91, 0.31, 0.80, -1.55, 0.90, 0.70, 0.24, 0.12),
        "estate": (4.6, 1.80, 1.47, 0.93, 0.32, 0.85, -2.20, 0.90, 0.30, 0.24, 0.35),
        "suv": (4.5, 1.88, 1.70, 1.06, 0.36, 0.85, -2.12, 0.75, 0.30, 0.24, 0.30),
        "van": (5.0, 1.95, 2.10, 1.20, 0.34, 1.75, -2.46, 0.70, 0.05, 0.35, 0.02),
        "bus": (10.5, 2.50, 3.00, 1.25, 0.46, 5.24, -5.24, 0.12, 0.05, 0.03, 0.03),
    }[kind]
    length, width, height, belt, wheel, front, rear, slope_front, slope_rear, hood, boot = shape
    grow = rng.uniform(0.95, 1.06) if kind != "bus" else 1.0
    length, front, rear = length * grow, front * grow, rear * grow
    paint = choice(rng, PAINTS)
    if kind == "bus":
        paint = choice(rng, ((0.55, 0.04, 0.03), (0.05, 0.15, 0.40), (0.60, 0.55, 0.45), (0.10, 0.30, 0.12)))
    if kind == "van" and rng.random() < 0.6:
        paint = np.array([0.7, 0.7, 0.7])
    build = Builder()
    low = 0.20 if kind != "bus" else 0.28
    half, b, w = length / 2, (belt - low) / 2, width / 2
    wheel_front, wheel_rear = half - 0.78 * grow, -half + 0.75 * grow
    if kind == "bus":
        wheel_front, wheel_rear = half - 2.4, -half + 2.9
    colours = (paint, paint * 0.8, (0.02, 0.02, 0.02))
    traits = (half, w, b, wheel_front, wheel_rear, wheel, (belt + low) / 2, rng.random(), float(kind == "bus"), low)
    corner = 0.16 if kind != "bus" else 0.08
    cuts: list[tuple[float, ...]] = [
        (0, half - front, hood, (half - front) * b + hood * front),
        (0, half + rear, -boot, (half + rear) * b - boot * rear) if half + rear > 0.05 else (0, 1, 0, b),
        *((sx, 0, sz * 0.5, w + 0.5 * half - corner) for sx in (-1, 1) for sz in (-1, 1)),
        *((sx, 0.22, 0, w + 0.02) for sx in (-1, 1)),
    ]
    build.hull((0, (belt + low) / 2, 0), (width, belt - low, length), cuts, CAR, PAINT, colours, traits)
    c, h, lean = (front - rear) / 2, (height - belt) / 2, 0.16 if kind not in ("van", "bus") else 0.06
    cw = w - 0.04
    cuts = [
        (0, slope_front, 2 * h, 2 * h * c - slope_front * h),
        (0, slope_rear, -2 * h, 2 * h * c - slope_rear * h),
        *((sx * 2 * h, lean, 0, 2 * h * cw - lean * h) for sx in (-1, 1)),
        *((sx, 1.6, 0, cw - lean + 1.6 * h - 0.10) for sx in (-1, 1)),
    ]
    glass = rng.uniform(0.012, 0.05)
    panel = float(kind == "van" and rng.random() < 0.7)
    build.hull((0, (belt + height) / 2 - 0.01, (front + rear) / 2), (2 * cw, height - belt, front - rear), cuts, CAR, CABIN,
               (paint, (glass, glass, glass * 1.1)), (half, cw, h, c, panel, rng.random(), float(kind == "bus")))  # fmt: skip
    for z in (wheel_front, wheel_rear):
        for side in (-1, 1):
            build.tube((side * (w - 0.22), wheel, z), (side * (w + 0.005), wheel, z), wheel, CAR, WHEEL,
                       ((0.012, 0.012, 0.013), (0.35, 0.36, 0.38)), (wheel, rng.random()))  # fmt: skip
    for side in (-1, 1):
        if kind != "bus":
            build.hull(
                (side * (w + 0.08), belt + 0.06, front - 0.35), (0.20, 0.14, 0.10), (), CAR, PLAIN, (paint * 0.7,)
            )
    # the dark underside keeps light from shining below the body
    build.box((0, low - 0.02, 0), (width - 0.3, 0.16, length - 0.5), CAR, PLAIN, ((0.01, 0.01, 0.01),))
    return build.solids()


def _limb(build: Builder, points: Sequence[Colour], radii: Sequence[float], label: int, colour: Colour) -> None:
    for a, b, r, s in zip(points, points[1:], radii, radii[1:], strict=False):
        build.tube(a, b, r, label, CLOTH, (colour,), (1.0,), top=s / r)
    for p, r in zip(points[1:-1], radii[1:-1], strict=True):
        build.ball(p, (r, r, r), label, CLOTH, (colour,), (1.0,))


def person(rng: np.random.Generator, phase: float | None = None) -> Solids:
    """A standing (no phase) or walking person; `phase` in radians goes round once every two steps."""
    k = rng.uniform(0.90, 1.06) * (0.72 if rng.random() < 0.1 else 1.0)
    wide = rng.uniform(0.9, 1.25)
    top, legs, skin, hair = (choice(rng, c) for c in (CLOTHES, CLOTHES[:8], SKINS, HAIRS))
    coat, skirt, bag, long_sleeves = rng.random() < 0.3, rng.random() < 0.2, rng.random() < 0.35, rng.random() < 0.75
    build, label = Builder(), PEDESTRIAN
    for side in (-1, 1):
        swing = 0.0 if phase is None else 0.48 * np.sin(phase) * side
        bend = 0.06 if phase is None else 0.35 * max(0.0, float(np.sin(phase * 1.0 - 1.2) * side)) + 0.08
        hip = np.array([side * 0.09 * wide, 0.93, 0]) * k
        knee = hip + np.array([0, -0.44 * np.cos(swing), 0.44 * np.sin(swing)]) * k
        ankle = knee + np.array([0, -0.42 * np.cos(swing - bend), 0.42 * np.sin(swing - bend)]) * k
        _limb(build, (hip, knee, ankle), (0.085 * k * wide, 0.058 * k, 0.043 * k), label, skin if skirt else legs)
        foot = ankle + np.array([0, -0.03, 0.06]) * k
        build.ball(foot, (0.045 * k, 0.045 * k, 0.12 * k), label, CLOTH, (legs * 0.25,))
        arm = 0.04 * side if phase is None else -0.42 * np.sin(phase) * side
        shoulder = np.array([side * 0.20 * wide, 1.43, 0]) * k
        elbow = shoulder + np.array([side * 0.06, -0.29 * np.cos(arm), 0.29 * np.sin(arm)]) * k
        hand = elbow + np.array([0.0, -0.25 * np.cos(arm + 0.3), 0.25 * np.sin(arm + 0.3)]) * k
        _limb(build, (shoulder, elbow), (0.058 * k, 0.045 * k), label, top)
        build.ball(elbow, (0.047 * k,) * 3, label, CLOTH, (top,))
        build.tube(elbow, hand, 0.043 * k, label, CLOTH, (top if long_sleeves else skin,), (1.0,), top=0.8)
        build.ball(hand, (0.04 * k, 0.055 * k, 0.045 * k), label, CLOTH, (skin,))
        build.ball(shoulder, (0.07 * k,) * 3, label, CLOTH, (top,))
    build.ball((0, 0.98 * k, 0), (0.165 * k * wide, 0.14 * k, 0.125 * k * wide), label, CLOTH, (top if coat else legs,))
    build.tube((0, 0.95 * k, 0), (0, 1.45 * k, 0), 0.155 * k * wide, label, CLOTH, (top,), (1.0,), top=1.15)
    build.ball((0, 1.43 * k, 0), (0.215 * k * wide, 0.09 * k, 0.115 * k * wide), label, CLOTH, (top,))
    if coat or skirt:
        build.tube(
            (0, 0.55 * k, 0),
            (0, 1.05 * k, 0),
            0.22 * k * wide,
            label,
            CLOTH,
            (top if coat else legs,),
            (1.0,),
            top=0.72,
        )
    build.tube((0, 1.44 * k, 0), (0, 1.58 * k, 0.01), 0.055 * k, label, CLOTH, (skin,))
    build.ball((0, 1.63 * k, 0.02 * k), (0.078 * k, 0.115 * k, 0.095 * k), label, CLOTH, (skin,))
    build.ball((0, 1.665 * k, -0.012 * k), (0.09 * k, 0.10 * k, 0.10 * k), label, CLOTH, (hair,))
    if bag:
        side = rng.choice([-1, 1])
        at = (side * 0.28 * k, 0.95 * k, 0) if rng.random() < 0.5 else (0, 1.25 * k, -0.2 * k)
        build.hull(at, (0.26 * k, 0.36 * k, 0.16 * k), (), label, CLOTH, (choice(rng, CLOTHES),), (1.0,))
    return build.solids()


def cyclist(rng: np.random.Generator, phase: float = 0.0) -> Solids:
    """A person on a bicycle; `phase` turns the cranks."""
    top, legs, skin, frame = (choice(rng, c) for c in (CLOTHES, CLOTHES[:8], SKINS, PAINTS))
    build, label = Builder(), BICYCLIST
    for z in (-0.52, 0.52):
        build.tube(
            (-0.018, 0.34, z), (0.018, 0.34, z), 0.34, label, RING, ((0.015, 0.015, 0.015), (0.4, 0.4, 0.4)), (0.34,)
        )
    hub, seat, head, rear, fork = (0, 0.30, -0.05), (0, 0.92, -0.22), (0, 0.88, 0.36), (0, 0.34, -0.52), (0, 0.34, 0.52)
    for a, b in (
        (hub, seat),
        (hub, head),
        ((0, 0.82, -0.19), head),
        (hub, rear),
        (rear, (0, 0.8, -0.18)),
        (head, fork),
    ):
        build.tube(a, b, 0.022, label, METAL, (frame,))
    bar = (0, 1.0, 0.34)
    build.tube((-0.26, 1.0, 0.30), (0.26, 1.0, 0.30), 0.018, label, METAL, ((0.05, 0.05, 0.05),))
    build.ball((0, 0.95, -0.24), (0.08, 0.04, 0.14), label, CLOTH, ((0.02, 0.02, 0.02),))
    for side, turn in ((-1, phase), (1, phase + np.pi)):
        pedal = np.array([side * 0.11, 0.30 + 0.17 * np.cos(turn), -0.05 + 0.17 * np.sin(turn)])
        hip = np.array([side * 0.09, 0.98, -0.20])
        reach = pedal + np.array([0, 0.06, -0.04]) - hip
        middle, span = hip + reach / 2, float(np.linalg.norm(reach))
        forward = np.array([0, -reach[2], reach[1]]) / span
        forward = forward if forward[2] > 0 else -forward
        knee = middle + forward * np.sqrt(max(0.43**2 - span**2 / 4, 1e-3))
        _limb(build, (hip, knee, hip + reach), (0.088, 0.06, 0.045), label, legs)
        build.ball(pedal + np.array([0, 0.04, 0.03]), (0.045, 0.045, 0.12), label, CLOTH, (legs * 0.3,))
        shoulder = np.array([side * 0.19, 1.46, 0.08])
        _limb(
            build, (shoulder, (side * 0.25, 1.20, 0.16), (side * 0.24, 1.02, 0.31)), (0.058, 0.045, 0.036), label, top
        )
        build.ball(shoulder, (0.07, 0.07, 0.07), label, CLOTH, (top,))
    build.tube((0, 0.95, -0.22), (0, 1.48, 0.06), 0.16, label, CLOTH, (top,), (1.0,), top=1.2)
    build.ball((0, 0.98, -0.21), (0.165, 0.13, 0.15), label, CLOTH, (legs,))
    build.ball((0, 1.47, 0.06), (0.21, 0.09, 0.12), label, CLOTH, (top,))
    build.tube((0, 1.48, 0.07), (0, 1.62, 0.12), 0.055, label, CLOTH, (skin,))
    build.ball((0, 1.68, 0.15), (0.08, 0.115, 0.095), label, CLOTH, (skin,))
    helmet = choice(rng, PAINTS) if rng.random() < 0.6 else choice(rng, HAIRS)
    build.ball((0, 1.735, 0.13), (0.10, 0.09, 0.125), label, CLOTH, (helmet,))
    build.ball(bar, (0.05, 0.03, 0.05), label, METAL, ((0.1, 0.1, 0.1),))
    return build.solids()


def tree(rng: np.random.Generator, *, green: np.ndarray, tall: float = 1.0) -> Solids:
    """A broad-leaved tree with a crown of many leafy balls, now and then a conifer or a poplar."""
    build = Builder()
    bark = np.array([0.09, 0.065, 0.045]) * rng.uniform(0.7, 1.5)
    green = green * rng.uniform(0.75, 1.3) * rng.uniform(0.85, 1.15, 3)
    seed = rng.random()
    kind = rng.random()
    if kind < 0.10:
        height, radius = rng.uniform(6, 11) * tall, rng.uniform(1.6, 2.3)
        build.tube((0, 0, 0), (0, height * 0.8, 0), 0.16, TREE, BARK, (bark,), top=0.3)
        for i in range(5):
            low = height * (0.10 + 0.17 * i)
            r = radius * (1 - 0.17 * i)
            build.tube((0, low, 0), (0, low + height * 0.30, 0), r, TREE, LEAF, (green * 0.55, green), (0.075, seed + i, 0.38),
                       top=0.12)  # fmt: skip
        return build.solids()
    height = rng.uniform(5.0, 9.5) * tall
    clear = rng.uniform(0.26, 0.38) * height
    radius = rng.uniform(0.24, 0.38) * height * (0.45 if kind < 0.18 else 1.0)
    stem = rng.uniform(0.022, 0.03) * height
    build.tube((0, 0, 0), (rng.normal(0, 0.1), clear * 1.25, rng.normal(0, 0.1)), stem, TREE, BARK, (bark,), top=0.7)
    middle = np.array([0, (clear + height) / 2, 0])
    extent = np.array([radius, (height - clear) / 2, radius])
    build.ball(middle, extent * 0.66, TREE, LEAF, (green * 0.7, green), (0.10, seed, 0.2))
    blobs = 9
    for i in range(blobs):
        angle, level = 2.4 * i + rng.uniform(-0.4, 0.4), -0.75 + 1.6 * (i + 0.5) / blobs
        out = np.sqrt(max(0.15, 1 - level * level)) * rng.uniform(0.52, 0.72)
        at = middle + extent * np.array([out * np.cos(angle), level * 0.68, out * np.sin(angle)])
        size = extent.mean() * rng.uniform(0.36, 0.54)
        build.ball(at, (size * 1.1, size * rng.uniform(0.75, 0.95), size * 1.1), TREE, LEAF, (green * 0.7, green),
                   (0.085, seed + 0.1 * i, 0.5))  # fmt: skip
        if i % 3 == 0:
            build.tube((0, clear * 1.05, 0), at, stem * 0.5, TREE, BARK, (bark,), top=0.4)
    return build.solids()


def hedge(rng: np.random.Generator, *, green: np.ndarray, length: float, height: float) -> Solids:
    """A clipped hedge along z."""
    build = Builder()
    cuts = [(sx, 1.5, 0, 0.35 + 0.75 * height - 0.18) for sx in (-1, 1)]
    build.hull((0, height / 2, 0), (0.7, height, length), cuts, TREE, HEDGE, (green * 0.5, green), (0.07, rng.random()))
    return build.solids()


def lamp(rng: np.random.Generator, *, height: float, arm: float) -> Solids:
    """A street lamp; the arm reaches to the right (x)."""
    build = Builder()
    steel = np.array([0.16, 0.17, 0.17]) * rng.uniform(0.4, 1.6)
    build.tube((0, 0, 0), (0, 1.1, 0), 0.13, POLE, METAL, (steel,), top=0.8)
    build.tube((0, 1.0, 0), (0, height, 0), 0.085, POLE, METAL, (steel,), top=0.6)
    if arm > 0:
        build.tube((0, height - 0.15, 0), (arm, height + 0.25, 0), 0.05, POLE, METAL, (steel,), top=0.8)
        build.hull((arm, height + 0.22, 0), (0.7, 0.16, 0.28), (), POLE, PLAIN, (steel * 1.2,))
    else:
        build.tube((0, height, 0), (0, height + 0.55, 0), 0.16, POLE, PLAIN, ((0.7, 0.7, 0.65),), top=1.5)
        build.tube((0, height + 0.55, 0), (0, height + 0.7, 0), 0.28, POLE, METAL, (steel,), top=0.3)
    return build.solids()


def sign(rng: np.random.Generator) -> Solids:
    """A traffic sign on its post: round, triangular, square or a board; it faces against z (towards the driver)."""
    build = Builder()
    steel = (0.30, 0.31, 0.32)
    kind = int(rng.integers(5))
    top = rng.uniform(2.1, 2.7)
    red, blue, white = (0.55, 0.02, 0.03), (0.02, 0.10, 0.45), (0.75, 0.75, 0.75)
    if kind == 4:
        size = (rng.uniform(1.3, 2.0), rng.uniform(0.8, 1.2))
        for x in (-0.4, 0.4):
            build.tube((x, 0, 0), (x, top, 0), 0.045, POLE, METAL, (steel,))
        face = ((0.02, 0.13, 0.30), white) if rng.random() < 0.6 else ((0.02, 0.22, 0.10), white)
        build.box((0, top, -0.05), (*size, 0.04), SIGN_LABEL, SIGN, (*face, white), (4, rng.random(), *size))
        return build.solids()
    build.tube((0, 0, 0), (0, top + 0.3, 0), 0.035, POLE, METAL, (steel,))
    r = rng.uniform(0.30, 0.38)
    colours = (white, red, (0.02, 0.02, 0.02)) if rng.random() < 0.6 else (blue, white, white)
    if kind in (0, 1):
        build.tube((0, top, -0.075), (0, top, -0.045), r, SIGN_LABEL, SIGN, colours, (0, rng.random(), r, r))
    elif kind == 2:
        cuts = [(sx * 1.73, 1, 0, 0.9 * r) for sx in (-1, 1)]
        build.hull((0, top, -0.06), (2 * r, 1.8 * r, 0.03), cuts, SIGN_LABEL, SIGN, (white, red, (0.02, 0.02, 0.02)),
                   (2, rng.random(), r, 0.9 * r))  # fmt: skip
    else:
        build.box(
            (0, top, -0.06), (1.7 * r, 1.7 * r, 0.03), SIGN_LABEL, SIGN, (blue, white, white), (3, rng.random(), r, r)
        )
    if rng.random() < 0.3:
        build.box(
            (0, top - r - 0.22, -0.06),
            (1.6 * r, 0.26, 0.03),
            SIGN_LABEL,
            SIGN,
            (white, (0.02, 0.02, 0.02)),
            (4, rng.random(), r, 0.13),
        )
    return build.solids()


def traffic_light(rng: np.random.Generator) -> Solids:
    """A traffic light on its post; it faces against z."""
    build = Builder()
    build.tube((0, 0, 0), (0, 2.6, 0), 0.06, POLE, METAL, ((0.05, 0.05, 0.05),))
    build.box((0, 2.75, -0.08), (0.34, 0.95, 0.24), SIGN_LABEL, SIGN, ((0.015, 0.015, 0.015), (0.02, 0.02, 0.02)),
              (5, float(rng.integers(3)) / 3 + 0.1, 0.17, 0.47))  # fmt: skip
    return build.solids()


def fence(rng: np.random.Generator, *, length: float, kind: int) -> Solids:
    """A fence along z: wooden boards, iron bars on a low wall, or wire mesh between posts."""
    build = Builder()
    height = (rng.uniform(1.3, 1.9), rng.uniform(0.9, 1.3), rng.uniform(1.5, 2.2))[kind]
    wood = choice(rng, ((0.20, 0.12, 0.06), (0.30, 0.22, 0.14), (0.10, 0.14, 0.09), (0.55, 0.54, 0.5)))
    iron = choice(rng, ((0.02, 0.02, 0.02), (0.02, 0.06, 0.03), (0.25, 0.26, 0.27)))
    base = 0.35 if kind == 1 else 0.05
    colours = ((wood, wood * 0.3), (iron, iron * 0.6), (np.array([0.22, 0.25, 0.22]), iron))[kind]
    build.box((0, (base + height) / 2, 0), (0.05, height - base, length), FENCE_LABEL, FENCE, colours,
              (kind, rng.random(), height - base))  # fmt: skip
    if kind == 1:
        build.box((0, base / 2, 0), (0.25, base, length), FENCE_LABEL, PLAIN, ((0.28, 0.24, 0.2),), (1.0,))
    for z in np.arange(-length / 2, length / 2 + 0.1, 2.5):
        build.box((0, height / 2, z), (0.12, height + 0.12, 0.12), FENCE_LABEL, PLAIN, (colours[0] * 0.8,), (1.0,))
    return build.solids()


def bin_(rng: np.random.Generator) -> Solids:
    """A wheelie bin or post box: a thing that no class names (void)."""
    build = Builder()
    colour = choice(rng, ((0.02, 0.02, 0.02), (0.02, 0.10, 0.04), (0.45, 0.02, 0.02), (0.03, 0.06, 0.2)))
    build.hull((0, 0.5, 0), (0.55, 1.0, 0.6), (), IGNORE, PLAIN, (colour,), (1.0,))
    build.hull((0, 1.04, 0), (0.6, 0.1, 0.66), (), IGNORE, PLAIN, (colour * 0.7,), (1.0,))
    return build.solids()


def bollard(rng: np.random.Generator) -> Solids:
    """A short post at the kerb."""
    build = Builder()
    colour = choice(rng, ((0.02, 0.02, 0.02), (0.3, 0.3, 0.3), (0.5, 0.45, 0.4)))
    build.tube((0, 0, 0), (0, 0.95, 0), 0.075, POLE, METAL, (colour,), top=0.9)
    build.ball((0, 0.97, 0), (0.085, 0.07, 0.085), POLE, METAL, (colour,))
    return build.solids()
