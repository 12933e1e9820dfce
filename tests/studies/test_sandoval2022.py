"""The study of robust gradients: verdicts follow from made-up records and measures, pictures from made-up paintings."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import runs
from robustseg.core.errors import RobustsegError
from robustseg.core.files import append_line
from robustseg.core.labels import IGNORE
from robustseg.core.types import Batch
from robustseg.datasets.files import read_image
from robustseg.results import metrics
from robustseg.results.record import Counts, Record
from robustseg.studies import run
from robustseg.studies.evidence import Evidence
from robustseg.studies.measures import Measure, read_measures
from robustseg.studies.page import conclude
from robustseg.studies.sandoval2022 import ORIGINAL, ROLES, START, sandoval2022
from robustseg.studies.sandoval2022_paint import blind_pairs, comparison, hole
from robustseg.studies.verdicts import HELD, NOT_HELD, NOT_TESTABLE, UNDECIDED, Verdict
from robustseg.testing import PixelNetwork

STUDY = sandoval2022("synthetic")
SHARES = {  # of the pixels spoiled: clean, weak, strong
    "standard": (0.1, 0.8, 0.99),
    "half": (0.15, 0.4, 0.97),
    "adversarial": (0.2, 0.35, 0.5),
}


def spoiled(share: float, seed: int) -> Counts:
    """Of eight images in which this share of the pixels is labelled as the next class."""
    maps = runs.labels(8)
    lost = np.random.default_rng(seed).random(maps.shape) < share
    return metrics.count(maps, np.where(lost, (maps + 1) % 4, maps), runs.ids(8), 4)


def records(**changed: tuple[float, float, float]) -> list[Record]:
    shares, place = {**SHARES, **changed}, "'elsewhere/networks/{}/best.safetensors'"
    found = []
    for role, own in shares.items():
        spec = f"weights({place.format(role)})"
        for i, (perturbation, share) in enumerate(zip(STUDY.settings.perturbations, own, strict=True)):
            made = runs.record(spec, perturbation, 0, n=8, counts=spoiled(share, i))
            found.append(replace(made, data=STUDY.images["report"].data, size=STUDY.images["report"].size))
    return found


def counts(right: int) -> Counts:
    """Of one image of ten pixels of class 0."""
    seen = np.zeros((1, 1, 10), np.int64)
    seen[..., right:] = 1
    return metrics.count(np.zeros((1, 1, 10), np.int64), seen, ("a",), 4)


def measures(images: int = 8) -> list[Measure]:
    """The robust network is better on every image, the standard one has the lower loss."""
    found = []
    for i in range(images):
        for who, right, ssim, loss, variation in (
            ("standard", 3, 0.2, 0.1, 2.0),
            ("half", 5, 0.3, 0.2, 1.5),
            ("adversarial", 8, 0.5, 0.3, 1.1),
        ):
            values = {"ssim": ssim + i / 100, "loss": loss, "variation": variation, "seen": 0.9, "psnr": 15.0}
            found.append(Measure("inpaint", who, f"image_{i}", {}, values, counts(right)))
            shares = {"plain share": 0.7 - right / 20, "smooth share": 0.6, "plain edges": 0.1, "smooth edges": 0.2}
            found.append(Measure("gradients", who, f"image_{i}", {}, shares))
        found.append(Measure("inpaint", ORIGINAL, f"image_{i}", {}, {"psnr": math.inf, "ssim": 1.0}, counts(9)))
    return found


def evidence(found=None, **changed) -> Evidence:
    return Evidence(STUDY, records(**changed), measures() if found is None else found)


def findings(found: Evidence) -> list[Verdict]:
    return [claim.verdict(found) for claim in STUDY.claims]


def test_every_claim_holds_where_everything_is_as_claimed() -> None:
    found = findings(evidence())
    assert [f.claim for f in found] == ["S1", "S2", "S3", "S4"]
    assert [f.verdict for f in found] == [HELD] * 4
    assert "(8 of 8 images)" in found[2].numbers
    assert all("about these networks" in f.numbers for f in found)


def test_a_difference_that_some_images_deny_is_undecided() -> None:
    shared = [
        replace(m, values={**m.values, "plain share": 0.5 + 0.2 * (int(m.image[-1]) % 2)})
        if (m.kind, m.who) == ("gradients", "standard")
        else replace(m, values={**m.values, "plain share": 0.6})
        for m in measures()
    ]
    assert findings(evidence(shared))[2].verdict == UNDECIDED


def test_one_hole_decides_nothing() -> None:
    assert findings(evidence(measures(1)))[1].verdict == UNDECIDED


@pytest.mark.parametrize(
    ("changed", "claim", "verdict"),
    [
        ({"adversarial": (0.05, 0.35, 0.5)}, 0, NOT_HELD),  # cleaner than the standard one
        ({"adversarial": (0.2, 0.9, 0.5)}, 0, NOT_HELD),  # falls to the weak attack
        ({"adversarial": (0.2, 0.35, 0.999)}, 0, NOT_HELD),  # or to the strong one
        ({"half": (0.15, 0.4, 0.5)}, 3, NOT_HELD),  # holds against both
        ({"half": (0.15, 0.97, 0.99)}, 3, NOT_HELD),  # against none
    ],
)
def test_a_claim_falls_with_any_of_its_parts(changed, claim, verdict) -> None:
    assert findings(evidence(**changed))[claim].verdict == verdict


def test_what_was_not_measured_is_not_testable_and_stands_as_not_run() -> None:
    nothing = Evidence(STUDY, [])
    assert [f.verdict for f in findings(nothing)] == [NOT_TESTABLE] * 4
    text = "\n".join(table.markdown() for table in STUDY.tables(nothing))
    assert "| adversarial | not run | not run | not run | not run |" in text
    assert "nan" not in text


@pytest.mark.parametrize("name", ["ssim", "variation", "loss"])
def test_the_painting_is_compared_image_by_image(name) -> None:
    swapped = {"standard": "adversarial", "adversarial": "standard"}
    other = {(m.kind, swapped.get(m.who, m.who), m.image): m for m in measures()}
    found = [
        replace(m, values={**m.values, name: other[m.kind, m.who, m.image].values[name]})
        if m.kind == "inpaint" and m.who in swapped
        else m
        for m in measures()
    ]
    assert findings(evidence(found))[1].verdict == NOT_HELD


def test_tables_pool_what_the_judge_counted() -> None:
    table = STUDY.tables(evidence())[1]
    rows = {row[0]: row for row in table.rows}
    assert rows["adversarial"][1] == "80.0"  # class 0 alone is asked for; what is wrong there is its miss
    assert rows["none: what was there"][1] == "90.0"
    assert rows["none: what was there"][5] == "not run"  # an infinite ratio has no mean
    assert table.title == "Inpainting, 8 holes"


def test_a_hole_lies_where_labels_are_and_is_the_same_again() -> None:
    labels = torch.full((30, 60), IGNORE)
    labels[:, 30:] = 1
    for name in ("a_1", "a_2", "a_3"):
        mask = hole(labels, name)
        assert int(mask.sum()) == 10 * 20
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        assert (len(rows), len(columns)) == (10, 20)
        assert float((labels[mask] == 1).float().mean()) >= 0.5
        assert torch.equal(mask, hole(labels, name))
    assert not torch.equal(hole(labels, "a_1"), hole(labels, "a_2"))
    assert int(hole(torch.full((30, 60), IGNORE), "a").sum()) == 200


def test_blind_pairs_hide_who_is_who_and_the_key_tells(tmp_path: Path) -> None:
    pairs = []
    for index in range(20):
        paths = [tmp_path / f"{who}-{index}.png" for who in ("standard", "adversarial")]
        for value, path in zip((40, 200), paths, strict=True):
            Image.fromarray(np.full((6, 8, 3), value + index, np.uint8)).save(path)
        pairs.append(paths)
    blind_pairs(tmp_path / "blind", pairs, key=tmp_path / "key.json")
    key = json.loads((tmp_path / "key.json").read_text())["adversarial"]
    assert (
        sorted(p.stem for p in (tmp_path / "blind").iterdir()) == sorted(key) == [f"pair-{i:02d}" for i in range(1, 21)]
    )
    shades, order = set(), []
    for name, side in key.items():
        picture = read_image(tmp_path / "blind" / f"{name}.png") * 255
        left, right = float(picture[0, 5, 2]), float(picture[0, 5, -2])
        assert (left > right) == (side == "left")
        shades.add(max(left, right))
        order.append(max(left, right))
    assert len(shades) == 20  # each pair once
    assert order != sorted(order)
    assert 4 <= list(key.values()).count("left") <= 16


def test_a_comparison_shows_every_painting(tmp_path: Path) -> None:
    network = PixelNetwork().float()
    pictures = {}
    for value, who in enumerate((ORIGINAL, START, *ROLES)):
        pictures[who] = tmp_path / f"{who}.png"
        Image.fromarray(np.full((12, 40, 3), 50 * value, np.uint8)).save(pictures[who])
    batch = Batch(torch.zeros(1, 3, 12, 40), torch.zeros((1, 12, 40), dtype=torch.int64), ("a",))
    sheet = comparison(batch, None, pictures, network)
    drawn = [sheet.getpixel((46 * i + 20, 26)) for i in range(5)]
    assert drawn == [(50 * i,) * 3 for i in range(5)]


def test_conclusions_are_made_again_from_the_files(tmp_path: Path) -> None:
    for record in records():
        append_line(tmp_path / "records.jsonl", record.to_json())
    for measure in measures():
        append_line(tmp_path / "measures.jsonl", replace(measure, values={**measure.values, "ssim": 0.0}).to_json())
        append_line(tmp_path / "measures.jsonl", measure.to_json())  # made again: the later one counts
    found = conclude(replace(STUDY, name="sandoval2022"), tmp_path)
    assert [f.verdict for f in found] == [HELD] * 4
    page = (tmp_path / "tables.md").read_text()
    assert "the paper's in brackets" not in page
    assert "- **S3 held**" in page
    assert json.loads((tmp_path / "verdicts.json").read_text())["tier"] == "synthetic"


def test_tables_of_something_else_are_not_replaced(tmp_path: Path) -> None:
    append_line(tmp_path / "records.jsonl", records()[0].to_json())
    study, tables = replace(STUDY, name="sandoval2022"), tmp_path / "tables.md"
    tables.write_text("mine")
    for start in (lambda: conclude(study, tmp_path), lambda: run.reproduce(study, tmp_path)):
        with pytest.raises(RobustsegError, match=r"one with verdicts\.json, got 'tables\.md' of something else"):
            start()
    (tmp_path / "verdicts.json").write_text(json.dumps({"title": "Another study", "tier": "synthetic"}))
    for start in (lambda: conclude(study, tmp_path), lambda: run.reproduce(study, tmp_path)):
        with pytest.raises(RobustsegError, match=r"to hold '.*', got 'Another study'; try another --out"):
            start()
    assert tables.read_text() == "mine"


def test_tiers_are_known_by_name() -> None:
    with pytest.raises(RobustsegError, match="expected a tier, got 'huge'; try synthetic, camvid, full"):
        sandoval2022("huge")
    for name in ("camvid", "full"):
        study = sandoval2022(name, "elsewhere")
        assert "elsewhere/" in study.images["report"].data
        assert set(study.networks) == {*ROLES, "judge"}


@pytest.mark.slow
def test_the_study_runs_goes_on_and_runs_nothing_twice(tmp_path: Path) -> None:
    assert run.costs(STUDY, tmp_path)["train half"] > 0
    run.reproduce(STUDY, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.jsonl")}
    assert {m.who for m in read_measures(tmp_path)} == {*ROLES, START, ORIGINAL}
    assert all(seconds == 0 for seconds in run.costs(STUDY, tmp_path).values())
    picture = next((tmp_path / "panels" / "inpaint" / "half").iterdir())
    drawn = picture.read_bytes()
    picture.unlink()
    run.reproduce(STUDY, tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.jsonl")}
    assert picture.read_bytes() == drawn  # painted again without being measured again
    assert len(list((tmp_path / "panels" / "blind").iterdir())) == STUDY.settings.holes
