"""The study of depth as a second task: verdicts follow from made-up records and measures, each way."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import runs
from robustseg import api
from robustseg.core.errors import RobustsegError
from robustseg.datasets.views import batches
from robustseg.evaluation.depth import RowDepth
from robustseg.networks import depth as depth_networks
from robustseg.networks.motion import WithMotion
from robustseg.results.record import Record
from robustseg.studies import klingner2020
from robustseg.studies.klingner2020_claims import DEPTH_FIGURES, ROUNDING, findings, tables
from robustseg.studies.klingner2020_depth import judged_measures, split_measures, static_measures
from robustseg.studies.klingner2020_evidence import (
    HELD_VIDEO,
    KINDS,
    SEA,
    Changes,
    Evidence,
    baseline_of,
    name_of,
    sweep_kind,
)
from robustseg.studies.klingner2020_tiers import tier
from robustseg.studies.legacy import HELD, NOT_HELD, NOT_TESTABLE, UNDECIDED, Beside, Measure

CHANGES = Changes(
    "sea(budget='linf:{:g}/255', steps=2)", strengths=(1.0, 4.0, 8.0, 16.0, 24.0), few=(1.0, 4.0, 8.0, 24.0), draws=2
)
RATES = {  # of the pixels spoiled at 1/255
    "Gaussian": 0.004,
    "uniform": 0.005,
    "sign": 0.006,
    "salt and pepper": 0.012,
    "FGSM": 0.025,
    "BIM": 0.028,
    "PGD": 0.032,
    SEA: 0.2,
}
CLEAN = {"single": 0.3, "control": 0.25, "multi": 0.1}
Spoil = Callable[[str, int, str, float], float]


def share(kind: str, seed: int, family: str, strength: float) -> float:
    """What every claim needs: the multi-task network loses least, seeds differ a little."""
    rate = RATES.get(family, 0.0) * {"single": 1.0, "control": 0.9, "multi": 0.5}.get(kind, 0.7)
    return CLEAN.get(kind, 0.2) + 0.002 * seed + rate * strength


def record(who: str, spec: str, lost: float, rms: float, draw: int) -> Record:
    return runs.record(who, spec, min(0.97, lost), rms=rms / 255, n=4, seed=1 + draw)


def measures(**changed: dict[str, float]) -> list[Measure]:
    found = {
        "split": {"outputs": 0.0, "gradients": 1e-14},
        "static": {"masked": 1.0, "gradient": 0.0},
        "depth dgp": {"abs_rel": 0.3},
        f"views {HELD_VIDEO}": {"loss": 0.1, "loss aligned": 0.04, "masked": 0.3},
        f"pose {HELD_VIDEO}": {"ate": 0.02},
    }
    own = [Measure(kind, "multi-0", "a", {}, {**values, **changed.get(kind, {})}) for kind, values in found.items()]
    return [
        *own,
        Measure("depth dgp", baseline_of("row median", "multi-0"), "a", {}, {"abs_rel": 0.5}),
        Measure(
            f"views {HELD_VIDEO}", baseline_of("row median", "multi-0"), "a", {}, {"loss": 0.2, "loss aligned": 0.05}
        ),
        Measure(f"pose {HELD_VIDEO}", baseline_of("straight ahead", "multi-0"), "a", {}, {"ate": 0.03}),
    ]


def evidence(spoil: Spoil = share, *, found: list[Measure] | None = None, seeded: tuple[float, ...] = ()) -> Evidence:
    names = [name_of(kind, seed) for kind in KINDS for seed in range(3)]
    names += [name_of(sweep_kind(0.5), seed) for seed in range(3 if seeded else 1)]
    clean, draws = {}, {}
    for who in names:
        kind, _, seed = who.rpartition("-")
        clean[who] = record(who, "clean", spoil(kind, int(seed), "clean", 0.0), 0.0, 0)
        for change in CHANGES.of(who):
            lost = spoil(kind, int(seed), change.family, change.strength)
            made = record(who, change.spec, lost, change.strength, change.draw)
            draws.setdefault((who, change.family, change.strength), []).append(made)
    return Evidence(clean, draws, measures() if found is None else found, CHANGES, 0.1, (0.0, 0.1, 0.5), 3, seeded)


def verdicts(found: Evidence) -> dict[str, str]:
    return {f.claim: f.verdict for f in findings(found)}


def without(family: str, better: str, by: float) -> Spoil:
    """As `share`, but one kind loses more under one family."""

    def spoil(kind: str, seed: int, own: str, strength: float) -> float:
        more = by if (kind, own) == (better, family) else 0.0
        return share(kind, seed, own, strength) + more

    return spoil


def test_every_claim_holds_where_everything_is_as_claimed() -> None:
    assert verdicts(evidence()) == dict.fromkeys(("K1", "K2", "K3", "K4", "K5"), HELD)


@pytest.mark.parametrize(
    ("family", "kind", "by", "claim", "verdict"),
    [
        ("Gaussian", "single", 0.6, "K1", NOT_HELD),  # noise that breaks more than an attack
        ("PGD", "single", -0.2, "K1", NOT_HELD),  # PGD weaker than one step
        ("clean", "multi", 0.4, "K2", NOT_HELD),
        ("uniform", "multi", 0.6, "K2", NOT_HELD),  # one noise is enough
        ("BIM", "multi", 0.6, "K2", NOT_HELD),
        (SEA, "multi", 0.6, "K5", NOT_HELD),
    ],
)
def test_a_claim_falls_with_any_of_its_parts(family: str, kind: str, by: float, claim: str, verdict: str) -> None:
    assert verdicts(evidence(without(family, kind, by)))[claim] == verdict


def test_a_gain_within_the_spread_of_seeds_decides_nothing() -> None:
    def spoil(kind: str, seed: int, family: str, strength: float) -> float:
        return 0.2 + 0.05 * seed * (kind == "multi") * (-1) ** seed + RATES.get(family, 0.0) * strength

    assert verdicts(evidence(spoil))["K2"] in (UNDECIDED, NOT_HELD)
    assert verdicts(evidence(spoil))["K5"] == UNDECIDED


@pytest.mark.parametrize(
    ("kind", "values", "claim"),
    [
        ("split", {"outputs": 1e-6}, "K3"),
        ("split", {"gradients": 1e-3}, "K3"),
        ("static", {"masked": 0.99}, "K4"),
        ("static", {"gradient": 1e-8}, "K4"),
    ],
)
def test_what_must_be_exact_is(kind: str, values: dict[str, float], claim: str) -> None:
    assert verdicts(evidence(found=measures(**{kind: values})))[claim] == NOT_HELD


def test_what_was_not_measured_is_not_testable_and_stands_as_not_run() -> None:
    nothing = Evidence({}, {}, (), CHANGES, 0.1, (0.0, 0.1))
    assert set(verdicts(nothing).values()) == {NOT_TESTABLE}
    text = "\n".join(table.markdown() for table in tables(nothing))
    assert "not run" in text
    assert "nan" not in text
    assert "nan" not in " ".join(f.line for f in findings(nothing))


def test_q_is_read_off_where_realised_strengths_are_equal() -> None:
    found = evidence()
    low, high = (found.q("single-0", "Gaussian", s) for s in (4.0, 8.0))
    assert found.q_at("single-0", "Gaussian", 4 * math.sqrt(2)) == pytest.approx((low + high) / 2)
    assert found.q_at("single-0", "Gaussian", 8) == pytest.approx(high)
    assert math.isnan(found.q_at("single-0", "Gaussian", 0.9))
    assert math.isnan(found.q_at("single-0", "Gaussian", 25))


def test_noise_is_a_mean_over_draws_and_at_worst_image_by_image() -> None:
    found = evidence()
    draws = found.draws["single-0", "Gaussian", 8.0]
    one = [Evidence(found.clean, {("single-0", "Gaussian", 8.0): [d]}, (), CHANGES, 0.1, ()) for d in draws]
    alone = [e.q("single-0", "Gaussian", 8.0) for e in one]
    assert found.q("single-0", "Gaussian", 8.0) == pytest.approx(sum(alone) / 2)
    assert found.worst_q("single-0", "Gaussian", 8.0) < min(alone)
    assert len(found.draws["single-1", "Gaussian", 8.0]) == 1


def test_tables_show_each_kind_the_sweep_and_what_depth_is_held_against() -> None:
    found = evidence()
    text = "\n".join(table.markdown() for table in tables(found))
    rows = [line for line in text.splitlines() if line.startswith("| multi (labels and depth from video)")]
    assert len(rows) == 1
    assert rows[0].count("±") == 9
    ensemble = next(table for table in tables(found) if "under SEA" in table.title)
    assert ensemble.columns == ("training", "0.25", "0.5", "1", "2")
    sweep = next(table for table in tables(found) if table.title.startswith("The sweep"))
    assert [row[:2] for row in sweep.rows] == [("0", "3"), ("0.1", "3"), ("0.5", "1")]
    assert sweep.rows[0][2] == Beside(found.by_seed("control", found.miou))  # lambda 0 is the control
    assert sweep.rows[1][2] == Beside(found.by_seed("multi", found.miou))
    assert str(sweep.rows[2][2]) == f"{found.miou('lambda0.5-0'):.1f}"
    assert "| row median of multi-0 | 0.500 |" in text
    assert "| multi-0 | 0.1000 | 0.2000 | 0.0400 | 0.0500 | 0.0200 | 0.0300 | 0.300 |" in text


def test_a_lambda_with_as_many_seeds_as_the_kinds_is_held_against_labels_alone_too() -> None:
    def better(kind: str, seed: int, family: str, strength: float) -> float:
        return share("multi" if kind == "lambda0.5" else kind, seed, family, strength)

    (k2,) = (f for f in findings(evidence(better, seeded=(0.5,))) if f.claim == "K2")
    assert k2.verdict == HELD
    assert "at lambda 0.5 against single in points: clean mIoU +" in k2.numbers

    def worse(kind: str, seed: int, family: str, strength: float) -> float:
        return share(kind, seed, family, strength) + 0.15 * (kind == "lambda0.5")

    (k2,) = (f for f in findings(evidence(worse, seeded=(0.5,))) if f.claim == "K2")
    assert k2.verdict == HELD  # that of the study's own lambda
    assert "at lambda 0.5 against single in points: clean mIoU -" in k2.numbers
    depths = [row[0] for row in tables(evidence(seeded=(0.5,)))[-1].rows]
    assert depths == ["multi-0", "multi-1", "multi-2", "lambda0.5-0", "lambda0.5-1", "lambda0.5-2"]


def test_tiers_train_the_same_network_in_ways_that_differ_in_video_alone() -> None:
    with pytest.raises(
        RobustsegError,
        match="expected a tier, got 'huge'; try synthetic, camvid, camvid-own-video, camvid-imagenet, full",
    ):
        tier("huge")
    study = tier("camvid", "elsewhere")
    assert "elsewhere/camvid" in study.labelled
    networks = study.networks
    assert len(networks) == 3 * 3 + 3 + 3  # lambda 0.9 with three seeds, three others with one
    assert networks["single-1"].depth is None
    assert networks["control-1"].depth.weight == 0
    assert networks["multi-1"].depth.weight == study.weight
    assert networks["lambda0.5-0"].depth.weight == 0.5
    for seed in range(3):
        assert len({networks[name_of(kind, seed)].recipe for kind in KINDS}) == 1
    with pytest.raises(
        RobustsegError, match="expected rows that are networks of the study, got 'multi-7'; try single-0"
    ):
        klingner2020.costs(study, Path("nowhere"), rows=["multi-7"])


def test_video_of_the_domain_of_the_labels_changes_no_training_without_video() -> None:
    kitti, own = tier("camvid").networks, tier("camvid-own-video").networks
    for seed in range(3):
        assert own[f"single-{seed}"] == kitti[f"single-{seed}"]  # so a folder may take them over
        assert own[f"control-{seed}"].recipe == kitti[f"control-{seed}"].recipe
        assert "camvid/val" in own[f"multi-{seed}"].depth.video
        assert own[f"multi-{seed}"].depth.weight == 0.9
    assert len(own) == 9


def test_an_encoder_of_imagenet_changes_the_encoder_and_the_epochs() -> None:
    scratch, taught = tier("camvid").networks, tier("camvid-imagenet").networks
    for seed in range(3):
        for kind, other in (("single", "single"), ("control", "control"), ("multi", "lambda0.9")):
            of_it, beside = taught[f"{kind}-{seed}"], scratch[f"{other}-{seed}"]
            assert of_it.depth == beside.depth
            assert dataclasses.replace(of_it.recipe, epochs=beside.recipe.epochs) == beside.recipe
            assert "encoder_weights='imagenet'" in of_it.architecture
    assert len(taught) == 9


def test_lambda_splits_the_gradient_exactly_and_a_wrong_split_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    network = api.network("multitask(encoder='erfnet', width=0.1)").double().eval()
    images, frames = torch.rand((2, 1, 3, 16, 24), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = split_measures(network, images, frames)
    assert exact["outputs"] == 0
    assert exact["gradients"] < ROUNDING
    monkeypatch.setattr(depth_networks, "scaled_gradient", lambda x, factor: x)
    assert split_measures(network, images, frames)["gradients"] > 0.01


def test_still_frames_teach_nothing() -> None:
    network = api.network("multitask(encoder='erfnet', width=0.1)")
    trained = WithMotion(network, 0.1).eval()
    video = next(batches(api.data("streets(scenes=1, frames=2, size='16x24', neighbours=True)"), 2))
    assert static_measures(trained, video) == {"masked": 1.0, "gradient": 0.0}


def test_depth_views_and_poses_are_measured_beside_baselines_that_look_at_no_image() -> None:
    network = api.network("multitask(encoder='erfnet', width=0.1)")
    trained = WithMotion(network, 0.1).eval()
    held = api.data("streets(scenes=1, frames=5, size='16x24', neighbours=True)")
    rows = RowDepth.of(network, held, size=(16, 24))
    found = judged_measures(trained, rows, held, (16, 24), where="here", who="multi-0", about={})
    made = {(m.kind, m.who): m.values for m in found}
    assert set(made["depth here", baseline_of("row median", "multi-0")]) == set(DEPTH_FIGURES)
    ahead = made["pose here", baseline_of("straight ahead", "multi-0")]
    assert made["pose here", "multi-0"]["ate"] > ahead["ate"]  # untrained; the street is straight
    assert set(made["views here", "multi-0"]) == {"loss", "loss aligned", "masked"}
    assert set(made["views here", baseline_of("row median", "multi-0")]) == {"loss", "loss aligned"}
    assert all(math.isfinite(v) for values in made.values() for v in values.values())


@pytest.mark.slow
def test_the_study_runs_goes_on_and_runs_nothing_twice(tmp_path: Path) -> None:
    study = tier("synthetic")
    assert all(cost.seconds > 0 for cost in klingner2020.costs(study, tmp_path))
    found = klingner2020.reproduce(study, tmp_path, rows=["single-0"])
    assert [f.verdict for f in found][2:4] == [NOT_TESTABLE] * 2
    found = klingner2020.reproduce(study, tmp_path)
    assert [f.verdict for f in found][2:4] == [HELD] * 2
    parts = (tmp_path / "tables.md").read_text().split("### ")
    for title in ("Clean mIoU", "Noise as", "The sweep", "Depth on made-up streets", "On the video that was held out"):
        assert ["not run" in table for table in parts if table.startswith(title)] == [False]
    assert "<svg" in (tmp_path / "curves.svg").read_text()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.jsonl")}
    assert all(cost.seconds == 0 for cost in klingner2020.costs(study, tmp_path))
    klingner2020.reproduce(study, tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.jsonl")}
