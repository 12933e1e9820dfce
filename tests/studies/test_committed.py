"""The committed pages of the studies are those that their committed records give, made without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

STUDIES = Path(__file__).parents[2] / "studies"
PAGES = sorted(path.parent for path in STUDIES.glob("*/verdicts.json"))
COMMAND = """
import sys
from robustseg.cli import app
try:
    app(["reproduce", *sys.argv[1:]])
except SystemExit as stop:
    assert not stop.code, stop.code
assert "torch" not in sys.modules, "torch was loaded"
"""


@pytest.mark.parametrize("folder", PAGES, ids=lambda folder: folder.name)
def test_a_committed_page_is_made_from_its_records(folder: Path, tmp_path: Path) -> None:
    paper = folder.name.partition("-")[0]
    words = [sys.executable, "-c", COMMAND, paper, "--from-records", str(folder), "--out", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for made in tmp_path.iterdir():
        if made.suffix != ".json":  # there the last digits of a number may differ on another machine
            assert made.read_text() == (folder / made.name).read_text(), f"{folder.name}/{made.name}"
    there, here = (json.loads((place / "verdicts.json").read_text()) for place in (folder, tmp_path))
    for found in (there, here):
        found["verdicts"] = [(v["claim"], v["verdict"], v["statement"], v["numbers"]) for v in found["verdicts"]]
    assert here == there
