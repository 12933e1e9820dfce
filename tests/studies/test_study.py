"""The core of all studies: a paper from another package is found, run and concluded; records are found by role."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import runs
from robustseg.cli import app
from robustseg.core.errors import RobustsegError
from robustseg.results import metrics
from robustseg.studies.evidence import Evidence, portable
from robustseg.studies.measures import Measure, Measuring, read_measures
from robustseg.studies.page import Beside, Figure, Table, as_run, conclude, made_by
from robustseg.studies.run import Work, passes
from robustseg.studies.study import Basis, Images, Row, Study, claim, opened
from robustseg.studies.verdicts import HELD, exact

TOY = '''"""Toy 2024: does a blur help?"""

from robustseg.core.registry import study
from robustseg.report.figures import Line, Plot, Point, curves
from robustseg.studies.measures import Measure, Measuring
from robustseg.studies.page import Figure, Table, percent
from robustseg.studies.study import Images, Row, Study, Basis, claim
from robustseg.studies.verdicts import exact, over_frames

ATTACK = "fgsm(budget='linf:8/255')"


@claim("T1", "the attack lowers mIoU")
def t1(f):
    runs = [r and r.counts for r in (f.record("plain"), f.record("plain", ATTACK))]
    return Basis([over_frames("loss", runs, lambda clean, attacked: clean - attacked, above=0)])


@claim("T2", "every image is bright")
def t2(f):
    bright = [m.values["mean"] > 0.1 for m in f.of("light", "images")]
    return Basis([exact("bright images", sum(bright), len(bright))])


def tables(f):
    rows = [(who, percent(f.miou(who)), percent(f.ratio(who, ATTACK))) for who in ("plain", "blurred")]
    return [Table("mIoU and IoU ratio in %", ("network", "clean", "attacked"), rows)]


def light(work, batch):
    means = zip(batch.ids, batch.images.mean((1, 2, 3)), strict=True)
    return [Measure("light", "images", image, {}, {"mean": float(mean)}) for image, mean in means]


@study("toy2024")
def toy2024(tier="synthetic", data="data"):
    """Toy 2024: does a blur help?"""
    images = Images("streets(seed=0, scenes=4, frames=1, size='48x96', split='test')", counts=(2,), block=1)
    networks = {"plain": "zoo:erfnet-streets", "blurred": "gaussian_blur(network={plain})"}
    rows = [Row(who, who, "report", change) for who in networks for change in ("clean", ATTACK)]
    point = Point(1.0, 0.5, 0.4, 0.6, "a point")
    drawn = curves([Plot("a curve", [Line("plain", "rs-a0", "", 0, [point])], "%", 1.0)], x_label="eps")
    return Study(title="Toy 2024: does a blur help?", source="made up", tier=tier, protocol="two images",
        networks=networks, images={"report": images}, rows=rows, claims=(t1, t2), tables=tables,
        figures=lambda f: [Figure("A curve", drawn, "curve.svg")],
        extras=[Measuring("light", "images", lambda work: {"images": images.data}, light, "report")])
'''


def other_package(folder: Path) -> dict[str, str]:
    """An installed package with a study, and the environment in which it is seen."""
    (folder / "toypapers").mkdir()
    (folder / "toypapers" / "toy.py").write_text(TOY)
    installed = folder / "toypapers-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: toypapers\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[robustseg]\npapers = toypapers.toy\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}


def command(arguments: list[str], environment: dict[str, str], check: str = "") -> str:
    """What the command prints."""
    code = (
        f"import sys\nfrom robustseg.cli import app\ntry:\n    app({arguments!r})\n"
        f"except SystemExit as stop:\n    assert not stop.code\n{check}"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_fifth_paper_is_found_run_and_concluded_without_an_edit_elsewhere(tmp_path: Path) -> None:
    environment, out = other_package(tmp_path), tmp_path / "out"
    assert "Toy 2024: does a blur help?" in command(["list", "study"], environment)
    said = command(["reproduce", "toy2024", "--out", str(out), "--device", "cpu"], environment)
    assert "T2 held: 2 of 2 cases hold" in said
    page = (out / "tables.md").read_text()
    assert page.startswith("# Toy 2024")
    assert "| blurred |" in page
    assert "not run" not in page
    assert len((out / "records.jsonl").read_text().splitlines()) == 4
    # from the records alone, without torch, in another place: the same page
    no_torch = "assert 'torch' not in sys.modules, 'torch was loaded'"
    again = tmp_path / "again"
    command(["reproduce", "toy2024", "--from-records", str(out), "--out", str(again)], environment, no_torch)
    written = sorted(path.name for path in again.iterdir())
    assert written == ["curve.svg", "figures.html", "tables.md", "verdicts.json"]
    assert all((again / name).read_bytes() == (out / name).read_bytes() for name in written)


def test_every_study_opens_without_torch() -> None:
    code = (
        "import sys\nfrom robustseg.core import registry\nfrom robustseg.studies.study import opened\n"
        "names = [name for kind, name in registry.table() if kind == 'study']\n"
        "assert len(names) >= 4, names\n"
        "assert all(opened(name).claims for name in names)\n"
        "assert 'torch' not in sys.modules, 'torch was loaded'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


ATTACK = "pgd(budget='linf:4/255', steps=20)"


@claim("Z1", "both networks are measured")
def z1(f: Evidence) -> Basis:
    """A count."""
    return Basis([exact("measured", sum(not math.isnan(f.miou(who)) for who in ("a", "b")), 2)])


def small_study(**changes: object) -> Study:
    fields = {
        "title": "A paper",
        "source": "a source",
        "tier": "synthetic",
        "protocol": "a protocol",
        "networks": {"a": "zoo:first", "b": "zoo:second"},
        "images": {"report": Images(runs.DATA), "choose": Images("camvid(root='data', split='holdout')")},
        "rows": [Row(who, who) for who in "ab"],
        "claims": [z1],
        "tables": lambda f: [],
        "seeds": {"all": ("a", "b"), "a": ("a",)},
    }
    return Study(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("there", "here"),
    [
        (
            "weights('/home/x/networks/y/networks/a-0/best.safetensors')",
            "weights('runs/s/networks/a-0/best.safetensors')",
        ),
        ("camvid(root='/data/camvid', split='test')", "camvid(root='camvid', split='test')"),
        ("crf(network=weights('o/networks/a/b.safetensors'), senders=2)", "crf(network=weights('networks/a/b.safetensors'), senders=2)"),
    ],
)  # fmt: skip
def test_specs_of_another_machine_are_the_same(there: str, here: str) -> None:
    assert portable(there) == portable(here)


def test_specs_that_differ_in_more_than_the_folder_stay_apart() -> None:
    weights = [f"weights('r/networks/{who}/best.safetensors')" for who in ("a-0", "a-1")]
    specs = [*weights, "camvid(root='d/camvid', split='test')", "camvid(root='d/camvid', split='val')", "zoo:a"]
    assert len({portable(spec) for spec in specs}) == len(specs)


def test_records_are_found_by_role_images_perturbation_and_seed() -> None:
    found = Evidence(
        small_study(),
        [
            runs.record("zoo:first", "clean", 0.2),
            runs.record("zoo:first", ATTACK, 0.5),
            runs.record("zoo:second", ATTACK, 0.6, source="zoo:first"),
            dataclasses.replace(runs.record("zoo:second", ATTACK, 0.9, source="zoo:first"), seed=7),
            runs.record("zoo:second", ATTACK, 0.95, source="zoo:first", data="camvid(root='data', split='val')"),
            runs.record("zoo:third", ATTACK, 0.97),
        ],
    )
    own, other, drawn = (
        found.miou("a", ATTACK),
        found.miou("b", ATTACK, source="a"),
        found.miou("b", ATTACK, source="a", seed=7),
    )
    assert found.miou("a") > own > other > drawn
    assert math.isnan(found.miou("b", ATTACK))
    assert math.isnan(found.miou("a", images="choose"))
    assert found.ratio("a", ATTACK) == pytest.approx(own / found.miou("a"))
    assert math.isnan(found.ratio("b", ATTACK, source="a"))  # no clean record
    assert found.by_seed("all", found.miou) == [found.miou("a")]
    assert found.gains("a", "all", found.miou) == [0.0]


def test_a_ratio_is_over_the_images_that_were_attacked() -> None:
    clean, few = runs.record("zoo:first", "clean", 0.2, n=40), runs.record("zoo:first", ATTACK, 0.2, n=12)
    found = Evidence(small_study(), [clean, few])
    place = [clean.ids.index(name) for name in few.ids]
    assert found.ratio("a", ATTACK) == pytest.approx(found.miou("a", ATTACK) / found.miou("a", over=place))


def test_a_network_can_be_fitted_on_what_was_measured() -> None:
    networks = {"a": "zoo:first", "fitted": lambda f: f"jpeg(network={{a}}, quality={round(100 * f.miou('a'))})"}
    clean = runs.record("zoo:first", "clean", 0.2)
    quality = round(100 * Evidence(small_study(), [clean]).miou("a"))
    records = [clean, runs.record(f"jpeg(network=zoo:first, quality={quality})", "clean", 0.3)]
    assert Evidence(small_study(networks=networks), records).miou("fitted") > 0


def test_one_perturbation_serves_all_networks_that_are_measured_on_it() -> None:
    rows = [Row("a", "a"), Row("b", "b"), Row("a", "a", "report", ATTACK), Row("a", "b", "report", ATTACK)]
    other = [Row("b", "b", "report", ATTACK), Row("a", "a", "report", ATTACK, seed=1), Row("a", "a", "report", ATTACK)]
    assert [len(group) for group in passes(small_study(rows=[*rows, *other]))] == [2, 2, 1, 1]


def test_unknown_studies_and_options_are_said(tmp_path: Path) -> None:
    with pytest.raises(RobustsegError, match=r"expected a known study, got 'arnab2081'; try arnab2018"):
        opened("arnab2081")
    with pytest.raises(
        RobustsegError, match="expected an option of arnab2018, got rows; try tier, data, networks, size"
    ):
        opened("arnab2018", rows=("x",))
    with pytest.raises(RobustsegError, match=r"expected the tier in '.*verdicts\.json', got no such file; try --tier"):
        as_run("arnab2018", tmp_path)


@pytest.mark.parametrize(
    "text",
    ["5", "[]", "{broken", "", '{"tier": 5, "title": "x"}', '{"tier": "camvid"}', '{"title":"x","tier":"camvid","options":[]}',
     '{"title":"x","tier":"camvid","options":{"tier":[]}}', "[" * 100_000, '{"tier":"a","tier":"b","title":"x"}', "\ufeff\x00"],
)  # fmt: skip
def test_damaged_verdicts_are_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "verdicts.json").write_text(text)
    with pytest.raises(RobustsegError, match=r"expected .*; try"):
        as_run("arnab2018", tmp_path)


def test_what_records_say_is_no_markup_in_a_study(tmp_path: Path) -> None:
    """Neither in the page nor in the Markdown."""
    evil = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    drawn = {"words": lambda f: (evil,), "figures": lambda f: (Figure(evil, "<svg></svg>"),)}
    study = small_study(rows=[Row("a", "a")], name="small", protocol=evil, about={evil: evil}, **drawn)
    one = runs.record("zoo:first", "clean", 0.1, n=2)
    runs.write(tmp_path, [dataclasses.replace(one, device=evil, commit=evil, started=evil)])
    conclude(study, tmp_path)
    for name in ("tables.md", "figures.html"):
        text = (tmp_path / name).read_text()
        assert "&lt;img src=x" in text
        assert "<img src=x" not in text
        assert "<script>alert" not in text


def test_the_folder_of_another_study_gives_no_page(tmp_path: Path) -> None:
    """Neither one that names its study nor one whose records are of other networks."""
    told = {"title": "Toy 2024", "tier": "synthetic", "options": {}}
    (tmp_path / "verdicts.json").write_text(json.dumps(told))
    for tier in (None, "synthetic"):
        with pytest.raises(
            RobustsegError, match=r"expected 'Arnab et al.* got 'Toy 2024'; try the study of that folder"
        ):
            as_run("arnab2018", tmp_path, tier)
    (tmp_path / "verdicts.json").unlink()
    folder = runs.write(tmp_path, runs.run(("zoo:a",), n=2)[:2])
    with pytest.raises(
        RobustsegError, match="got 2 of other networks or images; try the folder of robustseg reproduce arnab"
    ):
        conclude(as_run("arnab2018", folder, "synthetic"), folder)
    assert not (tmp_path / "tables.md").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["arnab2018"], "expected a folder for the results, got none; try --out runs/NAME, or --from-records"),
        (["arnab2018", "--from-records", "x", "--rows", "a"], "expected --from-records without --rows, got both"),
        (["arnab2018", "--from-records", "x", "--tier", "camvid"], "expected records of the study in 'x', got none"),
        (["arnab2018", "--out", "x", "--tier", "mars"], "expected a tier, got 'mars'; try synthetic, camvid, full"),
    ],
)  # fmt: skip
def test_what_the_command_cannot_do_is_said(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["reproduce", *arguments])
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_a_figure_is_written_beside_the_papers() -> None:
    assert str(Beside((61.0, 62.0, 63.0), 61.5)) == "62.0 ± 1.0 (61.5)"
    assert str(Beside((61.04,))) == "61.0"
    assert str(Beside((), 50.0)) == "not run (50.0)"


def test_tables_can_be_read_by_people_and_scripts() -> None:
    table = Table("Table <1>", ("network", "clean"), (("T", Beside((50.0,), 75.4)), ("S", Beside(()))), "A note.")
    assert "| T | 50.0 (75.4) |\n| S | not run |" in table.markdown()
    assert "A note." in table.markdown()
    odd = Table("t", ("network",), (("a | b\nc",),))
    assert "| a \\| b c |" in odd.markdown(), "one cell of one line"
    assert "Table &lt;1&gt;" in table.html()
    plain = json.loads(json.dumps(table.to_json()))
    assert plain["rows"] == [["T", {"ours": [50.0], "theirs": 75.4}], ["S", {"ours": [], "theirs": None}]]


def test_verdicts_say_what_they_are_of() -> None:
    found = Evidence(small_study(), [runs.record(spec, "clean", 0.2) for spec in ("zoo:first", "zoo:second")])
    verdict = z1.verdict(found)
    assert (verdict.claim, verdict.statement, verdict.verdict) == ("Z1", "both networks are measured", HELD)
    assert "2 of 2" in verdict.numbers


def test_networks_that_differ_in_their_folder_alone_are_not_confused() -> None:
    here = {who: f"weights('runs/{who}/best.safetensors')" for who in "ab"}
    records = [runs.record(spec, "clean", share) for spec, share in zip(here.values(), (0.2, 0.6), strict=True)]
    alone = [Evidence(small_study(networks=here), [one]).miou(who) for who, one in zip("ab", records, strict=True)]
    for order in (records, records[::-1]):
        found = Evidence(small_study(networks=here), order)
        assert [found.miou(who) for who in "ab"] == alone
    elsewhere = Evidence(
        small_study(networks={who: spec.replace("runs", "other") for who, spec in here.items()}), records
    )
    assert all(math.isnan(elsewhere.miou(who)) for who in "ab"), "which is which is not known there"


def test_records_of_another_size_or_of_fewer_images_are_not_shown() -> None:
    images = {"report": Images(runs.DATA, (12, 16)), "few": Images(runs.DATA, (12, 16), counts=(12,))}
    whole, few = runs.record("zoo:first", "clean", 0.2), runs.record("zoo:first", "clean", 0.4, n=12)
    other = runs.record("zoo:first", "clean", 0.9, size=(24, 32))
    found = Evidence(small_study(images=images), [whole, few, other])
    assert found.miou("a") == metrics.miou(whole.counts)
    assert found.miou("a", images="few") == metrics.miou(few.counts)
    assert math.isnan(Evidence(small_study(images=images), [other]).miou("a"))


def test_gains_are_those_of_single_networks_too() -> None:
    found = Evidence(small_study(), [runs.record("zoo:first", "clean", 0.2), runs.record("zoo:second", "clean", 0.4)])
    assert found.gains("a", "b", found.miou) == [found.miou("a") - found.miou("b")]


def test_a_row_shows_the_present_state_in_the_precision_of_the_row(tmp_path: Path) -> None:
    known = {"weights": "w", "source_weights": "w", "content": "c"}
    first = runs.record("zoo:first", "clean", 0.2, **known)
    second = runs.record("zoo:first", "clean", 0.4, **{**known, "content": "other masks"})
    half = runs.record("zoo:first", "clean", 0.9, precision="bfloat16", **known)
    study = small_study()
    for records in ([first, second], [first, second, first], [first, half]):
        folder = runs.write(tmp_path / str(len(list(tmp_path.iterdir()))), records)
        now = second if records[-1] is second else first
        assert Evidence.read(study, folder).miou("a") == metrics.miou(now.counts)


def test_two_steps_that_measure_once_do_not_stand_for_each_other(tmp_path: Path) -> None:
    def step(kind: str) -> Measuring:
        return Measuring(kind, "x", lambda work: {}, lambda work, batch: [Measure(kind, "x", "", {}, {"n": 1.0})])

    work = Work(small_study(), tmp_path)
    for kind in ("one", "two", "two"):
        step(kind).run(work)
    assert [m.kind for m in read_measures(tmp_path)] == ["one", "two"]
    assert len((tmp_path / "measures.jsonl").read_text().splitlines()) == 2


def test_a_page_says_which_images_and_masks_were_measured() -> None:
    known = runs.record("zoo:first", "clean", 0.2, content="abc")
    assert made_by([known])["images and masks"] == "digests abc (camvid, 40)"
    assert "images and masks" not in made_by([runs.record("zoo:first", "clean", 0.2)])
