"""The study of Arnab et al. 2018: verdicts and words follow from made-up records, and the whole path runs on streets."""

import dataclasses
import json
import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import runs
from robustseg import api
from robustseg.cli import app
from robustseg.core.budget import Budget
from robustseg.core.errors import RobustsegError
from robustseg.core.files import json_line, write_whole
from robustseg.networks.weights import save
from robustseg.report.figures import Line, Plot, Point, scatter
from robustseg.results.findings import OK, SUSPICIOUS
from robustseg.results.findings import Finding as Audited
from robustseg.results.record import Counts, Record
from robustseg.studies import arnab2018
from robustseg.studies.arnab2018_claims import findings, tables
from robustseg.studies.arnab2018_evidence import (
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
    Evidence,
    Need,
    first_seeds,
    needs,
)
from robustseg.studies.arnab2018_figures import page, panels, versus
from robustseg.studies.arnab2018_tiers import tier
from robustseg.studies.arnab2018_words import words
from robustseg.studies.pretraining import Pretraining
from robustseg.studies.study import HELD, NOT_HELD, NOT_TESTABLE

NAMES = ("first", "second", "second-seed1", "second-seed2", "third")
ATTACKS = Attacks(single=(1, 4, 8), iterative=(1, 4, 8), sea=(1,), sea_steps=3, around=(4, 8), transfer=8)
MASKING = Audited("transfer", SUSPICIOUS, "CRF", "s", text="A stranger serves better.")

Left = Callable[[Need], float]


def as_claimed(need: Need) -> float:
    """IoU ratios with which every claim holds."""
    source, target, attack = need
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
    if source == MULTI or target == MULTI:
        return own + (0.05 if source == target else 0.2)
    strength = {"second": -0.02, "second-seed1": -0.01, "second-seed2": -0.03, "third": -0.05}.get(target, 0.0)
    return own + strength if source == target else own + 0.3


def counts(share: float, images: int = 4) -> Counts:
    """Of images with this mIoU."""
    right = round(1_000_000 * share)
    zero = torch.zeros(images, 4, dtype=torch.int64).numpy()
    tp, wrong = zero.copy(), zero.copy()
    tp[:, 0], wrong[:, 0] = right, 1_000_000 - right
    return Counts(tuple(runs.ids(images)), torch.zeros(4, 5, dtype=torch.int64).numpy(), tp, zero, wrong)


def evidence(
    left: Left = as_claimed, *, audited=(MASKING,), keep: Callable[[Need], bool] = lambda need: True
) -> Evidence:  # type: ignore[no-untyped-def]
    """Made-up records of the whole study: every network is right at 80 % of the pixels, and keeps `left` of that."""

    def record(source: str, target: str, attack: str, share: float) -> Record:
        return runs.record(target, attack, 0, n=4, source=source, counts=counts(share))

    wanted = [need for need in needs(NAMES, ATTACKS) if keep(need)]
    found = [record(who, who, "clean", 0.8) for who in (*NAMES, *AROUND)] if wanted else []
    found += [record(*need, 0.8 * left(need)) for need in wanted]
    specs = {role: role for role in (*NAMES, *AROUND)}
    return Evidence(
        found, specs, data=runs.DATA, names=NAMES, attacks=ATTACKS, widths=("third", "second", "first"), audited=audited
    )


def verdicts(found: Evidence) -> dict[str, str]:
    return {finding.claim: finding.verdict for finding in findings(found)}


def changed(new: dict[Need, float]) -> Left:
    return lambda need: new.get(need, as_claimed(need))


def test_every_claim_holds_where_everything_is_as_claimed() -> None:
    assert verdicts(evidence()) == dict.fromkeys(("A1", "A2", "A3", "A4", "A5", "A6", "A7"), HELD)


def test_without_records_nothing_is_claimed_and_nothing_said() -> None:
    nothing = evidence(keep=lambda need: False, audited=())
    assert set(verdicts(nothing).values()) == {NOT_TESTABLE}
    assert words(nothing, "a protocol") == []
    assert "nan" not in "".join(table.markdown() for table in tables(nothing))


FAR = "third"


@pytest.mark.parametrize(
    ("claim", "new"),
    [
        ("A1", {Need(FAR, FAR, UNTARGETED.format(4)): 0.6}),  # from 55 % at 1/255
        ("A1", {Need(FAR, FAR, UNTARGETED.format(1)): 1.1}),
        ("A2", {Need(FAR, FAR, UNTARGETED.format(4)): 0.41}),  # FGSM leaves 40 %
        ("A3", {Need(FAR, FAR, TARGETED.format(8)): 0.26}),
        ("A4", {Need("first", MULTI, UNTARGETED.format(4)): 0.29}),  # no gain on the branch
        ("A4", {Need(MULTI, MULTI, TARGETED.format(8)): 0.4}),  # the gap grows
        ("A4", {Need(MULTI, MULTI, TARGETED.format(8)): 0.07}),  # and is below 0
        ("A5", {Need("scale 0.5", "first", UNTARGETED.format(4)): 0.2}),
        ("A6", {Need("JPEG", "JPEG", ATTACKS.pgd_spec(4)): 0.4}),  # a defence
        ("A6", {Need("first", "JPEG", ATTACKS.pgd_spec(4)): 0.3}),  # the unaware attack is as strong
        ("A7", {Need(CRF, CRF, UNTARGETED.format(4)): 0.3}),  # no higher than the network
        ("A7", {Need(CRF, CRF, TARGETED.format(4)): 0.5}),  # holds against targets too
        ("A7", {Need("first", CRF, UNTARGETED.format(8)): 0.7}),  # transfer is weaker
    ],
)
def test_a_claim_falls_with_any_of_its_parts_and_says_where(claim: str, new: dict[Need, float]) -> None:
    found = {f.claim: f for f in findings(evidence(changed(new)))}
    assert found[claim].verdict == NOT_HELD
    need = next(iter(new))
    assert need.attack.partition(":")[2].partition("'")[0] in found[claim].numbers.partition("not:")[2]


def test_masking_is_what_the_audit_says() -> None:
    sound = Audited("transfer", OK, "CRF", "s")
    short = Audited("more_steps", SUSPICIOUS, "CRF", "s")  # stopped too early: no sign of masking
    assert verdicts(evidence(audited=(sound, short)))["A7"] == NOT_HELD
    assert verdicts(evidence(audited=()))["A7"] == NOT_TESTABLE


def test_claims_on_plain_networks_leave_out_those_that_hide() -> None:
    found = evidence(changed({Need(FAR, FAR, TARGETED.format(8)): 0.9, Need(FAR, FAR, TARGETED.format(4)): 0.9}))
    assert verdicts(found)["A3"] == NOT_HELD
    found.several = (FAR,)
    assert verdicts(found)["A3"] == HELD


def test_a_ratio_is_over_the_images_that_were_attacked() -> None:
    found, few = evidence(), counts(0.4, 4)
    attack = ATTACKS.sea_spec(1)
    half = Counts(few.ids[:2], few.confusion, few.tp[:2], few.fp[:2], few.fn[:2])
    clean = Counts(few.ids, few.confusion, few.tp.copy(), few.fp, few.fn.copy())
    clean.tp[2:, 0], clean.fn[2:, 0] = 0, 1_000_000  # what is not attacked is all wrong
    found._clean["first"] = [runs.record("first", "clean", 0, n=4, counts=clean)]
    found._found[Need("first", "first", attack)] = runs.record("first", attack, 0, n=4, counts=half)
    assert found.ratio("first", attack) == pytest.approx(1.0)
    assert found.clean("first") == pytest.approx(0.2)


def test_words_follow_the_figures_with_their_spread() -> None:
    said = words(evidence(), "A protocol")
    text = " ".join(said)
    assert "**The most robust here: first.**" in text
    assert "first 60.0, second 58.0, third 55.0" in text
    assert "**Width.** From narrow to wide the share that is kept rises: third 55.0, second 58.0, first 60.0." in text
    assert "**A CRF only looks robust.** It keeps 60.0 % where first keeps 10.0" in text
    assert "**Input transformations are no defence.**" in text
    assert "**No architecture is a defence.** Iterative FGSM at 8/255" in text
    assert said[-1].startswith("**Limits.** A protocol; 4 images a figure")
    other = " ".join(words(evidence(changed({Need(f, f, ATTACKS.pgd_spec(8, f)): 0.6 for f in FRONTS})), "p"))
    assert "Input transformations are no defence" not in other


def test_a_network_that_sees_little_is_not_the_robust_one() -> None:
    blind = {Need(FAR, FAR, attack): 1.0 for by_eps in ATTACKS.families().values() for attack in by_eps.values()}
    found = evidence(changed(blind))
    assert "The most robust here: third." in words(found, "p")[0]
    assert verdicts(found)["A3"] == NOT_HELD
    found._clean[FAR] = [runs.record(FAR, "clean", 0, n=4, counts=counts(0.39))]
    text = " ".join(words(found, "p"))
    assert "The most robust here: first." in text
    assert "Left out, since they see less than half as much as the best: third." in text
    assert "third 100.0" not in text
    assert verdicts(found)["A3"] == HELD
    found._clean.pop(FAR)
    assert "Left out" not in " ".join(words(found, "p")), "what was not measured is called blind"


def test_networks_within_the_spread_of_seeds_are_not_told_apart() -> None:
    sea = ATTACKS.sea_spec(1)
    shares = {"first": 0.5, "second": 0.48, "second-seed1": 0.44, "second-seed2": 0.46, "third": 0.2}
    text = words(evidence(changed({Need(n, n, sea): share for n, share in shares.items()})), "p")[0]
    assert "first 50.0, second 46.0, third 20.0" in text
    assert "differ by 2.0 points" in text
    assert text.endswith("not told apart from first by that: second.")


def test_seeds_belong_together_whichever_comes_first() -> None:
    assert first_seeds(["a-seed2", "b", "a-seed0", "b-seed1"]) == ["a-seed2", "b"]
    assert evidence().seeds("second-seed1") == ["second", "second-seed1", "second-seed2"]


def test_one_attack_serves_all_who_are_measured_on_it() -> None:
    wanted = needs(NAMES, ATTACKS)
    assert len(set(wanted)) == len(wanted)
    served = {n.target for n in wanted if (n.source, n.attack) == ("first", UNTARGETED.format(8))}
    assert served == {"first", "second", "third", MULTI, CRF, *BRANCHES}
    assert not any("-seed" in n.source and n.source != n.target for n in wanted)
    assert Need("resize and pad", "resize and pad", "pgd(budget='linf:4/255', steps=10, draws=8)") in wanted


@pytest.mark.parametrize(
    ("attack", "steps"),
    [
        (None, 0),
        (SINGLE["FGSM ll"].format(8), 1),
        (UNTARGETED.format(0.25), 1),
        (UNTARGETED.format(8), 10),
        (TARGETED.format(32), 36),
        (ATTACKS.sea_spec(1), 9),
        (ATTACKS.pgd_spec(4, "resize and pad"), 80),
    ],
)
def test_the_gradients_of_an_attack_are_counted(attack: str | None, steps: int) -> None:
    assert arnab2018.gradients(attack) == steps


def test_what_is_asked_for_is_spelled_as_it_is_recorded() -> None:
    for by_eps in ATTACKS.families().values():
        for eps, spec in by_eps.items():
            built = api.perturbation(spec)
            assert built.spec == spec
            assert built.arguments["budget"] == Budget("linf", eps / 255)  # type: ignore[attr-defined]


def test_tiers_take_networks_and_images_of_the_user() -> None:
    own = tier("full", "folder(root='x')", networks=["zoo:a", "enet(others=1, weights='x/net.pth')"], size=(8, 16))
    assert own.networks == {"a": "zoo:a", "enet": "enet(others=1, weights='x/net.pth')"}
    assert (own.data, own.size) == ("folder(root='x')", (8, 16))
    some = tier("camvid", "elsewhere", networks=["erfnet-half", "erfnet", "zoo:b"])
    assert list(some.networks) == ["erfnet-half", "erfnet", "b"]
    assert some.widths == ("erfnet-half", "erfnet")
    assert "elsewhere/camvid" in some.data
    with pytest.raises(RobustsegError, match="expected networks for tier full, got none; try --network"):
        tier("full")
    with pytest.raises(RobustsegError, match="expected a tier, got 'huge'"):
        tier("huge")


def test_the_trainings_of_a_tier_differ_in_architecture_and_seed_alone() -> None:
    recipes = [given.recipe for given in tier("camvid").networks.values() if not isinstance(given, str)]
    assert len({dataclasses.replace(recipe, seed=0) for recipe in recipes}) == 1


def test_the_page_draws_every_attack_and_escapes() -> None:
    found = evidence()
    assert [panel.title for panel in panels(found)] == [*SINGLE, *ITERATIVE, "SEA"]
    assert [len(panel.lines) for panel in panels(found)] == [3] * 5
    text = page(
        "A <title>", found, claims=findings(found), tables=tables(found), words=["**So** & so"], about={"tier": "t"}
    )
    assert "A &lt;title&gt;" in text
    assert "<b>So</b> &amp; so" in text
    assert "http" not in text.replace("http-equiv", "")
    assert versus(found, ATTACKS.sea_spec(1)).count("rs-point") >= 3


def test_shares_stand_evenly_on_both_axes_of_a_scatter() -> None:
    lines = [Line(str(x), "rs-a0", "", 0, [Point(x / 10, 0.5, math.nan, math.nan, "")]) for x in (3, 5, 7)]
    text = scatter(Plot("", lines, "ratio", math.nan), x_label="clean")
    ticks = {label: float(x) for x, label in re.findall(r'x="([\d.]+)" y="312" text-anchor="middle">(\d+)<', text)}
    marks = sorted({float(x) for x in re.findall(r'cx="([\d.]+)"', text.partition('class="rs-leader"')[0])})
    assert list(ticks) == ["30", "40", "50", "60", "70", "80"][: len(ticks)]
    assert marks == pytest.approx([ticks["30"], ticks["50"], ticks["70"]])
    gaps = [b - a for a, b in pairwise(ticks.values())]
    assert gaps == pytest.approx([gaps[0]] * len(gaps), abs=0.2)


def test_a_network_trained_by_another_recipe_is_refused(tmp_path: Path) -> None:
    given = tier("synthetic").networks["erfnet-eighth"]
    assert isinstance(given, Pretraining)
    assert not given.finished(tmp_path)
    for recipe in (given.recipe, dataclasses.replace(given.recipe, seed=5)):
        made = dataclasses.replace(given, recipe=recipe)
        save(api.network(given.architecture), tmp_path / "best.safetensors", recipe=dataclasses.asdict(recipe))
        write_whole(tmp_path / "history.jsonl", json_line({"epoch": recipe.epochs}))
        assert made.finished(tmp_path)
    with pytest.raises(RobustsegError, match="trained by the recipe of the study, got another seed; try another --out"):
        given.finished(tmp_path)


@pytest.mark.parametrize("option", [("--network", "zoo:x"), ("--size", "8x16"), ("--train-only",)])
def test_options_of_one_study_are_refused_for_another(option: tuple[str, ...], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["reproduce", "sandoval2022", "--out", str(tmp_path), *option])
    assert result.exit_code == 2
    assert f"expected {option[0]} with arnab2018 only, got it with sandoval2022" in " ".join(result.stderr.split())


@pytest.mark.slow
def test_the_study_runs_goes_on_and_runs_nothing_twice(tmp_path: Path) -> None:
    study = tier("synthetic")
    found = arnab2018.reproduce(study, tmp_path)
    assert [f.claim for f in found] == ["A1", "A2", "A3", "A4", "A5", "A6", "A7"]
    assert NOT_TESTABLE not in {f.verdict for f in found}
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.jsonl")}
    assert all(cost.seconds == 0 for cost in arnab2018.costs(study, tmp_path))
    arnab2018.reproduce(study, tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.jsonl")}
    assert json.loads((tmp_path / "verdicts.json").read_text())["words"]
