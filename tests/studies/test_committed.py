"""The committed studies: their pages follow from their records, whatever changes in the code."""

import json
from pathlib import Path

import pytest

from robustseg.studies.page import conclude, recorded

STUDIES = Path(__file__).parents[2] / "studies"
FOLDERS = sorted(path.parent for path in STUDIES.glob("*/verdicts.json"))


def test_there_are_committed_studies() -> None:
    assert len(FOLDERS) >= 6


SLOW = [pytest.mark.slow]  # thousands of records


@pytest.mark.parametrize(
    "folder", [pytest.param(f, id=f.name, marks=SLOW if f.name.startswith("klingner") else []) for f in FOLDERS]
)
def test_a_committed_page_follows_from_its_records(folder: Path, tmp_path: Path) -> None:
    conclude(recorded(folder.name.partition("-")[0], folder), folder, tmp_path)
    there, here = (json.loads((place / "verdicts.json").read_text()) for place in (folder, tmp_path))
    for key in ("title", "tier", "tables", "words"):
        assert here.get(key) == there.get(key)
    outcomes = [[(v["claim"], v["verdict"], v["statement"]) for v in page["verdicts"]] for page in (here, there)]
    assert outcomes[0] == outcomes[1]
    assert {path.name for path in tmp_path.iterdir()} <= {path.name for path in folder.iterdir()}
