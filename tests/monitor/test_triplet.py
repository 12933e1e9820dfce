"""Three networks as one: who answers, what is said when one fails, how it is fitted, saved, attacked and measured."""

import json

import numpy as np
import pytest
import torch

from robustseg.core.errors import LabelSpaceMismatch, RobustsegError, ShapeError, SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.provenance import digest
from robustseg.core.registry import build
from robustseg.core.spaces import label_space
from robustseg.core.types import Dataset, Network, Sample
from robustseg.evaluation.run import evaluate
from robustseg.monitor import conformal
from robustseg.monitor.triplet import SoftTriplet, Triplet, fit, suspicions
from robustseg.networks.fast import _Fast, fast
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
            verdict = super().watch(images)
            return verdict._replace(failed=[()] * len(images))

    with pytest.raises(AssertionError, match="teacher gives NaN"):
        check_monitor(Blind(*(SmallNetwork(seed=seed) for seed in range(3))), size=(16, 24))


def test_scores_and_who_is_blamed():
    # d = |T - A| - |S - A|
    triplet, _, images = _saying([0.0, 0.5, 0.1], [0.1, 0.1, 0.9], [0.1, 0.2, 0.2], threshold=(-0.2, 0.2))
    verdict = triplet.watch(images)
    torch.testing.assert_close(verdict.scores, torch.tensor([0.1, 0.2, -0.6]))
    assert verdict.attacked == ["none", "teacher", "student"]
    assert verdict.alarm.tolist() == [False, True, True]
    assert verdict.failed == [(), (), ()]
    assert verdict.tiles.shape == (3, 1, 1)
    torch.testing.assert_close(verdict.suspicion["against_teacher"], verdict.scores)
    torch.testing.assert_close(verdict.suspicion["against_student"], -verdict.scores)


def test_one_threshold_is_the_papers_rule():
    triplet, _, images = _saying([0.0, 0.5], [0.0, 0.1], [0.0, 0.2], threshold=0.2)
    verdict = triplet.watch(images)
    assert verdict.attacked == ["student", "teacher"], "there is no quiet"
    assert verdict.alarm.tolist() == [False, True]


@pytest.mark.parametrize(("vote", "answers"), [("ts", "TST"), ("ta", "TAT")])
def test_who_answers(vote, answers):
    triplet, labels, images = _saying(
        [0.0, 0.5, 0.1], [0.1, 0.1, 0.9], [0.1, 0.2, 0.2], threshold=(-0.2, 0.2), vote=vote
    )
    expected = torch.stack([labels["TSA".index(who)][i] for i, who in enumerate(answers)])
    verdict = triplet.watch(images)
    assert torch.equal(verdict.labels, expected)
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
    verdict = triplet.watch(torch.zeros(1, 3, 10, 14))
    torch.testing.assert_close(verdict.tiles, torch.tensor([[[0.04, 0, 0], [0, 0, 1.0]]]))
    assert verdict.attacked == ["teacher"]
    assert float(verdict.scores) == 1
    assert torch.equal(verdict.labels, torch.where(hurt == 2, 0, hurt))
    whole = Triplet(Says(hurt), Says(same), Says(same), threshold=(-0.5, 0.5))
    assert whole.watch(torch.zeros(1, 3, 10, 14)).attacked == ["none"], "the mean over the image does not see it"


def test_disagreement_is_the_share_of_pairs():
    labels = [torch.tensor([[[0, 1, 2, 2]]]), torch.tensor([[[0, 1, 1, 2]]]), torch.tensor([[[0, 0, 0, 2]]])]
    verdict = Triplet(*(Says(one) for one in labels)).watch(torch.zeros(1, 3, 1, 4))
    torch.testing.assert_close(verdict.disagreement, torch.tensor([[[0, 2 / 3, 1, 0]]]))


@pytest.mark.parametrize("fault", ["raise", "shape", "nan"])
@pytest.mark.parametrize(
    ("victim", "vote", "rest"), [(0, "ta", 2), (0, "ts", 1), (1, "ta", 0), (2, "ta", 0), (2, "ts", 0)]
)
def test_if_one_fails_the_others_go_on(fault, victim, vote, rest):
    members = [SmallNetwork(seed=seed) for seed in range(3)]
    whole = Triplet(*members, vote=vote, threshold=(-0.05, 0.05)).eval().watch(IMAGES)
    answers = [member(IMAGES).argmax(1) for member in members]
    members[victim] = Fails(members[victim], fault)
    verdict = Triplet(*members, vote=vote, threshold=(-0.05, 0.05)).eval().watch(IMAGES)
    name = ("teacher", "student", "adaptive")[victim]
    for i in range(3):
        if fault == "nan" and i != 1:
            assert verdict.failed[i] == ()
            assert verdict.attacked[i] == whole.attacked[i]
            assert torch.equal(verdict.labels[i], whole.labels[i]), "an image pays for another"
            continue
        assert verdict.failed[i] == (name,)
        assert verdict.attacked[i] == "unknown"
        assert not verdict.alarm[i]
        assert verdict.scores[i].isnan()
        assert torch.equal(verdict.labels[i], answers[rest][i])


def test_the_soft_vote_of_those_that_work():
    members = [SmallNetwork(seed=seed) for seed in range(3)]
    mean = torch.stack([members[i](IMAGES).softmax(1) for i in (0, 2)]).mean(0)
    members[1] = Fails(members[1], "raise")
    torch.testing.assert_close(Triplet(*members, vote="soft").eval()(IMAGES).exp(), mean)


def test_if_two_fail_the_third_answers_and_if_all_fail_that_is_said():
    triplet = _small(vote="ts")
    answers = list(triplet.members(IMAGES))
    verdict = triplet.judge([None, None, answers[2]])
    assert verdict.failed == [("teacher", "student")] * 3
    assert torch.equal(verdict.labels, answers[2].argmax(1))
    lost = [answer.clone() for answer in answers]
    for one in lost:
        one[1, 0, 0, 0] = torch.inf
    verdict = triplet.judge(lost)
    assert verdict.failed == [(), ("teacher", "student", "adaptive"), ()]
    assert (verdict.labels[1] == IGNORE).all()
    assert (verdict.labels[0] != IGNORE).all()
    with pytest.raises(RobustsegError, match="got none"):
        triplet.judge([None, None, None])


def test_judging_answers_is_watching():
    triplet = _small(threshold=(-0.02, 0.02), tile=8)
    for first, second in zip(triplet.watch(IMAGES), triplet.judge(triplet.members(IMAGES)), strict=True):
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


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
    assert isinstance(soft, SoftTriplet)
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
    """Random images with random labels, as a data set of streets."""

    spec = "noise"
    label_space = label_space("streets")

    def __init__(self, count):
        self.ids = tuple(f"image_{i}" for i in range(count))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        stream = torch.Generator().manual_seed(index)
        labels = torch.randint(len(self.label_space), (16, 24), generator=stream)
        return Sample(torch.rand((3, 16, 24), generator=stream), labels, self.ids[index])


DATA = Noise(48)


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
    triplet = _erfnets()
    scores = suspicions(triplet, DATA, batch_size=7)
    fitted = fit(triplet, DATA, rate=0.2, batch_size=5)
    low, high = fitted.threshold
    assert high == conformal.threshold(scores["against_teacher"], 0.1)
    assert -low == conformal.threshold(scores["against_student"], 0.1)
    assert (fitted.rate, fitted.teacher) == (0.2, triplet.teacher)
    assert fitted.condition == "images exchangeable with 48 of noise"
    said = [fitted.watch(sample.image[None]).attacked[0] for sample in DATA]
    above = (scores["against_teacher"] >= high).sum()
    assert said.count("teacher") == above
    assert above < conformal.ranks(48, 0.1)
    assert np.nextafter(high, -1) in scores["against_teacher"], "the limit lies just above a score"
    one = fit(triplet, DATA, rate=0.2, sides=1)
    assert one.threshold == (None, conformal.threshold(scores["against_teacher"], 0.2))
    assert fitted.spec != one.spec != triplet.spec


def test_fitting_needs_enough_images_and_members_that_work():
    with pytest.raises(RobustsegError, match="at least 199 clean"):
        fit(_erfnets(), DATA, rate=0.01)
    broken = _erfnets()
    broken.student = Fails(broken.student, "raise")
    with pytest.raises(RobustsegError, match="student"):
        fit(broken, DATA, rate=0.2)
    with pytest.raises(SpecError, match="sides"):
        fit(_erfnets(), DATA, rate=0.2, sides=3)


def test_a_fitted_triplet_is_one_file_and_a_zoo_name(tmp_path, monkeypatch):
    fitted = fit(_erfnets(vote="ts", tile=8), DATA, rate=0.2)
    save(fitted, tmp_path / "watched.safetensors", miou=0.5)
    monkeypatch.setenv("ROBUSTSEG_ZOO", str(tmp_path))
    images = torch.stack([DATA[i].image for i in range(4)])
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
    assert all(isinstance(member, _Fast) for member in (quick.teacher, quick.student, quick.adaptive))
    assert not isinstance(triplet.teacher, _Fast)
    images = torch.rand(2, 3, 24, 32)
    torch.testing.assert_close(quick.soft()(images), triplet.soft()(images), rtol=1e-3, atol=1e-4)
    assert quick.watch(images).attacked == triplet.watch(images).attacked


def test_evaluate_records_scores_and_verdicts_and_counts_every_pass(tmp_path):
    triplet = _erfnets(threshold=(-0.02, 0.02))
    data = Noise(4)
    clean = evaluate(triplet, data)
    assert clean.forwards == 3 * 4
    attack = build("perturbation", "pgd(budget='linf:8/255', steps=2, judge='wrong_pixels')")
    record = evaluate(triplet, data, attack, folder=tmp_path)
    verdict = triplet.watch(torch.stack([data[i].image for i in range(4)]))
    assert clean.verdicts["attacked"] == verdict.attacked
    np.testing.assert_allclose(clean.scores["against_teacher"], verdict.suspicion["against_teacher"])
    assert clean.verdicts["failed"] == [""] * 4
    assert len(record.verdicts["attacked"]) == len(record.scores["against_student"]) == 4
    assert record.backwards == 3 * 4 * 2
    kept = Record.from_json(json.loads((tmp_path / "records.jsonl").read_text()))
    assert (kept.verdicts, kept.scores) == (record.verdicts, record.scores)
    assert metrics.miou(record.counts) <= metrics.miou(clean.counts)


def test_adversarial_images_of_one_member_are_measured_on_the_triplet(tmp_path):
    triplet = _erfnets(threshold=(-0.02, 0.02))
    file = tmp_path / "watched.safetensors"
    save(triplet, file)
    teacher, student = (build("network", f"member(weights('{file}'), '{name}')") for name in ("teacher", "student"))
    assert digest(student) == digest(triplet.student) != digest(teacher)
    assert student.spec == f"member(triplet=weights('{file}'), name='student')"
    attack = build("perturbation", "baer2020_llcm(budget='linf:10/255')")
    records = evaluate([teacher, triplet], Noise(2), attack, source=student)
    assert [bool(record.verdicts) for record in records] == [False, True]
    assert records[1].source == student.spec
    with pytest.raises(SpecError, match="a triplet"):
        build("network", "member(erfnet(classes='streets'), 'teacher')")
