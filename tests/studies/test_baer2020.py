"""The study of Baer et al. 2020: verdicts follow from records, and a cut run goes on."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import trees
from robustseg import api
from robustseg.core.errors import RobustsegError
from robustseg.core.labels import LabelSpace
from robustseg.results.record import Counts, Record, read_records
from robustseg.studies import baer2020, run
from robustseg.studies.baer2020 import COLUMNS, PAPER, vote
from robustseg.studies.baer2020_tables import TABLE_3, TABLE_5, TABLE_6, TABLE_7, tables
from robustseg.studies.evidence import Evidence
from robustseg.studies.study import Images, Study, opened
from robustseg.studies.trainings import Training
from robustseg.studies.verdicts import HELD, NOT_HELD, NOT_TESTABLE, UNDECIDED

STUDY = dataclasses.replace(
    opened("baer2020"),
    networks={**opened("baer2020").networks, "T": "zoo:teacher", "S": "zoo:student"},
    images={"choose": Images("choose"), "report": Images("report")},
)
SPACE = LabelSpace(("road", "car"), ((128, 64, 128), (64, 0, 128)))
SIZE = 1_000_000
PARTS = ((-0.2, 0.0), (0.0, 0.1), (0.1, 0.2), (0.2, 0.5), (0.5, 0.9))
"""Between the thresholds of the paper's table 6."""


def _counts(miou: float, images: int) -> Counts:
    """Counts of images that all have this mIoU in %."""
    right = round(SIZE * miou / 100)
    tp, wrong = np.full((images, 1), right), np.full((images, 1), SIZE - right)
    none = np.zeros_like(tp)
    ids = tuple(f"{i:03d}" for i in range(images))
    confusion = np.array([[right, SIZE - right, 0], [0, 0, 0]]) * images
    return Counts(ids, confusion, np.hstack([tp, none]), np.hstack([none, wrong]), np.hstack([wrong, none]))


def _record(network: str, column: str, miou: float, data: str, scores: list[float] | None = None) -> Record:
    attack = next((a for a in PAPER if a.name == column), None)
    return Record(
        network=network,
        source=STUDY.networks[attack.source] if attack else network,
        data=data,
        perturbation=attack.perturbation if attack else "clean",
        label_space=SPACE,
        counts=_counts(miou, 441),
        scores={"against_teacher": scores} if scores else {},
    )


def _paper_scores(column: str) -> list[float]:
    """441 values of d that give the paper's table 6."""
    i = COLUMNS.index(column)
    below = [0, *(TABLE_6[delta][i] for delta in (0.0, 0.1, 0.2, 0.5)), 441]
    return [
        x for n, (low, high) in zip(np.diff(below), PARTS, strict=True) for x in np.linspace(low, high, n + 2)[1:-1]
    ]


def _papers_records(changes: dict[str, tuple[float, ...]] | None = None) -> list[Record]:
    """Records with the figures of the paper's tables 5 to 7 (or others in their place), the same for each of three seeds."""
    rows = {"T": TABLE_7["T"], "S": TABLE_7["S"], "all": TABLE_5["all"], "down2": TABLE_5["down2"], **(changes or {})}
    found = []
    for i, column in enumerate(COLUMNS):
        found += [_record("zoo:teacher", column, rows["T"][i], "report")]
        found += [_record("zoo:student", column, rows["S"][i], "report")]
        for seed in range(3):
            specs = {row: f"weights('runs/networks/{row}-{seed}/adaptive.safetensors')" for row in ("all", "down2")}
            found += [_record(spec, column, rows[row][i], "report") for row, spec in specs.items()]
            triplet = f"triplet(teacher=zoo:teacher, student=zoo:student, adaptive={specs['down2']}, threshold=0.1, vote='ta')"
            data = ("report", "choose") if column == "clean" else ("report",)
            found += [_record(triplet, column, rows["T"][i], part, _paper_scores(column)) for part in data]
    return found


def _verdicts(records: list[Record]) -> dict[str, str]:
    found = Evidence(STUDY, records)
    return {claim.name: claim.verdict(found).verdict for claim in STUDY.claims}


def test_the_papers_own_figures_give_the_papers_claims():
    verdicts = _verdicts(_papers_records())
    assert {claim: verdicts[claim] for claim in ("B1", "B2", "B3", "B6", "B7", "B8")} == dict.fromkeys(
        ("B1", "B2", "B3", "B6", "B7", "B8"), HELD
    )
    assert verdicts["B4"] == verdicts["B5"] == verdicts["B9"] == NOT_TESTABLE  # their rows and attacks were not run


@pytest.mark.parametrize(
    ("changes", "claim", "verdict"),
    [
        ({"T": (75.77, 16.89, 72.12, 9.0, 54.02)}, "B1", NOT_HELD),  # T stands its own strong attack
        ({"T": (66.0, 16.89, 62.0, 1.84, 40.0)}, "B2", NOT_TESTABLE),  # T is hardly above S
        ({"T": (75.77, 8.0, 72.12, 1.84, 54.02)}, "B2", NOT_HELD),
        ({"all": (53.01, 45.81, 50.0, 27.74, 11.14)}, "B3", NOT_HELD),  # better in one column
        ({"all": (53.01, 45.81, 28.55, 40.0, 11.14)}, "B6", NOT_HELD),  # gains less than half of the paper's
        ({"down2": (61.12, 30.0, 48.39, 30.0, 33.38)}, "B8", NOT_HELD),  # less than half of T's clean mIoU
    ],
)
def test_other_figures_give_other_verdicts(changes, claim, verdict):
    assert _verdicts(_papers_records(changes))[claim] == verdict


def test_without_records_nothing_is_claimed():
    assert set(_verdicts([]).values()) == {NOT_TESTABLE}


def test_tables_set_the_papers_figures_beside_equal_ones():
    drawn = {table.title[:7]: table.markdown() for table in tables(Evidence(STUDY, _papers_records()))}
    assert "| down 2 | all | 61.1 ± 0.0 (61.1) | 58.6 ± 0.0 (58.6) |" in drawn["Table 5"]
    assert (
        "| 0.5 | 441/0 (441/0) | 155/286 (155/286) | 441/0 (441/0) | 4/437 (4/437) | 441/0 (441/0) |"
        in drawn["Table 6"]
    )
    assert "| T/A 0.1 | all | 75.7 ± 0.0 (75.7) |" in drawn["Table 7"]


def test_a_vote_takes_each_image_from_the_network_that_is_trusted():
    first, other = _counts(90, 4), _counts(20, 4)
    corrected = vote(first, other, [-0.5, 0.1, 0.0999, 0.7], 0.1)
    assert (corrected.tp[:, 0] == [900_000, 200_000, 900_000, 200_000]).all()
    with pytest.raises(RobustsegError, match="same images"):
        vote(first, _counts(20, 3), [0.0] * 4, 0.1)


def _tiny(setting: baer2020.Setting, space: str, data: str, **changes) -> Study:
    """The study at a size that a test can train and measure."""
    small = {"batch_size": 2, "crop": (16, 32), "scale": (1.0, 1.0), "check_every": 1}
    how = {
        who: Training(f"erfnet(classes={space!r}, width={width})", data, {**small, "epochs": 1})
        for who, width in (("teacher", 0.25), ("student", 0.125))
    }
    short = {"size": (16, 32), "recipe": {**small, "updates": 2, **changes.pop("recipe", {})}, "precision": "32-true"}
    return baer2020.study_of("tiny", dataclasses.replace(setting, steps=1, rows=("down2",), **how, **short, **changes))


def test_a_run_ends_in_tables_and_resumes_where_it_was_interrupted(tmp_path: Path) -> None:
    streets = {n: f"streets(scenes=2, frames=1, size='16x32', split={n!r})" for n in ("train", "val", "test")}
    images = {"unlabelled": streets["train"], "choose": streets["val"], "report": streets["test"]}
    study = _tiny(baer2020.setting("synthetic"), "camvid", streets["train"], **images)
    some = [row for row in study.rows if row.perturbation == "clean" or row.source in ("T", "fitted:down2-1")]
    study = dataclasses.replace(study, rows=some)
    steps: list[str] = []
    found = run.reproduce(study, tmp_path, on_step=steps.append)
    assert [v.claim for v in found] == [f"B{i}" for i in range(1, 10)]
    assert sum(s.startswith("train down2") for s in steps) == 3
    measured = read_records(tmp_path)
    text = (tmp_path / "tables.md").read_text()
    assert text.count("### Table") == 7
    assert "grey box" in text
    assert "objective='members')" in "".join(r.perturbation for r in measured if "threshold=(None, " in r.source)
    # interrupted: the last records are gone; what is there is not run again
    lines = (tmp_path / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "records.jsonl").write_text("".join(lines[:-3]))
    steps.clear()
    assert [v.line for v in run.reproduce(study, tmp_path, on_step=steps.append)] == [v.line for v in found]
    assert not [s for s in steps if s.startswith("train")]
    assert len(read_records(tmp_path)) == len(measured)
    other = _tiny(baer2020.setting("synthetic"), "camvid", streets["train"], **images, recipe={"learning_rate": 0.5})
    with pytest.raises(RobustsegError, match=r"expected learning_rate 0\.0001 of the run in"):
        run.reproduce(other, tmp_path)


def test_the_papers_protocol_opens_the_official_tree(tmp_path: Path) -> None:
    root = tmp_path / "cityscapes"
    frames = {
        "train": [f"aachen_{i:06d}_000019" for i in range(2)],
        "val": [f"{city}_000000_00001{i}" for city in ("lindau", "frankfurt", "munster") for i in range(2)],
    }
    trees.cityscapes(root, frames)
    for i in range(2):
        trees.write_image(
            root / "leftImg8bit" / "train_extra" / "augsburg" / f"augsburg_000000_00000{i}_leftImg8bit.png"
        )
    full = baer2020.setting("full", str(tmp_path))
    assert [len(api.data(spec)) for spec in (full.choose, full.report, full.unlabelled)] == [2, 4, 2]
    assert isinstance(full.teacher, Training)
    assert len(api.data(full.teacher.data)) == 2
    study = _tiny(full, "cityscapes", full.teacher.data)
    alone = dataclasses.replace(
        study, rows=[row for row in study.rows if row.target in ("T", "S") and row.source == "T"]
    )
    assert len(run.reproduce(alone, tmp_path / "out")) == 9


def test_rows_of_the_tables_can_be_chosen() -> None:
    assert tuple(TABLE_3) == baer2020.ALPHAS
    study = opened("baer2020", rows=("up", "down1_alpha0.9"))
    adaptive = {row.target for row in study.rows} - {"T", "S"} - {row.target for row in study.rows if ":" in row.target}
    assert adaptive == {"down2-0", "down2-1", "down2-2", "up-0", "down1_alpha0.9-0"}
    with pytest.raises(RobustsegError, match="rows of table 2 or 3, got 'down9'"):
        opened("baer2020", rows=("down9",))
    with pytest.raises(RobustsegError, match="try synthetic, camvid, full"):
        opened("baer2020", tier="mars")


def test_seeds_that_disagree_decide_nothing() -> None:
    records = _papers_records()
    spec = "weights('runs/networks/down2-1/adaptive.safetensors')"
    worse = [_record(r.network, "clean", 53.2, r.data) if r.network == spec and r.clean else r for r in records]
    assert _verdicts(worse)["B3"] == UNDECIDED
