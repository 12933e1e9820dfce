"""Imports point down only, and what must start without torch does."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "robustseg"
LAYERS = [  # low to high; neighbours on a line do not know each other
    {"core"},
    {"results"},
    {"datasets", "perturbations", "losses", "testing"},
    {"attacks", "depth", "report"},
    {"networks"},
    {"training", "synthesis", "evaluation"},
    {"api"},
    {"monitor", "audit"},
    {"studies", "demo"},
    {"__init__"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
TORCH_FREE = {"core", "results", "report", "cli"}
WITH_TORCH = {"core/types.py", "core/random.py"}


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


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_has_a_level() -> None:
    assert {room_of(f) for f in FILES} == set(LEVEL)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_down(file: Path) -> None:
    room = room_of(file)
    for name in imports_of(file, top_level_only=False):
        parts = name.split(".")
        if parts[0] == "robustseg" and name not in ("robustseg", *(f"robustseg.{r}" for r in LEVEL if r == room)):
            other = parts[1] if parts[1] in LEVEL else "__init__"
            assert other == room or LEVEL[other] < LEVEL[room], f"{room} imports {other}"


@pytest.mark.parametrize(
    "file",
    [f for f in FILES if room_of(f) in TORCH_FREE and str(f.relative_to(PACKAGE)) not in WITH_TORCH],
    ids=lambda f: str(f.relative_to(PACKAGE)),
)
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
