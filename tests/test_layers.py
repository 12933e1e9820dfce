"""Imports point down only, and what must start without torch does."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "robustseg"
LAYERS = [  # low to high; neighbours on a line do not know each other
    {"records"},
    {"spaces"},
    {"metrics", "depth_metrics", "types", "panels"},
    {"summary", "registry", "provenance"},
    {"losses", "geometry", "similarity", "findings"},
    {"attacks", "networks", "datasets", "noise", "saved", "photometric", "odometry"},
    {"stereo"},
    {"training", "doctor", "flags", "synthesis", "film", "alignment"},
    {"monitor"},
    {"evaluation", "depth_evaluation", "api"},
    {"report", "testing", "audit", "gallery"},
    {"demo", "experiments"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
TORCH_FREE = {
    "records",
    "spaces",
    "metrics",
    "depth_metrics",
    "panels",
    "summary",
    "findings",
    "registry",
    "report",
    "cli",
}


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(file: Path, *, top_level_only: bool) -> set[str]:
    tree = ast.parse(file.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return names


FILES = [f for f in sorted(PACKAGE.rglob("*.py")) if f != PACKAGE / "__init__.py"]


def test_every_room_has_a_level() -> None:
    assert {room_of(f) for f in FILES} == set(LEVEL)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_down(file: Path) -> None:
    room = room_of(file)
    # the registry names Budget lazily, the one arrow that points sideways: specs hold budgets
    allowed = {"types"} if room == "registry" else set()
    for name in imports_of(file, top_level_only=False):
        parts = name.split(".")
        if parts[0] == "robustseg" and len(parts) > 1 and parts[1] in LEVEL and parts[1] not in {room, *allowed}:
            assert LEVEL[parts[1]] < LEVEL[room], f"{room} imports {parts[1]}"


@pytest.mark.parametrize("file", [f for f in FILES if room_of(f) in TORCH_FREE], ids=lambda f: f.name)
def test_plain_rooms_import_no_torch(file: Path) -> None:
    assert not {n for n in imports_of(file, top_level_only=True) if n.split(".")[0] in {"torch", "torchvision"}}


@pytest.mark.parametrize("arguments", ["--help", "list", "evaluate --help", "report --help"])
def test_the_command_line_starts_without_torch(arguments: str) -> None:
    code = (
        "import sys\nfrom robustseg.cli import app\n"
        f"try:\n    app({arguments.split()!r})\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert 'torch' not in sys.modules, 'torch was loaded'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
