"""Classes and the void label."""

from dataclasses import dataclass
from typing import Annotated, Any

from robustseg.core.errors import LabelSpaceMismatch, RobustsegError
from robustseg.core.schema import Between, fields_of

IGNORE = 255
"""The label of a pixel that counts for nothing (void)."""

Level = Annotated[int, Between(0, 255)]


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a data set or a network, in train-id order.

    Args:
        names: one name a class, no two the same; the position is the train id.
        palette: one (red, green, blue) a class, 0 to 255.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[Level, Level, Level], ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.palette):
            raise RobustsegError(
                f"expected one colour a class, got {len(self.names)} names and {len(self.palette)} colours; "
                "try a palette of the same length"
            )
        odd = next((name for name in self.names if self.names.count(name) > 1 or not name.strip()), None)
        if odd is not None:
            raise RobustsegError(
                f"expected a name of its own for each class, got {odd!r}{' more than once' * bool(odd.strip())}; "
                "try names that differ"
            )
        if not 1 <= len(self.names) <= IGNORE:
            raise RobustsegError(f"expected 1 to {IGNORE} classes, got {len(self.names)}; {IGNORE} is the void label")

    def __len__(self) -> int:
        return len(self.names)

    def require_same(self, other: "LabelSpace", *, mine: str, theirs: str) -> None:
        """Raise `LabelSpaceMismatch` unless both have the same class names in the same order."""
        if self.names == other.names:
            return
        where = next(
            (i for i, (a, b) in enumerate(zip(self.names, other.names, strict=False)) if a != b),
            min(len(self), len(other)),
        )
        first, second = (s.names[where] if where < len(s) else "nothing" for s in (self, other))
        raise LabelSpaceMismatch(
            f"expected one label space, got {len(self)} classes in {mine} and {len(other)} in {theirs}; "
            f"they part at class {where}: '{first}' against '{second}'; "
            "try a network trained on these classes, or a data set with the network's classes"
        )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "LabelSpace":
        """Rebuild from what `asdict` and JSON made of it.

        Raises:
            RobustsegError: it is something else.
        """
        return cls(**fields_of(cls, data, place="label_space"))
