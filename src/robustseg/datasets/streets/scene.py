"""What stands where: a street drawn from (seed, scene), and what the camera meets at a frame.

Places in a street are (lateral, along): metres to the right of its middle and metres along it. The street bends with a
constant curvature; the world of a frame is the tangent frame at the camera's `along`, x right, y down, z forward, the
road at y = 0. Blocks of houses are drawn one by one from their number, so a frame costs the same wherever it lies, and
does not depend on the frames before it.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from robustseg.datasets.streets import objects
from robustseg.datasets.streets.houses import house
from robustseg.datasets.streets.look import Look, draw_look
from robustseg.datasets.streets.shapes import Solids, yaw

FRAMES_PER_SECOND = 10
FAR = 230.0
"""How far (metres) along the street things are built."""
KERB = 0.13
"""Height of the pavement over the road, metres."""


class View(NamedTuple):
    """What one frame needs: solids and camera in the world of the frame."""

    solids: Solids
    camera: np.ndarray  # [4, 4] world from camera
    along: float
    heading: float  # of the street here against the street at along 0
    crossings: tuple[tuple[float, float, bool, bool], ...]  # (start, end, left, right), along


@dataclass(frozen=True)
class Street:
    """The draws that hold for a whole scene."""

    key: tuple[int, int]
    style: str
    curvature: float  # 1 / metres, positive to the right
    side: int  # +1 drive on the right, -1 on the left
    lane: float  # width of a lane
    parking: tuple[bool, bool]  # left, right
    pavement: float
    block: float
    speed: float
    start: float
    camera_height: float
    pitch: float
    field_of_view: float  # horizontal, radians
    sway: float
    green: np.ndarray
    trees: float
    people: float
    traffic: float
    look: Look

    @property
    def half(self) -> tuple[float, float]:
        """Width of the road to the left and to the right of its middle."""
        left, right = (self.lane + 2.1 * p for p in self.parking)
        return left, right

    def rng(self, *purpose: int) -> np.random.Generator:
        """Random numbers for one purpose within the scene."""
        return np.random.default_rng([*self.key, *(p + 1_000_000 for p in purpose)])

    def bend(self, lateral: float, ahead: float) -> tuple[float, float, float]:
        """A place `ahead` of a point of the street, as (x, z, heading) in the tangent frame of that point."""
        k = self.curvature
        return (1 - (1 - k * lateral) * np.cos(k * ahead)) / k, (1 - k * lateral) * np.sin(k * ahead) / k, k * ahead

    def travelled(self, frame: float) -> float:
        """Where along the street the camera is at a frame."""
        t = frame / FRAMES_PER_SECOND
        return self.start + self.speed * t + 0.6 * np.sin(0.5 * t + self.start)

    def camera(self, frame: int) -> np.ndarray:
        """The camera in the tangent frame at `travelled(frame)`: `[4, 4]`, world from camera."""
        t = frame / FRAMES_PER_SECOND
        lateral = self.side * self.lane * 0.5 + self.sway * np.sin(0.7 * t + self.start)
        turn = 0.02 * np.sin(0.9 * t + 2 * self.start) + self.sway * 0.06 * np.cos(0.7 * t + self.start)
        pitch = self.pitch + 0.003 * np.sin(3.1 * t + self.start)
        c, s = np.cos(pitch), np.sin(pitch)
        pose = np.eye(4)
        pose[:3, :3] = yaw(turn) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
        pose[:3, 3] = lateral, -self.camera_height + 0.01 * np.sin(5 * t), 0
        return pose

    def pose(self, frame: int, other: int) -> np.ndarray:
        """`[4, 4]`: maps points of the camera at `frame` to the camera at `other`."""
        x, z, heading = self.bend(0, self.travelled(frame) - self.travelled(other))
        shift = np.eye(4)
        shift[:3, :3], shift[:3, 3] = yaw(heading), (x, 0, z)
        return np.linalg.inv(self.camera(other)) @ shift @ self.camera(frame)

    def view(self, frame: int) -> View:
        """Everything in sight at a frame."""
        along = self.travelled(frame)
        near = []
        for b in range(int((along - 25) // self.block), int((along + FAR) // self.block) + 1):
            x, z, heading = self.bend(0, b * self.block - along)
            near.append(_block(self.key, b).moved(yaw(heading), np.array([x, 0, z])))
        near.extend(_moving(self, frame, along))
        crossings = tuple(
            (b * self.block, b * self.block + width, left, right)
            for b in range(int((along - 40) // self.block), int((along + FAR) // self.block) + 1)
            for width, left, right in [crossing(self, b)]
            if width > 0
        )
        return View(Solids.join(near), self.camera(frame), along, self.curvature * along, crossings)


@functools.lru_cache(maxsize=8)
def street(seed: int, scene: int) -> Street:
    """Draw a street."""
    rng = np.random.default_rng([seed, scene])
    style = str(rng.choice(["city", "suburb", "modern"], p=[0.5, 0.3, 0.2]))
    curve = rng.uniform(1 / 700, 1 / 220) * rng.choice([-1, 1]) if rng.random() < 0.5 else 1e-5
    greens = (
        (0.09, 0.17, 0.03),
        (0.06, 0.13, 0.03),
        (0.12, 0.17, 0.04),
        (0.17, 0.16, 0.03),
        (0.30, 0.16, 0.03),
        (0.07, 0.15, 0.05),
    )
    green = np.array(greens[int(rng.choice(6, p=[0.28, 0.25, 0.2, 0.1, 0.07, 0.1]))])
    return Street(
        (seed, scene), style, curve, int(rng.choice([-1, 1])), rng.uniform(2.9, 3.7),
        (bool(rng.random() < 0.7), bool(rng.random() < 0.7)), rng.uniform(2.2, 4.5), rng.uniform(55, 80),
        rng.uniform(4, 10), rng.uniform(0, 200), rng.uniform(1.25, 1.7), rng.uniform(-0.01, 0.035),
        rng.uniform(0.95, 1.25), rng.uniform(0.05, 0.25), green, rng.uniform(0.2, 1.0), rng.uniform(0.4, 1.3), rng.uniform(0.3, 1.2),
        draw_look(rng),
    )  # fmt: skip


def crossing(scene: Street, number: int) -> tuple[float, bool, bool]:
    """The side street at the start of a block: its width (0: none), whether it opens to the left and to the right."""
    rng = scene.rng(1, number)
    width = rng.uniform(6.5, 9.5) if rng.random() < 0.6 else 0.0
    sides = ((True, True), (True, False), (False, True))[int(rng.integers(3))]
    return (width, *sides)


@functools.lru_cache(maxsize=48)
def _block(key: tuple[int, int], number: int) -> Solids:
    """All that stands in one block, in the tangent frame at its start."""
    scene = street(*key)
    rng = scene.rng(2, number)
    gap, *open_sides = crossing(scene, number)
    things: list[Solids] = []

    def put(thing: Solids, lateral: float, along: float, turn: float = 0.0, height: float = KERB) -> None:
        x, z, heading = scene.bend(lateral, along)
        things.append(thing.at(x, z, heading + turn, height=height))

    for index, sign in ((0, -1), (1, 1)):
        edge = scene.half[index]
        begin = gap + 1.0 if open_sides[index] and gap else 0.0
        _plots(scene, rng, sign, edge + scene.pavement, begin, put)
        _kerbside(scene, rng, sign, edge, begin, put)
        if scene.parking[index]:
            z = begin + 7 + rng.uniform(0, 3)
            while z < scene.block - 6:
                if rng.random() < 0.72:
                    kind = None if rng.random() < 0.93 else "van"
                    kind = kind or str(
                        rng.choice(["hatch", "saloon", "estate", "suv", "van"], p=[0.35, 0.27, 0.15, 0.15, 0.08])
                    )
                    put(
                        objects.car(rng, kind),
                        sign * (edge - 1.05 + rng.normal(0, 0.05)),
                        z,
                        np.pi * (sign != scene.side),
                        0,
                    )
                z += rng.uniform(5.2, 7.0)
    return Solids.join(things)


def _plots(scene: Street, rng: np.random.Generator, sign: int, line: float, begin: float, put) -> None:  # type: ignore[no-untyped-def]
    """Houses, gardens, fences and hedges along one side, and what is seen behind them."""
    suburb = scene.style == "suburb"
    side = 0.0 if sign > 0 else np.pi  # houses look along -x
    z = begin
    while z < scene.block - 4:
        front = min(rng.uniform(7, 12) if suburb else rng.uniform(8, 19), scene.block - z)
        if scene.block - z - front < 6:
            front = scene.block - z
        middle, deep, back = (
            z + front / 2,
            rng.uniform(9, 14),
            rng.uniform(3.5, 6.5) if suburb else rng.choice([0.0, 0.0, 0.4, 1.0]),
        )
        if rng.random() < (0.16 if suburb else 0.10):  # an empty plot
            put(objects.fence(rng, length=front - 0.1, kind=int(rng.integers(3))), sign * line, middle)
            for _ in range(3):
                put(
                    objects.tree(rng, green=scene.green), sign * (line + rng.uniform(2.5, 9)), z + rng.uniform(0, front)
                )
            put(house(rng, front=front + 4, deep=10, style=scene.style), sign * (line + 22), middle, side)
        else:
            free = rng.uniform(1.5, 4) if suburb else 0.0
            put(
                house(rng, front=front - free, deep=deep, style=scene.style),
                sign * (line + back + deep / 2),
                middle,
                side,
            )
            if suburb:
                barrier = rng.random()
                if barrier < 0.35:
                    put(
                        objects.hedge(rng, green=scene.green * 0.9, length=front * 0.75, height=rng.uniform(0.9, 1.7)),
                        sign * (line + 0.4),
                        middle - 0.1 * front,
                    )
                elif barrier < 0.8:
                    put(
                        objects.fence(rng, length=front * 0.8, kind=int(rng.integers(2))),
                        sign * (line + 0.1),
                        middle - 0.08 * front,
                    )
                if rng.random() < 0.45:
                    put(
                        objects.tree(rng, green=scene.green, tall=0.6),
                        sign * (line + back * 0.5),
                        z + rng.uniform(1, front - 1),
                    )
                if rng.random() < 0.5:
                    put(
                        objects.tree(rng, green=scene.green, tall=1.3),
                        sign * (line + back + deep + 4),
                        z + rng.uniform(0, front),
                    )
        z += front
    put(house(rng, front=22, deep=12, style=scene.style), sign * (line + 34), rng.uniform(10, scene.block - 10), side)
    if begin:  # the side street ends somewhere
        put(house(rng, front=14, deep=12, style=scene.style), sign * (line + rng.uniform(55, 80)), begin / 2, side)


def _kerbside(scene: Street, rng: np.random.Generator, sign: int, edge: float, begin: float, put) -> None:  # type: ignore[no-untyped-def]
    """Trees, lamps, signs, lights, bollards and bins near the kerb."""
    facing = 0.0 if sign == scene.side else np.pi
    row = edge + 0.75
    if rng.random() < scene.trees:
        step = rng.uniform(8, 14)
        for z in np.arange(begin + 5 + rng.uniform(0, 4), scene.block - 3, step):
            put(objects.tree(rng, green=scene.green, tall=0.95), sign * row, z)
    arm = 1.6 if rng.random() < 0.7 else 0.0
    tall = rng.uniform(6.5, 8.5) if arm else rng.uniform(3.6, 4.6)
    for z in np.arange(begin + 2.5 + 10 * (sign > 0), scene.block, 24.0):
        put(objects.lamp(rng, height=tall, arm=arm), sign * (edge + 0.45), z, np.pi if sign > 0 else 0.0)
    for _ in range(int(rng.integers(2, 5))):
        turn = facing + (np.pi if rng.random() < 0.25 else 0) + rng.normal(0, 0.12)
        put(objects.sign(rng), sign * (edge + 0.5), rng.uniform(begin + 1, scene.block - 1), turn)
    if begin and rng.random() < 0.5:
        put(objects.traffic_light(rng), sign * (edge + 0.4), begin + 0.5 if sign != scene.side else -0.6, facing)
    if rng.random() < 0.3:
        for z in np.arange(begin + 1, begin + 14, 1.6):
            put(objects.bollard(rng), sign * (edge + 0.3), z)
    if rng.random() < 0.25:
        z = rng.uniform(begin + 8, scene.block - 14)
        put(objects.fence(rng, length=rng.uniform(6, 12), kind=int(rng.integers(1, 3))), sign * (edge + 0.25), z + 6)
    for _ in range(int(rng.integers(0, 3))):
        put(
            objects.bin_(rng),
            sign * (edge + rng.uniform(0.5, scene.pavement - 0.6)),
            rng.uniform(begin + 1, scene.block - 1),
        )
    for _ in range(int(rng.poisson(1.6 * scene.people))):
        put(
            objects.person(rng),
            sign * (edge + rng.uniform(0.5, scene.pavement - 0.3)),
            rng.uniform(begin, scene.block),
            rng.uniform(0, 6.3),
        )


PHASES = 16


@functools.lru_cache(maxsize=512)
def _walker(key: tuple[int, ...], phase: int) -> Solids:
    return objects.person(np.random.default_rng(key), 2 * np.pi * phase / PHASES)


@functools.lru_cache(maxsize=512)
def _rider(key: tuple[int, ...], phase: int) -> Solids:
    return objects.cyclist(np.random.default_rng(key), 2 * np.pi * phase / PHASES)


@functools.lru_cache(maxsize=64)
def _vehicle(key: tuple[int, ...], kind: str | None = None) -> Solids:
    return objects.car(np.random.default_rng(key), kind)


def _moving(scene: Street, frame: int, along: float) -> list[Solids]:
    """Traffic, cyclists and walking people at a frame."""
    t = frame / FRAMES_PER_SECOND
    things: list[Solids] = []

    def put(thing: Solids, lateral: float, ahead: float, turn: float, height: float = 0.0) -> None:
        x, z, heading = scene.bend(lateral, ahead)
        things.append(thing.at(x, z, heading + turn, height=height, moving=True))

    rng, own = scene.rng(3), scene.side * scene.lane * 0.5
    # the queue ahead drives as the camera does
    ahead = rng.uniform(14, 40) / min(scene.traffic, 1.0)
    for i in range(int(rng.integers(1, 5))):
        put(
            _vehicle((*scene.key, 4, i), "hatch" if i == 0 else None),
            own + 0.1 * np.sin(0.5 * t + i),
            ahead + 1.5 * np.sin(0.3 * t + i),
            0.0,
        )
        ahead += rng.uniform(14, 45)
    # streams: (speed, spacing, lateral, turn)
    rider_lane = scene.lane - 0.4
    oncoming, riding, back_riding = rng.uniform(6, 11), rng.uniform(3.5, 5.5), rng.uniform(3.5, 5.5)
    streams = (
        (5, -oncoming, 34 / scene.traffic, -own * 0.9, np.pi),
        (6, riding, 48 / scene.people, scene.side * rider_lane, 0.0),
        (7, -back_riding, 55 / scene.people, -scene.side * rider_lane, np.pi),
    )
    for kind, speed, spacing, lateral, turn in streams:
        for k in range(int((along - 12 - speed * t) // spacing), int((along + FAR - speed * t) // spacing) + 1):
            draw = scene.rng(kind, k)
            place = (k + 0.7 * draw.random()) * spacing + speed * t - along
            if kind == 5:
                put(_vehicle((*scene.key, kind, k + 1_000_000)), lateral, place, turn)
            elif draw.random() < 0.75:
                phase = int((t * 1.3 + draw.random()) * PHASES) % PHASES
                put(_rider((*scene.key, kind, k + 1_000_000), phase), lateral + draw.normal(0, 0.1), place, turn)
    for b in range(int((along - 60) // scene.block), int((along + 110) // scene.block) + 1):
        _walkers(scene, b, t, along, put)
    return things


def _walkers(scene: Street, number: int, t: float, along: float, put) -> None:  # type: ignore[no-untyped-def]
    """People of one block who walk along the pavements, and one who crosses before the camera comes."""
    rng = scene.rng(8, number)
    for i in range(int(rng.poisson(4.5 * scene.people))):
        direction, right = rng.choice([-1, 1]), rng.random() < 0.5
        pace, shift, start = rng.uniform(1.0, 1.6), rng.random(), rng.uniform(0, scene.block)
        lateral = (1 if right else -1) * (scene.half[int(right)] + rng.uniform(0.9, scene.pavement - 0.3))
        place = number * scene.block + start + direction * pace * t - along
        if not -5 < place < 110:
            continue
        phase = int((t * pace * 0.75 + shift) * PHASES) % PHASES
        put(
            _walker((*scene.key, 9, number + 1_000_000, i), phase),
            lateral,
            place,
            0.0 if direction > 0 else np.pi,
            KERB,
        )
    width, *_ = crossing(scene, number)
    for i in range(int(rng.integers(0, 3)) if width else 0):
        place = number * scene.block - rng.uniform(1.5, 4.5) - along
        direction = rng.choice([-1, 1])
        share = np.clip((rng.uniform(45, 60) - place) / 38, 0, 1)  # crosses while the camera comes from 50 to 12 metres
        first, last = -scene.half[0] - 1, scene.half[1] + 1
        lateral = first + (last - first) * (share if direction > 0 else 1 - share)
        inside = 0 < share < 1
        phase = int((t * 1.1 + 0.3 * i) * PHASES) % PHASES if inside else 0
        height = KERB if lateral < -scene.half[0] or lateral > scene.half[1] else 0.0
        put(_walker((*scene.key, 10, number + 1_000_000, i), phase), lateral, place, direction * np.pi / 2, height)
