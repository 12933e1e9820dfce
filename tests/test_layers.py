"""Imports point down only, and what must start without torch does."""

import subprocess
import sys
from pathlib import Path

import pytest

import rooms

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
    {"robustseg"},  # the root: names of all rooms below
    {"cli"},
]
TORCH_FREE = {"core", "results", "report", "cli"}
WITH_TORCH = {"core/types.py", "core/random.py"}


def test_every_room_has_a_level_and_imports_point_down() -> None:
    found = rooms.house(rooms.HERE)
    assert {room for layer in LAYERS for room in layer} == found.rooms - set(rooms.OUTSIDE)
    assert found.not_down == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {
                "core.py": "import torch",
                "cli.py": "from robustseg.core import x",
                "api/a.py": "import robustseg.core.x",
            },
            [],
        ),
        ({"core.py": "import robustseg.api"}, [("core", "api")]),
        ({"core.py": "def f():\n    from robustseg import api"}, [("core", "api")]),
        (
            {"api/a.py": "import robustseg.demo.b", "demo/b.py": "import robustseg.api.a"},
            [("api", "demo"), ("demo", "api")],
        ),
        ({"core.py": "import robustseg"}, [("core", "robustseg")]),
        ({"core.py": "from robustseg import __version__"}, [("core", "robustseg")]),
        ({"__init__.py": "from robustseg.cli import x", "cli.py": "import robustseg"}, [("robustseg", "cli")]),
        ({"core.py": "import robustseg.unknown.x", "unknown/x.py": "import robustseg.cli"}, []),
    ],
)
def test_an_arrow_that_does_not_point_down_is_found(
    tmp_path: Path, files: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    package = tmp_path / "src" / "robustseg"
    layers = 'LAYERS = [{"core"}, {"api", "demo"}, {"cli"}]'
    every = {"__init__.py": "", "core.py": "", "api/a.py": "", "demo/b.py": "", "cli.py": "", **files}
    for name, text in [("../../tests/test_layers.py", layers), *every.items()]:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    assert rooms.house(package).not_down == expected


def test_the_script_counts_rooms_and_arrows(tmp_path: Path) -> None:
    for name, text in {
        "src/robustseg/__init__.py": "",
        "src/robustseg/core/a.py": "import robustseg.core.b",
        "src/robustseg/core/b.py": "",
        "src/robustseg/cli.py": "from robustseg.core import a, b\nimport robustseg.core.a",
        "zoo/train.py": "import robustseg.core.a",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-I", rooms.__file__, str(tmp_path / "src" / "robustseg")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "4 rooms: cli, core, robustseg, zoo\n2 arrows, 0 of them up or sideways\n"


@pytest.mark.parametrize("room", sorted(TORCH_FREE))
def test_plain_rooms_import_no_torch(room: str) -> None:
    for file in sorted((rooms.HERE / room).rglob("*.py")):
        if str(file.relative_to(rooms.HERE)) not in WITH_TORCH:
            loaded = {name.split(".")[0] for name in rooms.imports_of(file, top_level_only=True)}
            assert not loaded & {"torch", "torchvision"}, file


def test_the_command_line_starts_without_torch() -> None:
    code = """
import sys
from robustseg.cli import app
for arguments in ("--help", "list", "evaluate --help", "report --help"):
    try:
        app(arguments.split())
    except SystemExit as stop:
        assert not stop.code, (arguments, stop.code)
    assert "torch" not in sys.modules, f"{arguments} loads torch"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
