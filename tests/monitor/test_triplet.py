"""Three networks as one: who answers, what is said when one fails, how it is fitted, saved, attacked and measured."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from robustseg.core.errors import LabelSpaceMismatch, RobustsegError, ShapeError, SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.provenance import digest
from robustseg.core.random import ImageRng
from robustseg.core.registry import build
from robustseg.core.spaces import label_space
from robustseg.core.types import Dataset, Network, Sample
from robustseg.evaluation.run import evaluate
from robustseg.monitor import conformal
from robustseg.monitor.calibration import suspicions
from robustseg.monitor.detector import extreme
from robustseg.monitor.triplet import Triplet
from robustseg.networks.fast import fast
from robustseg.networks.fronts import BitDepth, ResizeAndPad
from robustseg.networks.weights import load, save
from robustseg.results import metrics
from robustseg.results.record import Record
from robustseg.testing import PixelNetwork, SmallNetwork, check_monitor, check_network, gray_space

generator = torch.Generator().manual_seed(2)
IMAGES = torch.rand((3, 3, 16, 24), generator=generator, dtype=torch.float64)


class Says(Network):
    """Answers these labels, `[b, h, w]`, whatever it sees; in logits as sure as `sure`."""

    def __init__(self, labels, sure=9.0, classes=3):
        super().__init__(gray_space(classes), "says")
        self.labels, self.sure = labels, sure

    def forward(self, images):
        logits = torch.nn.functional.one_hot(self.labels, len(self.label_space)).permute(0, 3, 1, 2)
        return logits.to(images.dtype) * self.sure + 0 * images.sum(1, keepdim=True)


class Fails(Network):
    """A network with a fault: `raise`, `nan` (in image 1), or `shape`."""

    def __init__(self, network, fault):
        super().__init__(network.label_space, "fails")
        self.network, self.fault = network, fault

    def forward(self, images):
        if self.fault == "raise":
            raise RuntimeError("out of order")
        logits = self.network(images).clone()
        if self.fault == "nan":
            logits[1, 0, 3, 3] = torch.nan
        return logits[..., 1:] if self.fault == "shape" else logits


def _small(**arguments):
    return Triplet(*(SmallNetwork(seed=seed) for seed in range(3)), **arguments).eval()


def _saying(teacher, student, adaptive, **arguments):
    """Members that label a share of the 100 pixels 1 and the rest 0: image by image, from the left."""
    shares = torch.tensor([teacher, student, adaptive])
    pixels = torch.arange(100).view(10, 10).T.flatten().argsort().view(10, 10)
    labels = (pixels < 100 * shares[:, :, None, None]).long()
    return Triplet(*(Says(one) for one in labels), **arguments), labels, torch.zeros(len(teacher), 3, 10, 10)


@pytest.mark.parametrize("vote", ["ta", "ts", "soft"])
@pytest.mark.parametrize("tile", [None, 16])
@pytest.mark.parametrize("distance", ["hamming", "kl", "cosine"])
def test_a_triplet_is_a_network_with_a_monitor(vote, tile, distance):
    triplet = _small(threshold=(-0.3, 0.05), vote=vote, tile=tile, distance=distance)
    check_monitor(triplet, size=(16, 24))
    check_network(triplet.soft(), sizes=((16, 24),))


def test_the_kit_finds_a_monitor_that_hides_a_failure():
    class Blind(Triplet):
        def watch(self, images):
            return super().watch(images)._replace(failed=[()] * len(images))

    with pytest.raises(AssertionError, match="teacher gives NaN"):
        check_monitor(Blind(*(SmallNetwork(seed=seed) for seed in range(3))), size=(16, 24))


def test_scores_and_who_is_blamed():
    # d = |T - A| - |S - A|
    triplet, _, images = _saying([0.0, 0.5, 0.1], [0.1, 0.1, 0.9], [0.1, 0.2, 0.2], threshold=(-0.2, 0.2))
    seen = triplet.watch(images)
    torch.testing.assert_close(extreme(seen.tiles), torch.tensor([0.1, 0.2, -0.6]))
    torch.testing.assert_close(seen.scores, torch.tensor([-0.1, 0.0, 0.4], dtype=torch.float64))
    assert seen.attacked == ["none", "teacher", "student"]
    assert seen.alarm.tolist() == [False, True, True]
    assert seen.failed == [(), (), ()]
    assert seen.tiles.shape == (3, 1, 1)
    torch.testing.assert_close(seen.suspicion["against_teacher"], extreme(seen.tiles))
    torch.testing.assert_close(seen.suspicion["against_student"], -extreme(seen.tiles))


def test_one_threshold_is_the_papers_rule():
    triplet, _, images = _saying([0.0, 0.5], [0.0, 0.1], [0.0, 0.2], threshold=0.2)
    seen = triplet.watch(images)
    assert seen.attacked == ["student", "teacher"], "there is no quiet"
    assert seen.alarm.tolist() == [False, True]


@pytest.mark.parametrize(("vote", "answers"), [("ts", "TST"), ("ta", "TAT")])
def test_who_answers(vote, answers):
    triplet, labels, images = _saying(
        [0.0, 0.5, 0.1], [0.1, 0.1, 0.9], [0.1, 0.2, 0.2], threshold=(-0.2, 0.2), vote=vote
    )
    expected = torch.stack([labels["TSA".index(who)][i] for i, who in enumerate(answers)])
    seen = triplet.watch(images)
    assert torch.equal(seen.labels, expected)
    assert torch.equal(triplet.predict(images), expected)
    assert torch.equal(triplet(images).argmax(1), expected)


def test_the_soft_vote_is_the_mean_of_the_posteriors():
    triplet = _small(vote="soft")
    mean = torch.stack([logits.softmax(1) for logits in triplet.members(IMAGES)]).mean(0)
    torch.testing.assert_close(triplet(IMAGES).exp(), mean)
    torch.testing.assert_close(triplet.soft()(IMAGES).exp(), mean)


def test_tiles_say_where_and_only_there_another_answers():
    same = torch.zeros(1, 10, 14, dtype=torch.long)
    hurt = same.clone()
    hurt[:, 5:, 10:] = 2
    hurt[:, 0, 0] = 1  # one pixel of a tile of 25 is not enough
    triplet = Triplet(Says(hurt), Says(same), Says(same), threshold=(-0.5, 0.5), tile=5)
    seen = triplet.watch(torch.zeros(1, 3, 10, 14))
    torch.testing.assert_close(seen.tiles, torch.tensor([[[0.04, 0, 0], [0, 0, 1.0]]]))
    assert seen.attacked == ["teacher"]
    assert float(extreme(seen.tiles)) == 1
    assert float(seen.scores) == 0.5
    assert torch.equal(seen.labels, torch.where(hurt == 2, 0, hurt))
    whole = Triplet(Says(hurt), Says(same), Says(same), threshold=(-0.5, 0.5))
    assert whole.watch(torch.zeros(1, 3, 10, 14)).attacked == ["none"], "the mean over the image does not see it"


def test_disagreement_is_the_share_of_pairs():
    labels = [torch.tensor([[[0, 1, 2, 2]]]), torch.tensor([[[0, 1, 1, 2]]]), torch.tensor([[[0, 0, 0, 2]]])]
    seen = Triplet(*(Says(one) for one in labels)).watch(torch.zeros(1, 3, 1, 4))
    torch.testing.assert_close(seen.disagreement, torch.tensor([[[0, 2 / 3, 1, 0]]]))


@pytest.mark.parametrize("fault", ["raise", "shape", "nan"])
@pytest.mark.parametrize(
    ("victim", "vote", "rest"), [(0, "ta", 2), (0, "ts", 1), (1, "ta", 0), (2, "ta", 0), (2, "ts", 0)]
)
def test_if_one_fails_the_others_go_on(fault, victim, vote, rest):
    members = [SmallNetwork(seed=seed) for seed in range(3)]
    whole = Triplet(*members, vote=vote, threshold=(-0.05, 0.05)).eval().watch(IMAGES)
    answers = [member(IMAGES).argmax(1) for member in members]
    members[victim] = Fails(members[victim], fault)
    seen = Triplet(*members, vote=vote, threshold=(-0.05, 0.05)).eval().watch(IMAGES)
    name = ("teacher", "student", "adaptive")[victim]
    for i in range(3):
        if fault == "nan" and i != 1:
            assert seen.failed[i] == ()
            assert seen.attacked[i] == whole.attacked[i]
            assert torch.equal(seen.labels[i], whole.labels[i]), "an image pays for another"
            continue
        assert seen.failed[i] == (name,)
        assert seen.attacked[i] == "unknown"
        assert not seen.alarm[i]
        assert seen.scores[i].isnan()
        assert torch.equal(seen.labels[i], answers[rest][i])


def test_the_soft_vote_of_those_that_work():
    members = [SmallNetwork(seed=seed) for seed in range(3)]
    mean = torch.stack([members[i](IMAGES).softmax(1) for i in (0, 2)]).mean(0)
    members[1] = Fails(members[1], "raise")
    torch.testing.assert_close(Triplet(*members, vote="soft").eval()(IMAGES).exp(), mean)


def test_if_two_fail_the_third_answers_and_if_all_fail_that_is_said():
    triplet = _small(vote="ts")
    answers = list(triplet.members(IMAGES))
    seen = triplet.judge([None, None, answers[2]])
    assert seen.failed == [("teacher", "student")] * 3
    assert torch.equal(seen.labels, answers[2].argmax(1))
    lost = [answer.clone() for answer in answers]
    for one in lost:
        one[1, 0, 0, 0] = torch.inf
    seen = triplet.judge(lost)
    assert seen.failed == [(), ("teacher", "student", "adaptive"), ()]
    assert (seen.labels[1] == IGNORE).all()
    assert (seen.labels[0] != IGNORE).all()
    with pytest.raises(RobustsegError, match="got none"):
        triplet.judge([None, None, None])


def test_judging_answers_is_watching():
    triplet = _small(threshold=(-0.02, 0.02), tile=8)
    first, second = triplet.watch(IMAGES), triplet.judge(triplet.members(IMAGES))
    for name in ("labels", "scores", "disagreement", "tiles"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert (first.attacked, first.failed) == (second.attacked, second.failed)


@pytest.mark.parametrize("threshold", [0.02, (-0.02, 0.02), (None, 0.02), (-0.02, None), (None, None)])
@pytest.mark.parametrize("tile", [None, 8])
def test_the_score_is_the_alarm(threshold, tile):
    """0 and more is an alarm: of the teacher, or of either where two thresholds leave room for nobody."""
    seen = _small(threshold=threshold, tile=tile).watch(IMAGES)
    low, high = threshold if isinstance(threshold, tuple) else (None, threshold)
    beyond = [[d - high for d in t if high is not None] + [low - d for d in t if low is not None]
              for t in seen.tiles.flatten(1).tolist()]  # fmt: skip
    assert seen.scores.tolist() == pytest.approx([max(b, default=-math.inf) for b in beyond])
    noticed = {"teacher", "student"} if isinstance(threshold, tuple) else {"teacher"}
    assert seen.alarm.tolist() == [who in noticed for who in seen.attacked]


SETTINGS = ("threshold", "vote", "tile", "distance", "rate", "condition")
CHANGES = {
    "threshold": (-0.5, 0.25),
    "vote": "ts",
    "tile": 4,
    "distance": "kl",
    "rate": 0.5,
    "condition": "other images",
    "teacher": SmallNetwork(seed=7),
    "student": SmallNetwork(seed=8),
    "adaptive": SmallNetwork(seed=9),
    "spec": "mine",
    "files": (Path("other.safetensors"),),
}


def _fitted():
    triplet = _small(vote="ta", tile=8, threshold=(-0.02, 0.03), rate=0.1, condition="images exchangeable with mine")
    triplet.spec, triplet.files = "zoo:watched", (Path("watched.safetensors"),)
    return triplet


def _state(triplet):
    return {name: getattr(triplet, name) for name in (*SETTINGS, "teacher", "student", "adaptive", "spec", "files")}


@pytest.mark.parametrize("name", CHANGES)
def test_a_copy_with_a_change_keeps_everything_else(name):
    triplet = _fitted()
    before = _state(triplet)
    copied = triplet.with_(**{name: CHANGES[name]})
    assert _state(triplet) == before, "the original is as it was"
    assert not copied.training
    expected = before | {name: CHANGES[name]}
    if name in ("spec", "files"):
        assert _state(copied) == expected
        return
    assert _state(copied) == expected | {"spec": copied.spec}
    # the spec says what changed, as that of a triplet built so from the start does
    parts = {n: v for n, v in expected.items() if n not in ("spec", "files")}
    assert copied.spec == Triplet(**parts).spec != Triplet(**{n: before[n] for n in parts}).spec


def test_a_copy_without_a_change_is_the_triplet_and_a_wrong_one_is_refused():
    triplet = _fitted()
    assert triplet.with_(vote="ta", tile=8) is triplet
    with pytest.raises(SpecError, match="got 'treshold'"):
        triplet.with_(treshold=0.1)
    with pytest.raises(SpecError, match="low < high"):
        triplet.with_(threshold=(0.2, 0.1))
    with pytest.raises(LabelSpaceMismatch):
        triplet.with_(student=SmallNetwork(5))


def test_stand_ins_draws_and_fast_copies_keep_what_was_fitted():
    triplet = _fitted()
    rng = ImageRng(0, ("a", "b", "c"))
    quick = fast(triplet)
    for copied in (triplet.soft(), triplet.draw(rng), quick, fast(triplet).soft(), triplet.to("cpu")):
        assert isinstance(copied, Triplet)
        for name in (*SETTINGS, "spec", "files"):
            assert getattr(copied, name) == getattr(triplet, name)
    torch.testing.assert_close(quick.watch(IMAGES).scores, triplet.watch(IMAGES).scores)


def test_members_that_round_or_draw_are_followed_into():
    """A triplet is as soft and as random as its members."""
    network = SmallNetwork()
    triplet = Triplet(BitDepth(network), network, ResizeAndPad(network), threshold=(None, 0.0)).eval()
    leaf = IMAGES.clone().requires_grad_()
    soft = triplet.soft()
    (gradient,) = torch.autograd.grad(soft.members(leaf)[0].square().sum(), leaf)
    assert gradient.abs().max() > 0
    first, again, other = (triplet.draw(ImageRng(seed, ("a", "b", "c"))).members(IMAGES)[2] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_members_that_do_not_fit():
    with pytest.raises(LabelSpaceMismatch):
        Triplet(SmallNetwork(4), SmallNetwork(5), SmallNetwork(4))
    wrong_size = Triplet(SmallNetwork(), Fails(SmallNetwork(), "shape"), SmallNetwork())
    with pytest.raises(ShapeError, match="student"):
        wrong_size.members(IMAGES)
    more = PixelNetwork(5)
    more.label_space = gray_space(4)
    for ask in (Triplet.members, Triplet.watch, Triplet.forward):
        with pytest.raises(ShapeError, match="one shape"):
            ask(Triplet(SmallNetwork(), SmallNetwork(), more), IMAGES)


@pytest.mark.parametrize(("arguments", "words"), [({"tile": 0}, "tile"), ({"threshold": (0.2, 0.1)}, "low < high")])
def test_arguments_out_of_range(arguments, words):
    with pytest.raises(SpecError, match=words):
        _small(**arguments)


@pytest.mark.parametrize("tile", [None, 8])
@pytest.mark.parametrize("vote", ["ta", "ts"])
def test_the_soft_stand_in_goes_over_from_one_to_the_other(vote, tile):
    for high, chosen in ((90.0, 0), (-90.0, 1 if vote == "ts" else 2)):
        triplet = _small(threshold=(None, high), vote=vote, tile=tile)
        posteriors = triplet.soft()(IMAGES).exp()
        torch.testing.assert_close(posteriors, triplet.members(IMAGES)[chosen].softmax(1))
        assert torch.equal(triplet.soft().predict(IMAGES), triplet.predict(IMAGES))
    between = _small(threshold=(None, 0.0), vote=vote, tile=tile).soft()(IMAGES).exp()
    torch.testing.assert_close(between.sum(1), torch.ones(3, 16, 24, dtype=torch.float64))


def test_the_gradient_of_the_stand_in_reaches_every_member():
    triplet = _small(threshold=(None, 0.0)).requires_grad_(True)
    soft = triplet.soft()
    assert soft.soft() is soft
    soft(IMAGES)[:, 0].mean().backward()
    for member in (triplet.teacher, triplet.student, triplet.adaptive):
        assert any((p.grad != 0).any() for p in member.parameters())


def test_beyond_is_how_far_d_is_outside_its_thresholds():
    for tile in (None, 8):
        triplet = _small(threshold=(-0.1, 0.05), distance="cosine", tile=tile)
        tiles = triplet.watch(IMAGES).tiles
        expected = ((tiles - 0.05).clamp_min(0) + (-0.1 - tiles).clamp_min(0)).sum((1, 2))
        torch.testing.assert_close(triplet.beyond(triplet.members(IMAGES)), expected)
        assert (expected > 0).any()


class Noise(Dataset):
    """Random images with random labels."""

    spec = "noise"

    def __init__(self, count, label_space):
        self.label_space = label_space
        self.ids = tuple(f"image_{i}" for i in range(count))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        stream = torch.Generator().manual_seed(index)
        labels = torch.randint(len(self.label_space), (16, 24), generator=stream)
        return Sample(torch.rand((3, 16, 24), generator=stream), labels, self.ids[index])


GRAY = Noise(48, gray_space(4))
STREETS = Noise(24, label_space("streets"))


def _erfnets(**arguments):
    seeds = []
    for seed in range(3):
        network = build("network", "erfnet(classes='streets', width=0.125)")
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
        seeds.append(network)
    return Triplet(*seeds, **arguments).eval()


def test_fitting_keeps_the_promise_on_what_it_was_fitted_on():
    triplet = _small().float()
    scores = suspicions(triplet, GRAY, batch_size=7)
    fitted = triplet.fit(GRAY, rate=0.2, batch_size=5)
    low, high = fitted.threshold
    assert high == conformal.threshold(scores["against_teacher"], 0.1)
    assert -low == conformal.threshold(scores["against_student"], 0.1)
    assert (fitted.rate, fitted.teacher) == (0.2, triplet.teacher)
    assert fitted.condition == "images exchangeable with 48 of noise"
    said = [fitted.watch(sample.image[None]).attacked[0] for sample in GRAY]
    above = (scores["against_teacher"] >= high).sum()
    assert said.count("teacher") == above
    assert above < conformal.ranks(48, 0.1)
    assert np.nextafter(high, -1) in scores["against_teacher"], "the limit lies just above a score"
    one = triplet.fit(GRAY, rate=0.2, sides=1)
    assert one.threshold == (None, conformal.threshold(scores["against_teacher"], 0.2))
    assert fitted.spec != one.spec != triplet.spec


def test_fitting_needs_enough_images_and_members_that_work():
    with pytest.raises(RobustsegError, match="at least 199 clean"):
        _small().float().fit(GRAY, rate=0.01)
    broken = _small().float()
    broken.student = Fails(broken.student, "raise")
    with pytest.raises(RobustsegError, match="student"):
        broken.fit(GRAY, rate=0.2)
    with pytest.raises(SpecError, match="sides"):
        _small().float().fit(GRAY, rate=0.2, sides=3)


def test_a_fitted_triplet_is_one_file_and_a_zoo_name(tmp_path, monkeypatch):
    fitted = _erfnets(vote="ts", tile=8).fit(STREETS, rate=0.2)
    save(fitted, tmp_path / "watched.safetensors", miou=0.5)
    monkeypatch.setenv("ROBUSTSEG_ZOO", str(tmp_path))
    images = torch.stack([STREETS[i].image for i in range(4)])
    for loaded in (load(tmp_path / "watched.safetensors"), build("network", "zoo:watched")):
        assert isinstance(loaded, Triplet)
        for name in ("threshold", "vote", "tile", "distance", "rate", "condition"):
            assert getattr(loaded, name) == getattr(fitted, name)
        assert torch.equal(loaded(images), fitted(images))
    again = tmp_path / "again.safetensors"
    save(load(tmp_path / "watched.safetensors"), again, miou=0.5)
    assert again.read_bytes() == (tmp_path / "watched.safetensors").read_bytes()


def test_a_spec_builds_it_and_carries_the_files(tmp_path):
    for name, seed in (("t", 0), ("s", 1)):
        torch.manual_seed(seed)
        save(build("network", "erfnet(classes='streets', width=0.125)"), tmp_path / f"{name}.safetensors")
    text = (
        f"triplet(weights('{tmp_path}/t.safetensors'), weights('{tmp_path}/s.safetensors'), "
        f"adaptive=weights('{tmp_path}/s.safetensors'), threshold=(None, 0.05), vote='ts')"
    )
    built = build("network", text)
    assert [file.name for file in built.files] == ["t.safetensors", "s.safetensors"]
    assert built.threshold == (None, 0.05)
    assert build("network", built.spec).spec == built.spec
    assert built.label_space.names == label_space("streets").names
    with pytest.raises(SpecError, match="vote"):
        build("network", text.replace("'ts'", "'tt'"))


def test_the_digest_sees_every_member():
    digests = {digest(_small())}
    for seed in range(3):
        triplet = _small()
        with torch.no_grad():
            next((triplet.teacher, triplet.student, triplet.adaptive)[seed].parameters())[0] += 1e-6
        digests.add(digest(triplet))
    assert len(digests) == 4


def test_the_fast_copy_is_a_triplet_of_fast_members():
    triplet = _erfnets(threshold=(None, 0.02))
    with pytest.MonkeyPatch.context() as patch:
        import jaxtyping

        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        quick = fast(triplet)
    assert isinstance(quick, Triplet)
    for name, member in quick.parts.items():  # a fast copy has fewer layers: norms are folded into convolutions
        assert len(list(member.quick.modules())) < len(list(getattr(triplet, name).modules()))
    images = torch.rand(2, 3, 24, 32)
    torch.testing.assert_close(quick.soft()(images), triplet.soft()(images), rtol=1e-3, atol=1e-4)
    assert quick.watch(images).attacked == triplet.watch(images).attacked


def test_evaluate_records_scores_and_verdicts_and_counts_every_pass(tmp_path):
    triplet = _small(threshold=(-0.02, 0.02)).float()
    data = Noise(4, gray_space(4))
    clean = evaluate(triplet, data)
    assert clean.forwards == 3 * 4
    attack = build("perturbation", "pgd(budget='linf:8/255', steps=2, judge='wrong_pixels')")
    record = evaluate(triplet, data, attack, folder=tmp_path)
    seen = triplet.watch(torch.stack([data[i].image for i in range(4)]))
    assert clean.verdicts["attacked"] == seen.attacked
    np.testing.assert_allclose(clean.scores["against_teacher"], seen.suspicion["against_teacher"])
    assert clean.verdicts["failed"] == [""] * 4
    assert len(record.verdicts["attacked"]) == len(record.scores["against_student"]) == 4
    assert record.backwards == 3 * 4 * 2
    kept = Record.from_json(json.loads((tmp_path / "records.jsonl").read_text()))
    assert (kept.verdicts, kept.scores) == (record.verdicts, record.scores)
    assert metrics.pixel_accuracy(record.counts) <= metrics.pixel_accuracy(clean.counts)


def test_adversarial_images_of_one_member_are_measured_on_the_triplet(tmp_path):
    triplet = _erfnets(threshold=(-0.02, 0.02))
    file = tmp_path / "watched.safetensors"
    save(triplet, file)
    teacher, student = (build("network", f"member(weights('{file}'), '{name}')") for name in ("teacher", "student"))
    assert digest(student) == digest(triplet.student) != digest(teacher)
    assert student.spec == f"member(triplet=weights('{file}'), name='student')"
    attack = build("perturbation", "baer2020_llcm(budget='linf:10/255')")
    records = evaluate([teacher, triplet], Noise(2, label_space("streets")), attack, source=student)
    assert [bool(record.verdicts) for record in records] == [False, True]
    assert records[1].source == student.spec
    with pytest.raises(SpecError, match="a triplet"):
        build("network", "member(erfnet(classes='streets'), 'teacher')")
