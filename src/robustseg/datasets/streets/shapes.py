"""Solids: the convex bodies of which everything that stands in a street is built.

A solid is a convex polyhedron (a list of planes) or a convex quadric (ellipsoid, straight or tapered tube) in a local
frame. Many of them are kept as one set of arrays, so that a whole street is met by rays at once. World axes as the
camera's: x right, y down, z forward; builders take heights, up is positive.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

PLANES = 14
"""The most planes of a polyhedron."""
TRAITS = 10
"""How many numbers a material may keep about its solid."""

(SKY, ROAD, PAVEMENT, FACADE, ROOF, LEAF, BARK, PAINT, CABIN, WHEEL, SIGN, CLOTH, FENCE, METAL, PLAIN, RING, HEDGE) = (
    range(17)
)
"""Materials; `shading` has one function for each family."""

Colour = Sequence[float] | np.ndarray
"""Three numbers: a linear RGB colour, or a place (x, height, z)."""


@dataclass(frozen=True)
class Solids:
    """Arrays over n solids.

    Args:
        centre: `[n, 3]`. turn: `[n, 3, 3]`, columns are the local axes. half: `[n, 3]`, half sizes of the bounding box.
        planes: `[n, PLANES, 4]`, inside where `normal . local <= distance`, local in metres; unused ones are (0, 0, 0, 1).
        sides: `[n]`, how many planes are used; 0 for a quadric.
        quadric: `[n, 3]` = (e, g, h) of `x^2 + z^2 + e y^2 - 2 g y <= h`, |y| <= 1, local in units of `half`.
        label, material: `[n]`. colours: `[n, 3, 3]` linear RGB. traits: `[n, TRAITS]`. moving: `[n]`.
    """

    centre: np.ndarray
    turn: np.ndarray
    half: np.ndarray
    planes: np.ndarray
    sides: np.ndarray
    quadric: np.ndarray
    label: np.ndarray
    material: np.ndarray
    colours: np.ndarray
    traits: np.ndarray
    moving: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    @classmethod
    def join(cls, many: Sequence["Solids"]) -> "Solids":
        """All solids of all sets."""
        return cls(**{f.name: np.concatenate([getattr(s, f.name) for s in many]) for f in fields(cls)})

    def where(self, mask: np.ndarray) -> "Solids":
        """The solids that a mask or an index array picks."""
        return Solids(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})

    def moved(self, turn: np.ndarray, shift: np.ndarray, moving: bool | None = None) -> "Solids":
        """All solids turned, then shifted."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        parts["centre"] = (self.centre @ turn.T + shift).astype(np.float32)
        parts["turn"] = (turn @ self.turn).astype(np.float32)
        if moving is not None:
            parts["moving"] = np.full(len(self), moving)
        return Solids(**parts)

    def at(
        self, x: float, z: float, heading: float = 0.0, *, height: float = 0.0, moving: bool | None = None
    ) -> "Solids":
        """An object set on the ground: turned by `heading` (radians, positive to the right), then shifted."""
        return self.moved(yaw(heading), np.array([x, -height, z]), moving)


def yaw(angle: float) -> np.ndarray:
    """The rotation about the vertical that carries z (forward) towards x (right)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


NO_PLANES = np.tile(np.array([0, 0, 0, 1.0]), (PLANES, 1))


class Builder:
    """Collects solids one by one; `solids()` gives the arrays."""

    def __init__(self) -> None:
        self._rows: list[dict[str, object]] = []

    def box(self, at: Colour, size: Colour, label: int, material: int, colours: Sequence[Colour],
            traits: Sequence[float | np.floating] = (), turn: np.ndarray | None = None) -> None:  # fmt: skip
        """A box of full size (width, height, length) about its centre (x, height, z)."""
        self.hull(at, size, (), label, material, colours, traits, turn)

    def hull(self, at: Colour, size: Colour, cuts: Sequence[Sequence[float]], label: int, material: int, colours: Sequence[Colour],
             traits: Sequence[float | np.floating] = (), turn: np.ndarray | None = None) -> None:  # fmt: skip
        """A box with corners cut off: each cut (nx, up, nz, distance), metres from the centre, up positive."""
        half = np.array(size, np.float64) / 2
        planes = NO_PLANES.copy()
        for axis in range(3):
            planes[2 * axis, axis], planes[2 * axis + 1, axis] = 1, -1
            planes[2 * axis : 2 * axis + 2, 3] = half[axis]
        for i, (nx, up, nz, distance) in enumerate(cuts):
            length = (nx * nx + up * up + nz * nz) ** 0.5
            planes[6 + i] = np.array([nx, -up, nz, distance]) / length
        self._add(at, half, label, material, colours, traits, turn, planes=planes, sides=6 + len(cuts))

    def ball(self, at: Colour, half: Colour, label: int, material: int, colours: Sequence[Colour],
             traits: Sequence[float | np.floating] = (), turn: np.ndarray | None = None) -> None:  # fmt: skip
        """An ellipsoid of half axes (x, height, z)."""
        self._add(at, np.array(half), label, material, colours, traits, turn, quadric=(1, 0, 1))

    def tube(self, start: Colour, end: Colour, radius: float, label: int, material: int, colours: Sequence[Colour],
             traits: Sequence[float | np.floating] = (), top: float = 1.0) -> None:  # fmt: skip
        """A tube from `start` (radius) to `end` (radius times `top`), both (x, height, z)."""
        a, b = (np.array([p[0], -p[1], p[2]], np.float64) for p in (start, end))
        length = float(((a - b) ** 2).sum() ** 0.5)
        down = (a - b) / length  # local y runs from the end to the start
        z = np.array([0, -down[2], down[1]] if abs(down[0]) < 0.8 else [-down[1], down[0], 0])  # across it, level
        z /= (z * z).sum() ** 0.5
        x = np.array(
            [down[1] * z[2] - down[2] * z[1], down[2] * z[0] - down[0] * z[2], down[0] * z[1] - down[1] * z[0]]
        )
        turn = np.stack([x, down, z], 1)
        middle, slope = (1 + top) / 2, (1 - top) / 2
        centre = (a + b) / 2
        self._add((centre[0], -centre[1], centre[2]), np.array([radius, length / 2, radius]), label, material, colours,
                  traits, turn, quadric=(-slope * slope, middle * slope, middle * middle))  # fmt: skip

    def add(self, solids: Solids) -> None:
        """Solids built elsewhere."""
        self._rows.append({"solids": solids})

    def solids(self) -> Solids:
        """What was collected."""
        rows = [r for r in self._rows if "solids" not in r]
        ready = [r["solids"] for r in self._rows if "solids" in r]
        if rows or not ready:
            ready.append(_stack(rows))
        return Solids.join(ready)  # type: ignore[arg-type]

    def _add(self, at: Colour, half: np.ndarray, label: int, material: int, colours: Sequence[Colour],
             traits: Sequence[float | np.floating], turn: np.ndarray | None, planes: np.ndarray | None = None, sides: int = 0,
             quadric: Sequence[float] = (1, 0, 1)) -> None:  # fmt: skip
        three = [*colours, *[colours[-1]] * (3 - len(colours))]
        self._rows.append({
            "centre": (at[0], -at[1], at[2]), "turn": np.eye(3) if turn is None else turn, "half": half,
            "planes": NO_PLANES if planes is None else planes, "sides": sides,
            "quadric": quadric, "label": label, "material": material, "colours": three,
            "traits": [*traits, *[0.0] * (TRAITS - len(traits))], "moving": False,
        })  # fmt: skip


SHAPES = {"centre": (3,), "turn": (3, 3), "half": (3,), "planes": (PLANES, 4), "sides": (), "quadric": (3,),
          "label": (), "material": (), "colours": (3, 3), "traits": (TRAITS,), "moving": ()}  # fmt: skip


def _stack(rows: list[dict[str, object]]) -> Solids:
    kinds = {"sides": np.int64, "label": np.int64, "material": np.int64, "moving": np.bool_}
    arrays: dict[str, np.ndarray] = {
        name: np.array([r[name] for r in rows], kinds.get(name, np.float32)).reshape(len(rows), *shape)
        for name, shape in SHAPES.items()
    }
    return Solids(**arrays)
