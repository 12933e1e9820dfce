"""Verdicts follow from numbers, and tables can be read by people and scripts."""

import json
import math
import subprocess
import sys

import pytest

from robustseg.studies.study import (
    HELD,
    NOT_HELD,
    NOT_TESTABLE,
    UNDECIDED,
    Beside,
    Finding,
    Table,
    exceeds,
    together,
    write_study,
)


@pytest.mark.parametrize(
    ("values", "bound", "seeds", "verdict"),
    [
        ([1.0, 1.1, 1.2], 0.0, 3, HELD),
        ([-1.0, -1.1, -1.2], 0.0, 3, NOT_HELD),
        ([1.0, -0.2, 1.0], 0.0, 3, UNDECIDED),  # mean 0.6, standard deviation 0.69
        ([1.0, 1.1], 0.0, 3, UNDECIDED),  # too few seeds, however clear
        ([0.9], 0.85, 1, HELD),
        ([0.8], 0.85, 1, NOT_HELD),
        ([], 0.0, 3, NOT_TESTABLE),
        ([1.0, math.nan, 1.0], 0.0, 3, NOT_TESTABLE),
        ([1.0, 1.0, 1.0], 0.5, 3, HELD),
    ],
)
def test_a_gap_under_two_standard_deviations_decides_nothing(values, bound, seeds, verdict):
    assert exceeds(values, bound, seeds=seeds) == verdict


def test_one_part_that_does_not_hold_is_enough_against_a_claim():
    assert together([HELD, HELD]) == HELD
    assert together([HELD, UNDECIDED]) == UNDECIDED
    assert together([UNDECIDED, NOT_TESTABLE]) == NOT_TESTABLE
    assert together([NOT_TESTABLE, NOT_HELD, HELD]) == NOT_HELD


def test_a_figure_is_written_beside_the_papers():
    assert str(Beside((61.0, 62.0, 63.0), 61.5)) == "62.0 ± 1.0 (61.5)"
    assert str(Beside((61.04,))) == "61.0"
    assert str(Beside((), 50.0)) == "not run (50.0)"


def test_tables_and_verdicts_are_written_for_people_and_for_scripts(tmp_path):
    table = Table("Table 1", ("network", "clean"), (("T", Beside((50.0,), 75.4)), ("S", Beside(()))), "A note.")
    found = [Finding("B1", "it holds", HELD, "1 of 2")]
    write_study(tmp_path, title="A paper", about={"tier": "camvid"}, tables=[table], findings=found)
    page = (tmp_path / "tables.md").read_text()
    assert "| T | 50.0 (75.4) |\n| S | not run |" in page
    assert "- **B1 held**: 1 of 2" in page
    assert "- tier: camvid" in page
    assert "A note." in page
    plain = json.loads((tmp_path / "verdicts.json").read_text())
    assert plain["verdicts"] == [{"claim": "B1", "statement": "it holds", "verdict": HELD, "numbers": "1 of 2"}]
    assert plain["tables"][0]["rows"] == [["T", {"ours": [50.0], "theirs": 75.4}], ["S", {"ours": [], "theirs": None}]]
    assert found[0].line == "B1 held: 1 of 2"


def test_tables_and_claims_are_made_without_torch():
    code = (
        "import sys\nimport robustseg.studies.study, robustseg.studies.baer2020_claims\n"
        "import robustseg.studies.sandoval2022_claims, robustseg.studies.arnab2018_figures\n"
        "assert 'torch' not in sys.modules, 'torch was loaded'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
