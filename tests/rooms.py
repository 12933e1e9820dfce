"""Counts the rooms of the package, the arrows between them, and the arrows that do not point down.

    python tests/rooms.py [PATH_TO_PACKAGE]

A room is a folder or a loose file of the package, or one of the folders `benchmarks` and `zoo` of its checkout;
`robustseg` is the package's own `__init__.py`. An arrow is a pair of rooms with an import between them, wherever it
stands in a file; imports by a computed name are not seen. The levels are the `LAYERS` in `tests/test_layers.py` of the
same checkout; arrows of rooms without a level are not judged. Only Python's standard library is needed.
"""

import ast
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent.parent / "src" / "robustseg"
ROOT = "robustseg"
OUTSIDE = ("benchmarks", "zoo")


class House(NamedTuple):
    """Rooms; for each arrow (importing room, imported room) the files it comes from; the level of each room."""

    rooms: set[str]
    arrows: dict[tuple[str, str], list[Path]]
    level: dict[str, float]

    @property
    def not_down(self) -> list[tuple[str, str]]:
        """The arrows that point up, or sideways to a room of the same level."""
        known = [(a, b) for a, b in self.arrows if a in self.level and b in self.level]
        return sorted((a, b) for a, b in known if self.level[a] <= self.level[b])


def house(package: Path) -> House:
    """Read every file of a package and of the folders `OUTSIDE` it in its checkout."""
    files = {file: _room(file.relative_to(package)) for file in sorted(package.rglob("*.py"))}
    inside = set(files.values())
    for name in OUTSIDE:
        files |= dict.fromkeys(sorted(_checkout(package).glob(f"{name}/**/*.py")), name)
    arrows = defaultdict(list)
    for file, room in files.items():
        for other in sorted({_imported_room(name, inside) for name in imports_of(file)} - {"", room}):
            arrows[room, other].append(file)
    return House(set(files.values()), dict(arrows), levels(package))


def levels(package: Path) -> dict[str, float]:
    """The level of each room according to the checkout's layer test; empty where there is no such test."""
    test = _checkout(package) / "tests" / "test_layers.py"
    for node in ast.parse(test.read_text(encoding="utf-8")).body if test.is_file() else []:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS":
            known = {room: float(i) for i, rooms in enumerate(ast.literal_eval(node.value)) for room in rooms}
            # A checkout whose layers leave the root out: it names what all rooms offer, the command line excepted.
            return {ROOT: known["cli"] - 0.5, **known}
    return {}


def imports_of(file: Path, *, top_level_only: bool = False) -> set[str]:
    """The dotted names that a file imports: `a.b` for `import a.b` and for `from a import b`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _checkout(package: Path) -> Path:
    return package.parent.parent


def _room(file: Path) -> str:
    return ROOT if file.parts[0] == "__init__.py" else file.parts[0].removesuffix(".py")


def _imported_room(name: str, rooms: set[str]) -> str:
    """The room that an imported name belongs to: empty for other packages, the root for a name that is no room."""
    top, _, rest = name.partition(".")
    room = rest.partition(".")[0]
    return "" if top != ROOT else room if room in rooms else ROOT


def main(package: Path) -> None:
    """Print the counts of one checkout."""
    found = house(package)
    print(f"{len(found.rooms)} rooms: {', '.join(sorted(found.rooms))}")
    print(f"{len(found.arrows)} arrows, {len(found.not_down)} of them up or sideways")
    for a, b in found.not_down:
        print(f"  {a} -> {b}: {', '.join(str(file.relative_to(_checkout(package))) for file in found.arrows[a, b])}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE)
