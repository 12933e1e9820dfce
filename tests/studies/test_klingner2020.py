"""The study of depth as a second task: verdicts follow from made-up records and measures, each way."""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

import runs
from robustseg import api
from robustseg.core.errors import RobustsegError
from robustseg.datasets.views import batches
from robustseg.evaluation.depth import RowDepth
from robustseg.networks import depth as depth_networks
from robustseg.networks.motion import WithMotion
from robustseg.results import metrics
from robustseg.results.record import Counts, Record
from robustseg.studies import klingner2020 as paper
from robustseg.studies import run
from robustseg.studies.evidence import Evidence
from robustseg.studies.klingner2020 import (
    HELD_VIDEO,
    KINDS,
    ROUNDING,
    SEA,
    TIERS,
    Changes,
    baseline_of,
    klingner2020,
    name_of,
)
from robustseg.studies.klingner2020_depth import judged_measures, split_measures, static_measures
from robustseg.studies.klingner2020_tables import DEPTH_FIGURES
from robustseg.studies.measures import Measure
from robustseg.studies.page import Beside
from robustseg.studies.study import Study
from robustseg.studies.verdicts import HELD, NOT_HELD, NOT_TESTABLE, UNDECIDED, Verdict

CHANGES = Changes(
    "sea(budget='linf:{:g}/255', steps=2)", (1.0, 2.0), strengths=(4.0, 8.0, 16.0), few=(8.0, 16.0), draws=2
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


@functools.cache
def counts(lost: float, draw: int) -> Counts:
    """Of four images in which about this share of the pixels is spoiled."""
    maps = runs.labels(4)
    return metrics.count(maps, runs.spoil(maps, lost, 1 + draw), runs.ids(4), len(runs.SPACE))


TEMPLATE = runs.record("", "clean", 0, n=4)


def record(who: str, spec: str, lost: float, rms: float, draw: int) -> Record:
    """The pixels that are spoiled depend on the draw alone, so that only what a test asks for differs between networks."""
    network = f"weights('networks/{who}/best.safetensors')"
    return dataclasses.replace(
        TEMPLATE,
        network=network,
        source=network,
        data=STUDY.images["report"].data,
        size=STUDY.images["report"].size,
        perturbation=spec,
        counts=counts(min(0.97, lost), draw),
        scores={"rms": [rms / 255] * 4},
        seed=draw,
    )


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


def made(seeded: tuple[float, ...] = ()) -> Study:
    """The study with few perturbations, three seeds, and a sweep over three lambdas."""
    setting = dataclasses.replace(
        TIERS["synthetic"](""), changes=CHANGES, weights=(0.0, 0.1, 0.5), seeds=3, seeded=seeded
    )
    with mock.patch.dict(TIERS, {"made up": lambda data: setting}):
        return klingner2020("made up")


STUDY = made()


@functools.cache
def undisturbed() -> Evidence:
    """Records with which every claim holds."""
    return evidence()


def evidence(spoil: Spoil = share, *, found: list[Measure] | None = None, seeded: tuple[float, ...] = ()) -> Evidence:
    study, records = made(seeded), []
    for who in study.networks:
        kind, _, seed = who.rpartition("-")
        records.append(record(who, "clean", spoil(kind, int(seed), "clean", 0.0), 0.0, 0))
        for change in CHANGES.of(who):
            lost = spoil(kind, int(seed), change.family, change.strength)
            records.append(record(who, change.spec, lost, change.strength, change.draw))
    return Evidence(study, records, measures() if found is None else found)


def verdict(found: Evidence, name: str) -> Verdict:
    (one,) = (claim.verdict(found) for claim in found.study.claims if claim.name == name)
    return one


def tables(found: Evidence):  # type: ignore[no-untyped-def]
    return found.study.tables(found)


def without(family: str, better: str, by: float) -> Spoil:
    """As `share`, but one kind loses more under one family."""

    def spoil(kind: str, seed: int, own: str, strength: float) -> float:
        more = by if (kind, own) == (better, family) else 0.0
        return share(kind, seed, own, strength) + more

    return spoil


def test_every_claim_holds_where_everything_is_as_claimed() -> None:
    found = {claim.name: claim.verdict(undisturbed()).verdict for claim in STUDY.claims}
    assert found == dict.fromkeys(("K1", "K2", "K2 at least as good", "K3", "K4", "K5"), HELD)


@pytest.mark.parametrize(
    ("family", "kind", "by", "claim", "outcome"),
    [
        ("Gaussian", "single", 0.6, "K1", NOT_HELD),  # noise that breaks more than an attack
        ("PGD", "single", -0.2, "K1", NOT_HELD),  # PGD weaker than one step
        ("clean", "multi", 0.4, "K2", NOT_HELD),
        ("clean", "multi", 0.4, "K2 at least as good", NOT_HELD),
        ("uniform", "multi", 0.6, "K2", NOT_HELD),  # one noise is enough
        ("BIM", "multi", 0.6, "K2", NOT_HELD),
        (SEA, "multi", 0.6, "K5", NOT_HELD),
    ],
)
def test_a_claim_falls_with_any_of_its_parts(family: str, kind: str, by: float, claim: str, outcome: str) -> None:
    assert verdict(evidence(without(family, kind, by)), claim).verdict == outcome


def test_a_gain_within_the_spread_of_seeds_decides_nothing() -> None:
    def spoil(kind: str, seed: int, family: str, strength: float) -> float:
        return 0.2 + 0.05 * seed * (kind == "multi") * (-1) ** seed + RATES.get(family, 0.0) * strength

    assert verdict(evidence(spoil), "K2").verdict == UNDECIDED
    assert verdict(evidence(spoil), "K5").verdict == UNDECIDED


def test_equal_networks_are_at_least_as_good_and_not_better() -> None:
    found = evidence(lambda kind, seed, family, strength: share("single", seed, family, strength))
    assert verdict(found, "K2").verdict == UNDECIDED
    assert verdict(found, "K2 at least as good").verdict == HELD
    assert "our threshold -1" in verdict(found, "K2 at least as good").numbers


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
    assert verdict(evidence(found=measures(**{kind: values})), claim).verdict == NOT_HELD


def test_what_was_not_measured_is_not_testable_and_stands_as_not_run() -> None:
    nothing = Evidence(STUDY, [])
    found = [claim.verdict(nothing) for claim in STUDY.claims]
    assert {one.verdict for one in found} == {NOT_TESTABLE}
    text = "\n".join(table.markdown() for table in tables(nothing))
    assert "not run" in text
    assert "nan" not in text
    assert "nan" not in " ".join(one.numbers for one in found)


def test_q_is_read_off_where_realised_strengths_are_equal() -> None:
    found = undisturbed()
    low, high = (paper.q(found, "single-0", "Gaussian")[s] for s in (4.0, 8.0))
    values = paper.q_at(found, "single", "Gaussian", [4 * math.sqrt(2), 8, 0.9, 20])
    assert values.shape == (3, 4)
    assert values[0, :2] == pytest.approx([(low + high) / 2, high])
    assert np.isnan(values[:, 2:]).all()


def test_noise_is_a_mean_over_draws_and_at_worst_image_by_image() -> None:
    found = undisturbed()
    spec = CHANGES.of("single-0", "Gaussian")[0].spec.replace("4/255", "8/255")
    alone = [100 * found.ratio("single-0", spec, seed=draw) for draw in range(2)]
    assert paper.q(found, "single-0", "Gaussian")[8.0] == pytest.approx(np.mean(alone))
    assert paper.worst_q(found, "single-0", "Gaussian")[8.0] < min(alone)
    assert len(paper.draws(found, "single-1", "Gaussian")[8.0]) == 1


def test_tables_show_each_kind_the_sweep_and_what_depth_is_held_against() -> None:
    found = undisturbed()
    drawn = tables(found)
    text = "\n".join(table.markdown() for table in drawn)
    rows = [line for line in text.splitlines() if line.startswith("| multi (labels and depth from video)")]
    assert len(rows) == 1
    assert rows[0].count("±") == 9
    ensemble = next(table for table in drawn if "under SEA" in table.title)
    assert ensemble.columns == ("training", "1", "2")
    sweep = next(table for table in drawn if table.title.startswith("The sweep"))
    assert [row[:2] for row in sweep.rows] == [("0", "3"), ("0.1", "3"), ("0.5", "1")]
    assert sweep.rows[0][2] == Beside(tuple(found.by_seed("control", paper.miou(found))))  # lambda 0 is the control
    assert sweep.rows[1][2] == Beside(tuple(found.by_seed("multi", paper.miou(found))))
    assert str(sweep.rows[2][2]) == f"{100 * found.miou('lambda0.5-0'):.1f}"
    assert "| row median of multi-0 | 0.500 |" in text
    assert "| multi-0 | 0.1000 | 0.2000 | 0.0400 | 0.0500 | 0.0200 | 0.0300 | 0.300 |" in text


def test_a_lambda_with_as_many_seeds_as_the_kinds_is_compared_with_labels_alone_too() -> None:
    def worse(kind: str, seed: int, family: str, strength: float) -> float:
        return share(kind, seed, family, strength) + 0.15 * (kind == "lambda0.5")

    found = evidence(worse, seeded=(0.5,))
    assert verdict(found, "K2").verdict == HELD  # that of the study's own lambda
    drawn = tables(found)
    rows = {row[:2]: row[2] for row in drawn[1].rows}
    assert list(rows) == [(kind, other) for kind in ("multi", "lambda0.5") for other in ("single", "control")]
    assert np.mean(rows["multi", "single"].ours) > 0 > np.mean(rows["lambda0.5", "single"].ours)
    depths = [row[0] for row in drawn[-1].rows]
    assert depths == ["multi-0", "multi-1", "multi-2", "lambda0.5-0", "lambda0.5-1", "lambda0.5-2"]


def test_tiers_train_the_same_network_in_ways_that_differ_in_video_alone() -> None:
    with pytest.raises(
        RobustsegError,
        match="expected a tier, got 'huge'; try synthetic, camvid, camvid-own-video, camvid-imagenet, full",
    ):
        klingner2020("huge")
    study = klingner2020("camvid", "elsewhere")
    networks = study.networks
    assert "elsewhere/camvid" in networks["single-0"].data
    assert len(networks) == 3 * 3 + 3 + 3  # lambda 0.9 with three seeds, three others with one
    assert networks["single-1"].depth is None
    assert networks["control-1"].depth["weight"] == 0
    assert networks["multi-1"].depth["weight"] == study.settings.weight
    assert networks["lambda0.5-0"].depth["weight"] == 0.5
    for seed in range(3):
        assert [networks[name_of(kind, seed)].recipe for kind in KINDS] == [networks[f"single-{seed}"].recipe] * 3
    with pytest.raises(
        RobustsegError, match="expected rows that are networks of the study, got 'multi-7'; try single-0"
    ):
        klingner2020("camvid", rows=["multi-7"])


def test_rows_are_measured_and_trained_without_the_others() -> None:
    study = klingner2020("camvid", rows=["control-1", "multi-2"])
    assert {row.target for row in study.rows} == {"control-1", "multi-2"}
    assert [extra.who for extra in study.extras] == ["multi-2"]


def test_video_of_the_domain_of_the_labels_changes_no_training_without_video() -> None:
    kitti, own = klingner2020("camvid").networks, klingner2020("camvid-own-video").networks
    for seed in range(3):
        assert own[f"single-{seed}"] == kitti[f"single-{seed}"]  # so a folder may take them over
        assert own[f"control-{seed}"].recipe == kitti[f"control-{seed}"].recipe
        assert "camvid/val" in own[f"multi-{seed}"].depth["video"]
        assert own[f"multi-{seed}"].depth["weight"] == 0.9
    assert len(own) == 9


def test_an_encoder_of_imagenet_changes_the_encoder_and_the_epochs() -> None:
    scratch, taught = klingner2020("camvid").networks, klingner2020("camvid-imagenet").networks
    for seed in range(3):
        for kind, other in (("single", "single"), ("control", "control"), ("multi", "lambda0.9")):
            of_it, beside = taught[f"{kind}-{seed}"], scratch[f"{other}-{seed}"]
            assert of_it.depth == beside.depth
            assert {**of_it.recipe, "epochs": beside.recipe["epochs"]} == beside.recipe
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
    found = judged_measures(trained, rows, held, (16, 24), where="here", who="multi-0")
    made = {(m.kind, m.who): m.values for m in found}
    assert set(made["depth here", baseline_of("row median", "multi-0")]) == set(DEPTH_FIGURES)
    ahead = made["pose here", baseline_of("straight ahead", "multi-0")]
    assert made["pose here", "multi-0"]["ate"] > ahead["ate"]  # untrained; the street is straight
    assert set(made["views here", "multi-0"]) == {"loss", "loss aligned", "masked"}
    assert set(made["views here", baseline_of("row median", "multi-0")]) == {"loss", "loss aligned"}
    assert all(math.isfinite(v) for values in made.values() for v in values.values())


@pytest.mark.slow
def test_the_study_runs_goes_on_and_runs_nothing_twice(tmp_path: Path) -> None:
    study = klingner2020("synthetic")
    costs = run.costs(study, tmp_path)
    assert all(costs[f"train {who}"] > 0 for who in study.networks)
    found = {f.claim: f.verdict for f in run.reproduce(klingner2020("synthetic", rows=["single-0"]), tmp_path)}
    assert (found["K3"], found["K4"]) == (NOT_TESTABLE, NOT_TESTABLE)
    found = {f.claim: f.verdict for f in run.reproduce(study, tmp_path)}
    assert (found["K3"], found["K4"]) == (HELD, HELD)
    parts = (tmp_path / "tables.md").read_text().split("### ")
    for title in ("Clean mIoU", "Noise as", "The sweep", "Depth on made-up streets", "On the video that was held out"):
        assert ["not run" in table for table in parts if table.startswith(title)] == [False]
    assert "<svg" in (tmp_path / "curves.svg").read_text()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.jsonl")}
    assert all(seconds == 0 for seconds in run.costs(study, tmp_path).values())
    run.reproduce(study, tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.jsonl")}
