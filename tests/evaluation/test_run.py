"""Measuring: equal to a plain loop, one perturbation for all targets, resumed bit for bit, and doubtful runs flagged."""

import json
import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from robustseg.core import registry
from robustseg.core.errors import LabelSpaceMismatch, RobustsegError, ShapeError
from robustseg.core.labels import IGNORE
from robustseg.core.types import Dataset, Network, Sample
from robustseg.datasets import Resized, Spread
from robustseg.evaluation.run import Conditions, evaluate, plan, recorded
from robustseg.results import metrics
from robustseg.results.record import read_records
from robustseg.testing import PixelNetwork, SmallNetwork, gray_space

PGD = "pgd(budget='linf:8/255', steps=3)"


class Scenes(Dataset):
    """Noisy 16x16 images with four classes and a row of void; reads are written down."""

    def __init__(self, count=7, sizes=((16, 16),)):
        self.spec, self.label_space, self.sizes = f"scenes({count})", gray_space(4), sizes
        self.ids = tuple(f"a_{i:02d}" for i in range(count))
        self.reads = []

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        self.reads.append(index)
        generator = torch.Generator().manual_seed(index)
        size = self.sizes[index % len(self.sizes)]
        labels = torch.randint(4, size, generator=generator)
        labels[0] = IGNORE
        return Sample(torch.rand((3, *size), generator=generator), labels, self.ids[index])

    def fingerprint(self, index):
        return f"{index}: {self.sizes}"


class Spy:
    """A perturbation that does what another does and writes down what it saw and gave."""

    def __init__(self, spec=PGD):
        self.inner, self.spec, self.seen = registry.build("perturbation", spec), spec, []

    def __call__(self, network, images, labels, *, rng):
        result = self.inner(network, images, labels, rng=rng)
        self.seen.append((rng.ids, result.clone()))
        return result

    @property
    def batches(self):
        return [ids for ids, _ in self.seen]


class Wrapped(Network):
    """A network with something done to its images or its logits."""

    def __init__(self, inner, before=lambda x: x, after=lambda x: x, spec="wrapped"):
        super().__init__(inner.label_space, spec)
        self.inner, self.before, self.after = inner, before, after

    def forward(self, images):
        return self.after(self.inner(self.before(images)))


class Moves:
    """A perturbation that a function of the images makes up."""

    def __init__(self, move, spec="moves"):
        self.move, self.spec = move, spec

    def __call__(self, network, images, labels, *, rng):
        return self.move(images)


def small(seed=0):
    return SmallNetwork(seed=seed).float()


def attack(spec=PGD):
    return registry.build("perturbation", spec)


def lines(folder):
    path = Path(folder) / "records.jsonl"
    return path.read_bytes() if path.is_file() else b""


def figures(record):
    """All of a record that must be the same when it is measured again."""
    return json.dumps([record.counts.to_json(), record.scores, record.forwards, record.backwards, record.flags])


def test_a_record_equals_a_plain_loop():
    data, network, spy = Scenes(), SmallNetwork(), Spy()
    record = evaluate(network, data, spy, conditions=Conditions(batch_size=3, precision="float64"))
    perturbed = {i: image for ids, images in spy.seen for i, image in zip(ids, images, strict=True)}
    confusion = np.zeros((4, 5), np.int64)
    for n, name in enumerate(data.ids):
        sample = data[n]
        with torch.no_grad():
            clean = network(sample.image[None].double()).argmax(1)[0]
            guess = network(perturbed[name][None]).argmax(1)[0]
        one = np.zeros((4, 5), np.int64)
        kept = []
        for label, g, c in zip(sample.labels.flatten(), guess.flatten(), clean.flatten(), strict=True):
            if label != IGNORE:
                one[label, g] += 1
                kept.append(bool(g == c))
        confusion += one
        assert record.counts.tp[n].tolist() == np.diagonal(one).tolist()
        assert record.counts.fn[n].tolist() == (one.sum(1) - np.diagonal(one)).tolist()
        assert record.counts.fp[n].tolist() == (one.sum(0)[:4] - np.diagonal(one)).tolist()
        change = (perturbed[name] - sample.image.double()).numpy()
        assert record.scores["rms"][n] == pytest.approx(float(np.sqrt((change**2).mean())), rel=1e-12)
        assert record.scores["linf"][n] == float(np.abs(change).max())
        assert record.scores["agreement"][n] == pytest.approx(np.mean(kept))
    assert record.counts.confusion.tolist() == confusion.tolist()
    assert record.ids == data.ids
    assert max(record.scores["linf"]) <= 8 / 255 + 1e-9


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_counts_do_not_depend_on_the_batch_size(batch_size):
    one, other = (
        evaluate(SmallNetwork(), Scenes(), attack(), conditions=Conditions(batch_size=n, precision="float64"))
        for n in (2, batch_size)
    )
    assert one.counts == other.counts


def test_a_common_source_is_asked_once_and_passes_are_counted():
    def step(network, images, labels, *, rng):
        leaf = images.clone().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(network(leaf).square().sum(), leaf)
        return (images + gradient.sign() / 255).clamp(0, 1)

    step.spec = "step"
    networks = [small(1), small(2), small(3)]
    records = evaluate(networks, Scenes(), step, source=networks[0], conditions=Conditions(batch_size=3))
    assert [r.network for r in records] == [n.spec for n in networks]
    assert {r.source for r in records} == {networks[0].spec}
    assert {(r.forwards, r.backwards) for r in records} == {(7 * (1 + 2 * 3), 7)}
    spy = Spy()
    again = evaluate(networks, Scenes(), spy, source=small(4), conditions=Conditions(batch_size=3))
    assert len(spy.seen) == 3
    assert {r.source for r in again} == {small(4).spec}
    own = evaluate(networks, Scenes(), step, conditions=Conditions(batch_size=3))
    assert [(r.source, r.forwards, r.backwards) for r in own] == [(n.spec, 21, 7) for n in networks]
    assert own[0].counts == records[0].counts
    assert own[1].counts != records[1].counts


def test_passes_of_clean_and_of_noise():
    clean = evaluate(small(), Scenes())
    assert (clean.perturbation, clean.forwards, clean.backwards) == ("clean", 7, 0)
    noise = evaluate(small(), Scenes(), attack("gaussian(rms='8/255')"))
    assert (noise.forwards, noise.backwards) == (14, 0)
    (cost,) = plan([small()], Scenes(), attack("gaussian(rms='8/255')"))
    assert (cost.forwards, cost.backwards) == (14, 0)


@pytest.mark.parametrize("spec", ["pgd(budget='linf:0')", "pgd(budget='l2:0')", "gaussian(rms=0)", "sign(rms=0)"])
def test_strength_zero_changes_no_count(spec):
    clean, still = (evaluate(small(), Scenes(), p) for p in (None, attack(spec)))
    assert still.counts == clean.counts
    assert set(still.scores["linf"]) == set(still.scores["rms"]) == {0.0}
    assert set(still.scores["agreement"]) == {1.0}


class Cut(Exception):
    """Stands for whatever ends a run."""


def cut_after(batches):
    def on_batch(progress):
        if progress.done >= batches * 2:
            raise Cut

    return on_batch


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("sizes", [((16, 16),), ((16, 16), (16, 16), (12, 20))])
def test_a_cut_run_goes_on_to_the_same_record(tmp_path, torn, sizes):
    conditions = Conditions(batch_size=2)
    networks = [small(1), small(2)]
    whole = Spy()
    expected = evaluate(networks, Scenes(sizes=sizes), whole, networks[1], conditions=conditions, folder=tmp_path / "a")
    first, second = Spy(), Spy()
    with pytest.raises(Cut):
        evaluate(
            networks,
            Scenes(sizes=sizes),
            first,
            networks[1],
            conditions=conditions,
            folder=tmp_path,
            on_batch=cut_after(2),
        )
    assert lines(tmp_path) == b""
    (progress,) = (tmp_path / "progress").iterdir()
    if torn:
        progress.write_bytes(progress.read_bytes()[:-9])
    data = Scenes(sizes=sizes)
    records = evaluate(networks, data, second, networks[1], conditions=conditions, folder=tmp_path, panels=0)
    assert [figures(r) for r in records] == [figures(r) for r in expected]
    assert [figures(r) for r in read_records(tmp_path)] == [figures(r) for r in expected]
    done = len(first.seen) - torn
    assert first.batches[:done] + second.batches == whole.batches
    for ours, theirs in zip(first.seen[:done] + second.seen, whole.seen, strict=True):
        assert torch.equal(ours[1], theirs[1])
    assert not progress.exists()


def test_what_is_recorded_is_not_run_again(tmp_path):
    spy, data = Spy(), Scenes()
    first = evaluate([small(), PixelNetwork().float()], data, spy, folder=tmp_path)
    before, data.reads, spy.seen = lines(tmp_path), [], []
    again = evaluate([small(), PixelNetwork().float()], data, spy, folder=tmp_path)
    assert (data.reads, spy.seen) == ([], [])
    assert lines(tmp_path) == before
    assert [figures(r) for r in again] == [figures(r) for r in first]
    evaluate([small(), small(5)], data, spy, folder=tmp_path)
    assert len(spy.seen) == 2
    assert len(read_records(tmp_path)) == 3


def test_other_conditions_and_views_are_other_runs(tmp_path):
    def run(data, **conditions):
        return evaluate(small(), data, attack(), conditions=Conditions(**conditions), folder=tmp_path)

    records = [
        run(Scenes()),
        run(Scenes(), seed=1),
        run(Spread(Scenes(), 3)),
        run(Resized(Scenes(), (8, 8))),
        run(Spread(Resized(Scenes(), (8, 8)), 3)),
        run(Spread(Resized(Scenes(), (12, 8)), 3)),
    ]
    assert len(read_records(tmp_path)) == len(records)
    assert [r.size for r in records] == [None, None, None, (8, 8), (8, 8), (12, 8)]


@pytest.mark.parametrize("change", ["drop", "swap", "repeat", "start", "value"])
def test_a_progress_file_that_was_changed_is_not_resumed(tmp_path, change):
    """Each line has a digest; that they are all there, in order, is checked against the images."""
    with pytest.raises(Cut):
        evaluate(small(), Scenes(), conditions=Conditions(batch_size=1), folder=tmp_path, on_batch=cut_after(3))
    (progress,) = (tmp_path / "progress").iterdir()
    start, first, second, *others = progress.read_text().splitlines(keepends=True)
    changed = {
        "drop": [start, second, *others],
        "swap": [start, second, first, *others],
        "repeat": [start, first, first, *others],
        "start": [first, second, *others],
        "value": [start, first.replace('"forwards":1', '"forwards":2'), second, *others],
    }[change]
    progress.write_text("".join(changed))
    with pytest.raises(RobustsegError, match=r"expected .*progress.*; try"):
        evaluate(small(), Scenes(), conditions=Conditions(batch_size=1), folder=tmp_path)
    progress.unlink()
    again = evaluate(small(), Scenes(), conditions=Conditions(batch_size=1), folder=tmp_path)
    assert figures(again) == figures(evaluate(small(), Scenes(), conditions=Conditions(batch_size=1)))


def test_changed_masks_are_measured_anew_and_not_resumed(tmp_path):
    class Corrected(Scenes):
        """The same images under the same spec, with one mask corrected."""

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return Sample(sample.image, torch.zeros_like(sample.labels) if index == 2 else sample.labels, sample.id)

        def fingerprint(self, index):
            return super().fingerprint(index) + " corrected" * (index == 2)

    before = evaluate(small(), Scenes(), folder=tmp_path)
    after = evaluate(small(), Corrected(), folder=tmp_path)
    assert after.counts != before.counts
    assert after.key != before.key
    assert len(read_records(tmp_path)) == 2

    def cut(progress):
        if progress.done == 4:
            raise Cut

    with pytest.raises(Cut):
        evaluate(small(), Scenes(), attack(), folder=tmp_path, on_batch=cut, conditions=Conditions(batch_size=1))
    whole = evaluate(small(), Corrected(), attack())
    resumed = evaluate(small(), Corrected(), attack(), folder=tmp_path)
    assert figures(resumed) == figures(whole)


def test_recorded_work_costs_nothing(tmp_path):
    evaluate(small(), Scenes(), attack(), folder=tmp_path)
    (free,) = plan([small()], Scenes(), attack(), folder=tmp_path)
    (cost,) = plan([small()], Scenes(), attack())
    assert (free.forwards, free.backwards, free.seconds) == (0, 0, 0)
    assert cost.forwards > 0
    (other,) = plan([small()], Scenes(), attack(), folder=tmp_path, conditions=Conditions(seed=1))
    assert other.forwards > 0


@pytest.mark.parametrize("last", ["summary.json", "*.npz"])
def test_a_run_cut_while_it_ends_is_ended_by_the_next(tmp_path, monkeypatch, last):
    evaluate(small(), Scenes(), folder=tmp_path)

    def cut(part, path, rename=os.replace):
        if Path(path).match(last):
            raise Cut
        rename(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut)
        with pytest.raises(Cut):
            evaluate(small(), Scenes(), Spy(), folder=tmp_path)
    spy = Spy()
    evaluate(small(), Scenes(), spy, folder=tmp_path, panels=3)
    assert len(spy.seen) == 3  # the panels; no batch is measured again
    assert len(list((tmp_path / "panels").glob("*.npz"))) == 3
    assert len(read_records(tmp_path)) == 2
    assert len(json.loads((tmp_path / "summary.json").read_text())) == 2
    assert list((tmp_path / "progress").iterdir()) == []


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from test_run import *
def slow(progress):
    print(progress.done, flush=True)
    time.sleep(0.5)
evaluate(small(), Scenes(), attack(), conditions=Conditions(batch_size=1), folder={folder!r}, on_batch=slow)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_goes_on_to_the_same_record(tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "killed"))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert [process.stdout.readline() for _ in range(3)] == ["1\n", "2\n", "3\n"]
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert lines(tmp_path / "killed") == b""
    steps = []
    conditions = Conditions(batch_size=1)
    resumed = evaluate(
        small(), Scenes(), attack(), conditions=conditions, folder=tmp_path / "killed", on_batch=steps.append
    )
    assert [p.done for p in steps] == [4, 5, 6, 7]
    assert figures(resumed) == figures(evaluate(small(), Scenes(), attack(), conditions=conditions))


def test_records_summary_and_panels_appear(tmp_path):
    for perturbation in (None, attack()):
        evaluate(small(), Scenes(), perturbation, folder=tmp_path, panels=2)
    assert [r.perturbation for r in read_records(tmp_path)] == ["clean", PGD]
    clean, attacked = json.loads((tmp_path / "summary.json").read_text())
    assert attacked["q"] == pytest.approx(attacked["miou"] / clean["miou"])
    assert attacked["images"] == 7
    assert len(list((tmp_path / "panels").glob("*.npz"))) == 2


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluate(small(), Scenes(), attack())
    assert list(tmp_path.iterdir()) == []


def test_label_spaces_must_be_the_same(tmp_path):
    other = SmallNetwork(classes=3).float()
    with pytest.raises(LabelSpaceMismatch, match=r"expected one label space, got 3 classes in small.* and 4 in scenes"):
        evaluate([small(), other], Scenes(), folder=tmp_path)
    with pytest.raises(LabelSpaceMismatch, match="expected one label space"):
        evaluate(small(), Scenes(), attack(), source=other, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_measure_is_said():
    with pytest.raises(RobustsegError, match="expected at least one network and one image, got 1 and 0"):
        evaluate(small(), Scenes(0))
    with pytest.raises(RobustsegError, match="expected at least one network and one image, got 0 and 7"):
        evaluate([], Scenes())
    with pytest.raises(RobustsegError, match=r"expected a precision of .*, got 'float8'"):
        Conditions(precision="float8")
    with pytest.raises(RobustsegError, match="expected at least one image a batch, got 0; try"):
        Conditions(batch_size=0)


@pytest.mark.parametrize(
    ("move", "error", "sentence"),
    [
        (lambda x: x[..., :-1], ShapeError, r"expected .* images \(4, 3, 16, 16\) from moves, got .*15\); try"),
        (lambda x: x.double(), ShapeError, r"got torch.float64 \(4, 3, 16, 16\); try"),
        (lambda x: x * float("nan"), RobustsegError, "expected finite images from moves, got NaN or infinity"),
        (lambda x: x + 1, RobustsegError, r"expected images in \[0, 1\] from moves, got 1\.\d* to .*; try"),
    ],
)
def test_a_perturbation_must_give_images_and_leaves_no_record(tmp_path, move, error, sentence):
    evaluate(small(), Scenes(), folder=tmp_path)
    before = lines(tmp_path)
    with pytest.raises(error, match=sentence):
        evaluate(small(), Scenes(), Moves(move), folder=tmp_path)
    assert lines(tmp_path) == before


def test_the_network_is_left_as_it_was():
    network = small()
    network.train()
    next(network.parameters()).requires_grad_(False)
    state = {k: v.clone() for k, v in network.state_dict().items()}
    flags = [p.requires_grad for p in network.parameters()]
    for perturbation in (attack(), Moves(lambda x: x * float("nan"))):
        try:
            evaluate(network, Scenes(), perturbation)
        except RobustsegError:
            assert perturbation.spec == "moves"
        assert all(m.training for m in network.modules())
        assert [p.requires_grad for p in network.parameters()] == flags
        assert all(p.grad is None for p in network.parameters())
        assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
        assert not network._forward_hooks


def raised(network):
    return {name: value for name, value in evaluate(network, Scenes(2)).flags.items() if value}


def test_healthy_networks_raise_no_flag():
    names = {"random_output", "probabilities", "few_values", "not_finite", "saturated", "zero_gradients"}
    names |= {"batch_dependent", "wrong_gradient", "not_clipped", "no_labels", "absent_classes"}
    assert set(evaluate(small(), Scenes(2)).flags) == names
    assert raised(small()) == {}
    assert raised(PixelNetwork().float()) == {}  # void pixels reach no neighbour here, and are no hidden gradient


def test_doubtful_networks_raise_their_flag():
    assert raised(Wrapped(small(), after=lambda x: x.softmax(1))) == {"probabilities": True}
    assert raised(Wrapped(small(), after=lambda x: x + torch.randn_like(x))) == {"random_output": True}
    assert raised(Wrapped(small(), before=lambda x: (x * 8).round() / 8)) == {"zero_gradients": 1.0}
    assert raised(Wrapped(small(), before=lambda x: x.detach())) == {"zero_gradients": True}
    assert raised(Wrapped(small(), after=lambda x: x * 1000))["saturated"] > 0.5
    assert raised(Wrapped(small(), after=lambda x: x.sign()))["few_values"] is True
    assert raised(Wrapped(small(), after=lambda x: x / 0))["not_finite"] == 1
    half = torch.ones(16, 16).index_fill(0, torch.arange(8), 0)
    share = raised(Wrapped(PixelNetwork().float(), before=lambda x: torch.where(half > 0, x, x.detach())))
    assert share["zero_gradients"] == pytest.approx(0.5)
    assert raised(Wrapped(PixelNetwork().float(), before=lambda x: x * half)) == {}, "it does not look at that half"


def test_memory_is_flat_in_the_size_of_the_set():
    live, most = [], []

    def watched(tensor):
        live.append(weakref.ref(tensor))
        most.append(sum(ref() is not None for ref in live))
        return tensor

    class Watched(Scenes):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            watched(sample.image)
            return sample

    evaluate(small(), Watched(60), Moves(lambda x: watched(x.clone())), conditions=Conditions(batch_size=2))
    assert len(live) >= 90
    assert max(most) <= 6


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_other_precisions_run(precision, tmp_path):
    conditions = Conditions(precision=precision)
    networks = [small(1), small(2)]
    clean = evaluate(networks, Scenes(), conditions=conditions, folder=tmp_path)
    moved = evaluate(networks, Scenes(), attack(), networks[0], conditions=conditions, folder=tmp_path)
    assert [r.precision for r in (*clean, *moved)] == [precision] * 4
    assert moved[0].counts != clean[0].counts
    assert all(p.dtype == torch.float32 for p in networks[0].parameters())
    # what is counted on clean images is the same up to rounding
    single = evaluate(networks[0], Scenes())
    assert int(np.abs(single.counts.confusion - clean[0].counts.confusion).sum()) <= 4


def test_a_prediction_of_another_size_is_said():
    shrunk = Wrapped(small(), after=lambda x: nn.functional.avg_pool2d(x, 2))
    with pytest.raises(ShapeError, match=r"expected .*16, 16\).* got .*8, 8\).*; try"):
        evaluate(shrunk, Scenes())


def test_progress_is_told():
    steps = []
    evaluate(small(), Scenes(5), attack(), conditions=Conditions(batch_size=2), on_batch=steps.append)
    assert [(p.done, p.total) for p in steps] == [(2, 5), (4, 5), (5, 5)]
    assert {(p.perturbation, p.source) for p in steps} == {(PGD, small().spec)}


def test_the_callers_gradient_mode_does_not_matter():
    expected = figures(evaluate(small(), Scenes(), attack()))
    for mode in (torch.no_grad, torch.inference_mode):
        network = small()
        with mode():
            assert figures(evaluate(network, Scenes(), attack())) == expected


def test_other_weights_under_one_spec_are_another_measurement(tmp_path):
    network = small()
    first = evaluate(network, Scenes(), folder=tmp_path)
    with torch.no_grad():
        next(network.parameters()).mul_(-1)
    second = evaluate(network, Scenes(), folder=tmp_path)
    attacked = evaluate(network, Scenes(), attack(), folder=tmp_path)
    assert second.key != first.key
    assert second.counts != first.counts
    assert evaluate(network, Scenes(), folder=tmp_path).counts == second.counts
    rows = json.loads((tmp_path / "summary.json").read_text())
    assert len(rows) == 3
    assert rows[2]["q"] == pytest.approx(metrics.miou(attacked.counts) / metrics.miou(second.counts))


def test_two_networks_with_one_spec_are_refused():
    one, other = small(), small()
    with torch.no_grad():
        next(other.parameters()).mul_(-1)
    with pytest.raises(RobustsegError, match="try giving each a name"):
        evaluate([one, other], Scenes())
    other.spec = "other"
    assert len(evaluate([one, other], Scenes())) == 2


def test_data_of_void_only_is_flagged():
    class Void(Scenes):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return Sample(sample.image, torch.full_like(sample.labels, IGNORE), sample.id)

    assert raised(small()) == {}
    assert evaluate(small(), Void(2)).flags["no_labels"] is True


def test_a_class_that_occurs_nowhere_is_flagged(tmp_path):
    class Less(Scenes):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return Sample(sample.image, torch.where(sample.labels == 1, IGNORE, sample.labels), sample.id)

    record = evaluate(small(), Less(2), folder=tmp_path)
    assert record.flags["absent_classes"] == 1
    assert record.flags["no_labels"] is False
    assert json.loads((tmp_path / "summary.json").read_text())[0]["flags"] == ["absent_classes"]


def test_one_run_at_a_time_in_a_folder(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    from robustseg.core.files import sole_writer

    with ThreadPoolExecutor(1) as other, sole_writer(tmp_path):
        refused = other.submit(evaluate, small(), Scenes(2), folder=tmp_path)
        with pytest.raises(RobustsegError, match="another run that writes there"):
            refused.result()
    evaluate(small(), Scenes(2), folder=tmp_path)


def test_the_summary_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "summary.json").write_text("mine")
    with pytest.raises(RobustsegError, match=r"expected a new folder or one with records\.jsonl, got 'summary\.json'"):
        evaluate(small(), Scenes(2), folder=tmp_path)
    assert (tmp_path / "summary.json").read_text() == "mine"


def test_a_perturbation_from_python_is_found_again_however_it_is_spelled(tmp_path):
    spy = Spy("pgd(budget='linf:8/255', steps=3)")
    spy.spec = "mine(budget='linf: 8/255')"
    evaluate(small(), Scenes(), spy, folder=tmp_path)
    assert recorded([small()], Scenes(), spy, folder=tmp_path)
    evaluate(small(), Scenes(), spy, folder=tmp_path)
    assert len(read_records(tmp_path)) == 1
