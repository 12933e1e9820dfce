"""The study of Arnab et al. 2018: verdicts and words follow from made-up records, and the whole path runs on streets."""

import dataclasses
import json
import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import runs
from robustseg import api
from robustseg.core.budget import Budget
from robustseg.core.errors import RobustsegError
from robustseg.core.files import append_line, json_line, make_folder, write_whole
from robustseg.networks.weights import save
from robustseg.report.figures import Line, Plot, Point, scatter
from robustseg.results.findings import OK, SUSPICIOUS, Finding
from robustseg.results.record import Counts
from robustseg.studies import arnab2018, run
from robustseg.studies.arnab2018 import (
    AROUND,
    BRANCHES,
    CRF,
    FRONTS,
    ITERATIVE,
    MULTI,
    SINGLE,
    TARGETED,
    UNTARGETED,
    Attacks,
    setting,
)
from robustseg.studies.arnab2018_tables import tables
from robustseg.studies.arnab2018_words import panels, versus, words
from robustseg.studies.evidence import Evidence
from robustseg.studies.page import conclude
from robustseg.studies.study import Row, Study, opened
from robustseg.studies.trainings import Training
from robustseg.studies.verdicts import HELD, NOT_HELD, NOT_TESTABLE
from robustseg.training import Recipe
from robustseg.training.task import Task

NAMES = ("first", "second", "second-seed1", "second-seed2", "third")
ATTACKS = Attacks(single=(1, 4, 8), iterative=(1, 4, 8), sea=(1,), sea_steps=3, around=(4, 8), transfer=8)
SETTING = arnab2018.Setting(
    networks={name: f"zoo:{name}" for name in NAMES},
    data=runs.DATA,
    choose="",
    size=None,
    attacks=ATTACKS,
    protocol="A protocol",
    widths=("third", "second", "first"),
    block=1,
)
MASKING = Finding("transfer", SUSPICIOUS, "CRF", "s", text="A stranger serves better.")

Left = Callable[[Row], float]


def study_with(**changes: object) -> Study:
    return arnab2018.study_of("synthetic", dataclasses.replace(SETTING, **changes))


def pair(source: str, target: str, attack: str) -> Row:
    return Row(source, target, arnab2018.images_of(attack), attack)


def as_claimed(row: Row) -> float:
    """IoU ratios with which every claim holds."""
    source, target, attack = row.source, row.target, row.perturbation
    eps = float(attack.partition(":")[2].partition("/")[0])
    own = {1.0: 0.6, 4.0: 0.3, 8.0: 0.1}[eps]
    if attack.startswith("pgd"):
        return own + 0.3 if target in FRONTS and source != target else own
    if attack in (spec.format(eps) for spec in SINGLE.values()):
        return own + 0.1
    if target == CRF:
        if attack == TARGETED.format(eps):
            return own
        return own + 0.5 if source == CRF else own + 0.2
    if MULTI in (source, target):
        return own + (0.05 if source == target else 0.2)
    strength = {"second": -0.02, "second-seed1": -0.01, "second-seed2": -0.03, "third": -0.05}.get(target, 0.0)
    return own + strength if source == target else own + 0.3


def counts(share: float, images: int = 4) -> Counts:
    """Of images with this mIoU, all of one class."""
    right = round(1_000_000 * share)
    zero, confusion = np.zeros((images, 4), np.int64), np.zeros((4, 5), np.int64)
    tp, wrong = zero.copy(), zero.copy()
    tp[:, 0], wrong[:, 0] = right, 1_000_000 - right
    confusion[0, 0], confusion[0, -1] = tp.sum(), wrong.sum()
    return Counts(tuple(runs.ids(images)), confusion, tp, zero, wrong)


def evidence(
    left: Left = as_claimed,
    *,
    clean: dict[str, Counts] | None = None,
    folder: Path = Path("nowhere"),
    nothing: bool = False,
    **changes: object,
) -> Evidence:
    """Made-up records of the whole study: every network is right at 80 % of the pixels, and keeps `left` of that."""
    study, known = study_with(**changes), {} if clean is None else clean
    roles = Evidence(study, [])
    found = []
    for row in () if nothing else study.rows:
        own = known.get(row.target, counts(0.8)) if row.perturbation == "clean" else counts(0.8 * left(row))
        specs = roles.spec(row.target), row.perturbation
        found.append(runs.record(*specs, 0, n=4, source=roles.spec(row.source), counts=own))
    return Evidence(study, found, folder=folder)


def audited(folder: Path, *findings: Finding) -> Path:
    make_folder(folder / "crf")
    for finding in findings:
        append_line(folder / "crf" / "audit.jsonl", finding.to_json())
    return folder


def verdicts(found: Evidence) -> dict[str, str]:
    return {claim.name: claim.verdict(found).verdict for claim in found.study.claims}


def changed(new: dict[Row, float]) -> Left:
    return lambda row: new.get(row, as_claimed(row))


def test_every_claim_holds_where_everything_is_as_claimed(tmp_path: Path) -> None:
    found = evidence(folder=audited(tmp_path, MASKING))
    assert verdicts(found) == dict.fromkeys(("A1", "A2", "A3", "A4", "A5", "A6", "A7"), HELD)


def test_without_records_nothing_is_claimed_and_nothing_said() -> None:
    found = evidence(nothing=True)
    assert set(verdicts(found).values()) == {NOT_TESTABLE}
    assert words(found) == []
    assert "nan" not in "".join(table.markdown() for table in tables(found))


FAR = "third"


@pytest.mark.parametrize(
    ("claim", "new"),
    [
        ("A1", {pair(FAR, FAR, UNTARGETED.format(4)): 0.6}),  # from 55 % at 1/255
        ("A1", {pair(FAR, FAR, UNTARGETED.format(1)): 1.1}),
        ("A2", {pair(FAR, FAR, UNTARGETED.format(4)): 0.41}),  # FGSM leaves 40 %
        ("A3", {pair(FAR, FAR, TARGETED.format(8)): 0.26}),
        ("A4", {pair("first", MULTI, UNTARGETED.format(4)): 0.29}),  # no gain on the branch
        ("A4", {pair(MULTI, MULTI, TARGETED.format(8)): 0.4}),  # the gap grows
        ("A4", {pair(MULTI, MULTI, TARGETED.format(8)): 0.07}),  # and is below 0
        ("A5", {pair("scale 0.5", "first", UNTARGETED.format(4)): 0.2}),
        ("A6", {pair("JPEG", "JPEG", ATTACKS.pgd_spec(4)): 0.4}),  # a defence
        ("A6", {pair("first", "JPEG", ATTACKS.pgd_spec(4)): 0.3}),  # the unaware attack is as strong
        ("A7", {pair(CRF, CRF, UNTARGETED.format(4)): 0.3}),  # no higher than the network
        ("A7", {pair(CRF, CRF, TARGETED.format(4)): 0.5}),  # holds against targets too
        ("A7", {pair("first", CRF, UNTARGETED.format(8)): 0.7}),  # transfer is weaker
    ],
)
def test_a_claim_falls_with_any_of_its_parts_and_says_where(claim: str, new: dict[Row, float], tmp_path: Path) -> None:
    found = evidence(changed(new), folder=audited(tmp_path, MASKING))
    verdict = next(one for one in found.study.claims if one.name == claim).verdict(found)
    assert verdict.verdict == NOT_HELD
    assert next(iter(new)).perturbation.partition("linf:")[2].partition("'")[0] in verdict.numbers


def test_an_exact_claim_prints_its_count() -> None:
    found = evidence(changed({pair(FAR, FAR, UNTARGETED.format(4)): 0.6}))
    assert "49 of 50 cases hold" in arnab2018.a1.verdict(found).numbers  # 5 networks, 2 attacks, 3 eps and 2 steps


def test_masking_is_what_the_audit_says(tmp_path: Path) -> None:
    sound = Finding("transfer", OK, "CRF", "s")
    short = Finding("more_steps", SUSPICIOUS, "CRF", "s")  # stopped too early: no sign of masking
    assert verdicts(evidence(folder=audited(tmp_path, sound, short)))["A7"] == NOT_HELD
    assert verdicts(evidence())["A7"] == NOT_TESTABLE


def test_claims_on_plain_networks_leave_out_those_that_hide() -> None:
    new = {pair(FAR, FAR, TARGETED.format(8)): 0.9, pair(FAR, FAR, TARGETED.format(4)): 0.9}
    assert verdicts(evidence(changed(new)))["A3"] == NOT_HELD
    networks = {**SETTING.networks, FAR: f"crf(network=zoo:{FAR}, senders=4)"}
    assert verdicts(evidence(changed(new), networks=networks))["A3"] == HELD


def test_words_follow_the_figures_with_their_spread(tmp_path: Path) -> None:
    said = words(evidence(folder=audited(tmp_path, MASKING)))
    text = " ".join(said)
    assert "**The most robust here: first.**" in text
    assert "first 60.0, second 58.0, third 55.0" in text
    assert "**Width.** From narrow to wide the share that is kept rises: third 55.0, second 58.0, first 60.0." in text
    assert "**A CRF only looks robust.** It keeps 60.0 % where first keeps 10.0" in text
    assert "The audit says of it: A stranger serves better." in text
    assert "**Input transformations are no defence.**" in text
    assert "**No architecture is a defence.** Iterative FGSM at 8/255" in text
    assert said[-1].startswith("**Limits.** A protocol; 4 images a figure")
    other = " ".join(words(evidence(changed({pair(f, f, ATTACKS.pgd_spec(8, f)): 0.6 for f in FRONTS}))))
    assert "Input transformations are no defence" not in other


def test_a_network_that_sees_little_is_not_the_robust_one() -> None:
    attacks = [attack for by_eps in ATTACKS.families().values() for attack in by_eps.values()]
    blind = changed({pair(FAR, FAR, attack): 1.0 for attack in attacks})
    assert "The most robust here: third." in words(evidence(blind))[0]
    assert verdicts(evidence(blind))["A3"] == NOT_HELD
    found = evidence(blind, clean={FAR: counts(0.39)})
    text = " ".join(words(found))
    assert "The most robust here: first." in text
    assert "Left out, since they see less than half as much as the best: third." in text
    assert "third 100.0" not in text
    assert verdicts(found)["A3"] == HELD


def test_networks_within_the_spread_of_seeds_are_not_told_apart() -> None:
    sea = ATTACKS.sea_spec(1)
    shares = {"first": 0.5, "second": 0.48, "second-seed1": 0.44, "second-seed2": 0.46, "third": 0.2}
    text = words(evidence(changed({pair(n, n, sea): share for n, share in shares.items()})))[0]
    assert "first 50.0, second 46.0, third 20.0" in text
    assert "differ by 2.0 points" in text
    assert text.endswith("not told apart from first by that: second.")


def test_seeds_belong_together_whichever_comes_first() -> None:
    networks = {name: "zoo:x" for name in ("a-seed2", "b", "a-seed0", "b-seed1")}
    groups = dataclasses.replace(SETTING, networks=networks).groups
    assert groups == {"a-seed2": ("a-seed2", "a-seed0"), "b": ("b", "b-seed1")}


def test_one_attack_serves_all_who_are_measured_on_it() -> None:
    study = study_with()
    served = [group for group in run.passes(study) if group[0].source == "first"]
    transfer = next(g for g in served if g[0].perturbation == UNTARGETED.format(8))
    assert {row.target for row in transfer} == {"first", "second", "third", MULTI, CRF, *BRANCHES}
    assert not any("-seed" in row.source and row.source != row.target for row in study.rows)
    attack = "pgd(budget='linf:4/255', steps=10, draws=8)"
    assert Row("resize and pad", "resize and pad", "report", attack) in study.rows


@pytest.mark.parametrize("tier", ["synthetic", "camvid"])
def test_what_is_asked_for_is_spelled_as_it_is_recorded(tier: str) -> None:
    found = setting(tier, "data")
    for attack in {row.perturbation for row in found.rows()}:
        assert api.perturbation(attack).spec == attack
    for by_eps in found.attacks.families().values():
        for eps, attack in by_eps.items():
            assert api.perturbation(attack).arguments["budget"] == Budget("linf", eps / 255)  # type: ignore[attr-defined]
    for spec in AROUND.values():
        wrapped = spec.format("erfnet(classes='camvid')")
        assert api.network(wrapped).spec == wrapped


def test_tiers_take_networks_and_images_of_the_user() -> None:
    own = setting("full", "folder(root='x')", ["zoo:a", "enet(others=1, weights='x/net.pth')"], (8, 16))
    assert own.networks == {"a": "zoo:a", "enet": "enet(others=1, weights='x/net.pth')"}
    assert (own.data, own.size) == ("folder(root='x')", (8, 16))
    some = setting("camvid", "elsewhere", ["erfnet-half", "erfnet", "zoo:b"])
    assert list(some.networks) == ["erfnet-half", "erfnet", "b"]
    assert some.widths == ("erfnet-half", "erfnet")
    assert "elsewhere/camvid" in some.data
    with pytest.raises(RobustsegError, match="expected networks for tier full, got none; try --network"):
        setting("full", "data")
    with pytest.raises(RobustsegError, match="expected a tier, got 'huge'"):
        setting("huge", "data")


def test_the_trainings_of_a_tier_differ_in_architecture_and_seed_alone() -> None:
    given = [how for how in setting("camvid", "data").networks.values() if isinstance(how, Training)]
    assert len({dataclasses.replace(Recipe(**how.recipe), seed=0) for how in given}) == 1
    assert len({(how.architecture, how.recipe["seed"]) for how in given}) == 13


def test_the_page_draws_every_attack_and_escapes(tmp_path: Path) -> None:
    found = evidence(protocol="a <protocol>")
    assert [panel.title for panel in panels(found)] == [*SINGLE, *ITERATIVE, "SEA"]
    assert [len(panel.lines) for panel in panels(found)] == [3] * 5
    assert versus(found, ATTACKS.sea_spec(1)).count("rs-point") >= 3
    write_whole(tmp_path / "records.jsonl", "".join(json_line(r.to_json()) for r in found.records))
    conclude(found.study, tmp_path)
    text = (tmp_path / "figures.html").read_text()
    assert "a &lt;protocol&gt;" in text
    assert "<b>The most robust here: first.</b>" in text
    assert "http" not in text.replace("http-equiv", "")
    assert json.loads((tmp_path / "verdicts.json").read_text())["words"] == words(found)


def test_shares_stand_evenly_on_both_axes_of_a_scatter() -> None:
    lines = [Line(str(x), "rs-a0", "", 0, [Point(x / 10, 0.5, math.nan, math.nan, "")]) for x in (3, 5, 7)]
    text = scatter(Plot("", lines, "ratio", math.nan), x_label="clean")
    ticks = {label: float(x) for x, label in re.findall(r'x="([\d.]+)" y="312" text-anchor="middle">(\d+)<', text)}
    marks = sorted({float(x) for x in re.findall(r'cx="([\d.]+)"', text.partition('class="rs-leader"')[0])})
    assert list(ticks) == ["30", "40", "50", "60", "70", "80"][: len(ticks)]
    assert marks == pytest.approx([ticks["30"], ticks["50"], ticks["70"]])
    gaps = [b - a for a, b in pairwise(ticks.values())]
    assert gaps == pytest.approx([gaps[0]] * len(gaps), abs=0.2)


class Finished:
    """A training that was done in no time."""

    def __init__(self, task: Task, folder: Path):
        self.setup, self.folder = task.setup, folder

    def run(self, *_: object, tensorboard: bool) -> Path:
        save(self.setup.network, self.folder / "best.safetensors")
        write_whole(self.folder / "history.jsonl", json_line({"epoch": self.setup.recipe.epochs}))
        return self.folder


def test_a_network_trained_by_another_recipe_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = opened("arnab2018")
    given, work = study.networks["erfnet-eighth"], run.Work(study, tmp_path)
    assert isinstance(given, Training)
    assert not given.finished(work, "x")
    monkeypatch.setattr("robustseg.training.run.Training", Finished)
    given.train(work, "x")
    assert given.finished(work, "x")
    wider = given.architecture.replace("width=0.125", "width=0.25")
    for changed, named in (
        ({"recipe": {**given.recipe, "seed": 5}}, "seed 0"),
        ({"data": given.data.replace("seed=", "seed=1")}, "data .streets"),
        ({"architecture": wider}, "network spec .erfnet"),
    ):
        with pytest.raises(RobustsegError, match=f"expected {named}.* of the run in .*; try another folder"):
            dataclasses.replace(given, **changed).finished(work, "x")


@pytest.mark.slow
def test_the_study_runs_resumes_and_runs_nothing_twice(tmp_path: Path) -> None:
    study = opened("arnab2018")
    found = run.reproduce(study, tmp_path)
    assert [f.claim for f in found] == ["A1", "A2", "A3", "A4", "A5", "A6", "A7"]
    assert NOT_TESTABLE not in {f.verdict for f in found}
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.jsonl")}
    assert all(seconds == 0 for seconds in run.costs(study, tmp_path).values())
    run.reproduce(study, tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.jsonl")}
    assert json.loads((tmp_path / "verdicts.json").read_text())["words"]
