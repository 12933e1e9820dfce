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
from robustseg.studies import baer2020
from robustseg.studies.baer2020_claims import findings, tables
from robustseg.studies.baer2020_evidence import COLUMNS, PAPER, TABLE_5, TABLE_6, TABLE_7, Figures, Names, vote
from robustseg.studies.legacy import HELD, NOT_HELD, NOT_TESTABLE
from robustseg.training import Recipe

NAMES = Names("zoo:teacher", "zoo:student", "choose", "report")
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
        source={"T": NAMES.teacher, "S": NAMES.student}[attack.source] if attack else network,
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
        found += [_record(NAMES.teacher, column, rows["T"][i], "report")]
        found += [_record(NAMES.student, column, rows["S"][i], "report")]
        for seed in range(3):
            specs = {row: f"weights('runs/networks/{row}-{seed}/adaptive.safetensors')" for row in ("all", "down2")}
            found += [_record(spec, column, rows[row][i], "report") for row, spec in specs.items()]
            triplet = f"triplet('zoo:teacher', 'zoo:student', {specs['down2']})"
            data = ("report", "choose") if column == "clean" else ("report",)
            found += [_record(triplet, column, rows["T"][i], part, _paper_scores(column)) for part in data]
    return found


def _verdicts(records: list[Record]) -> dict[str, str]:
    return {f.claim: f.verdict for f in findings(Figures(records, NAMES, steps=20))}


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
    drawn = {table.title[:7]: table.markdown() for table in tables(Figures(_papers_records(), NAMES, steps=20))}
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


def _tiny(tier: baer2020.Tier, **changes) -> baer2020.Tier:
    recipe = Recipe(epochs=1, batch_size=2, crop=(16, 32), scale=(1.0, 1.0), check_every=1)
    short = {"updates": 2, "batch_size": 2, "crop": (16, 32), "scale": (1.0, 1.0), "check_every": 1}
    space = "camvid" if tier.name == "synthetic" else "cityscapes"
    labelled = tier.student.data if isinstance(tier.student, baer2020.Pretraining) else ""
    how = {
        who: baer2020.Pretraining(f"erfnet(classes={space!r}, width={width})", changes.get("data", labelled), recipe)
        for who, width in (("teacher", 0.25), ("student", 0.125))
    }
    rest = {k: v for k, v in changes.items() if k != "data"}
    return dataclasses.replace(
        tier, size=(16, 32), recipe=short, precision="32-true", steps=1, rows=("down2",), **how, **rest
    )


def test_a_run_ends_in_tables_and_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    streets = {n: f"streets(scenes=2, frames=1, size='16x32', split={n!r})" for n in ("train", "val", "test")}
    tier = _tiny(
        baer2020.tier("synthetic"),
        data=streets["train"],
        unlabelled=streets["train"],
        choose=streets["val"],
        report=streets["test"],
    )
    steps: list[str] = []
    found = baer2020.reproduce(tier, tmp_path, on_step=steps.append)
    assert [f.claim for f in found] == [f"B{i}" for i in range(1, 10)]
    assert sum(s.startswith("finetune") for s in steps) == 3
    measured = read_records(tmp_path)
    text = (tmp_path / "tables.md").read_text()
    assert text.count("### Table") == 7
    assert "grey box" in text
    # cut: one adaptive network and the last records are gone; what is there is not run again
    lines = (tmp_path / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "records.jsonl").write_text("".join(lines[:-3]))
    steps.clear()
    assert [f.line for f in baer2020.reproduce(tier, tmp_path, on_step=steps.append)] == [f.line for f in found]
    assert not [s for s in steps if s.startswith(("pretrain", "finetune"))]
    assert len(read_records(tmp_path)) == len(measured)
    other = dataclasses.replace(tier, recipe={**tier.recipe, "learning_rate": 0.5})
    with pytest.raises(RobustsegError, match="made by the recipe of its row"):
        baer2020.reproduce(other, tmp_path)


def test_the_papers_protocol_runs_on_the_official_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baer2020, "SEEDS", 1)  # the protocol is the tier's; the number of seeds is not
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
    tier = baer2020.tier("full", str(tmp_path))
    assert [len(api.data(spec)) for spec in (tier.choose, tier.report, tier.unlabelled)] == [2, 4, 2]
    assert isinstance(tier.teacher, baer2020.Pretraining)
    assert len(api.data(tier.teacher.data)) == 2
    found = baer2020.reproduce(_tiny(tier, data=tier.teacher.data), tmp_path / "out", rows=["down2"])
    assert len(found) == 9


def test_unknown_names_are_said(tmp_path: Path) -> None:
    with pytest.raises(RobustsegError, match="try synthetic, camvid, full"):
        baer2020.tier("mars")
    with pytest.raises(RobustsegError, match="rows of table 2 or 3, got 'down9'"):
        baer2020.reproduce(baer2020.tier("synthetic"), tmp_path, rows=["down9"])
