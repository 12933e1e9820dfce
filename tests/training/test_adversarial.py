"""Adversarial training: what attacks, whom, how far; exact resume; the best under attack; overfitting said."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from robustseg.core import registry
from robustseg.core.errors import RobustsegError, SpecError
from robustseg.core.files import read_lines
from robustseg.core.spaces import CAMVID
from robustseg.core.types import Batch, Dataset, Network, Sample
from robustseg.networks import weights
from robustseg.networks.erfnet import ERFNet
from robustseg.training import Adversary, Recipe, Step, train
from robustseg.training.adversarial import AdversarialLabels, drift, overfitted
from robustseg.training.loop import Training
from robustseg.training.run import task_of
from robustseg.training.task import Setup

QUICK = Recipe(epochs=4, batch_size=2, crop=(16, 24), scale=(1.0, 1.0), check_every=2)
PGD = "pgd(budget='linf:8/255', steps=2, keep='last')"


class Halves(Dataset):
    """Four small noisy images, the left half darker than the right one."""

    spec = "halves"

    def __init__(self, count: int = 4):
        self.label_space = CAMVID
        self.ids = tuple(f"half_{i}" for i in range(count))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        noise = 0.4 * torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(index))
        labels = torch.zeros(16, 24, dtype=torch.int64)
        labels[:, 12:] = 1
        labels[0, 0] = 255
        return Sample(noise + 0.2 + 0.2 * labels.clamp_max(1), labels, self.ids[index])


def small(dropout: float = 0.1) -> ERFNet:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return ERFNet(classes="camvid", width=0.25, dropout=(dropout, dropout))


def run(folder: Path, adversary: Adversary | None = None, **changed: Any) -> Path:
    given = {"network": small(), "data": Halves(), "holdout": Halves(2), "recipe": QUICK, **changed}
    return train(
        given.pop("network"), given.pop("data"), folder=folder, adversary=adversary or Adversary(PGD, 0.5, 2), **given
    )


def batch_of(count: int) -> Batch:
    return Batch.of([Halves(count)[i] for i in range(count)])


def moved(adversary: Adversary, batch: Batch, epoch: float = 5.0, seed: int = 0) -> Tensor:
    fabric = Fabric(accelerator="cpu", devices=1)
    return adversary.moved(small(), batch, epoch=epoch, seed=seed, fabric=fabric).images


class Run(NamedTuple):
    """A finished run: its folder, best weights and steps."""

    folder: Path
    best: Path
    steps: list[Step]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, steps = tmp_path_factory.mktemp("finished"), list[Step]()
    return Run(folder, run(folder, on_step=steps.append), steps)


def test_resumes_bit_for_bit(finished: Run, tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    def cut(step: Step) -> None:
        if step.step == 3:
            raise Cut

    with pytest.raises(Cut):
        run(tmp_path, on_step=cut)
    torch.rand(7)  # whatever happened in between
    assert run(tmp_path).read_bytes() == finished.best.read_bytes()
    first, second = (
        [{**line, "time": 0} for line in read_lines(f / "history.jsonl")] for f in (finished.folder, tmp_path)
    )
    assert first == second


def test_another_adversary_is_refused(finished: Run) -> None:
    with pytest.raises(RobustsegError, match=r"expected adversary .*share=0.5.* got .*share=1.0.*another folder"):
        run(finished.folder, Adversary(PGD, 1.0, 2))


def test_the_best_is_chosen_under_attack(finished: Run) -> None:
    measured = [s.held_out for s in finished.steps if s.held_out]
    lines = list(read_lines(finished.folder / "history.jsonl"))
    assert [line["robust_miou"] for line in lines] == [m.figures["robust_miou"] for m in measured]
    notes = weights.notes_of(finished.best)
    assert notes["holdout_attack"] == "segpgd(budget='linf:8/255', steps=10)"
    assert notes["holdout_robust_miou"] == max(m.rank for m in measured)
    assert notes["recipe"]["adversary"] == {"attack": PGD, "share": 0.5, "warm_up": 2, "trades": 0.0}


def test_the_share_of_images_is_attacked_and_every_one_stays_in_the_budget() -> None:
    batch = batch_of(200)
    for share in (0.0, 0.3, 1.0):
        change = (moved(Adversary(PGD, share), batch) - batch.images).abs().amax((1, 2, 3))
        assert float((change > 0).float().mean()) == pytest.approx(share, abs=0.1)
        assert float(change.max()) <= 8 / 255 + 1e-6


def test_what_becomes_of_an_image_depends_on_seed_epoch_and_image_alone() -> None:
    batch, adversary = batch_of(4), Adversary(PGD, 0.5)
    whole = moved(adversary, batch)
    parts = [moved(adversary, dataclasses.replace(batch, images=batch.images[i : i + 1], labels=batch.labels[i : i + 1], ids=batch.ids[i : i + 1])) for i in range(4)]  # fmt: skip
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole, moved(adversary, batch, epoch=5.7))
    assert not torch.equal(whole, moved(adversary, batch, epoch=6))
    assert not torch.equal(whole, moved(adversary, batch, seed=1))


def test_the_budget_rises_in_the_warm_up() -> None:
    adversary = Adversary("pgd(budget='linf:8/255', steps=2, step_size='4/255')", warm_up=4)
    given = [adversary.at(epoch).arguments for epoch in (0, 1, 4, 9)]
    assert [round(g["budget"].eps * 255, 6) for g in given] == [0, 2, 8, 8]
    assert [round(g["step_size"] * 255, 6) for g in given] == [0, 1, 4, 4]
    batch = batch_of(2)
    assert torch.equal(moved(adversary, batch, epoch=0), batch.images)
    assert float((moved(adversary, batch, epoch=1) - batch.images).abs().max()) <= 2 / 255 + 1e-6


def test_the_attack_leaves_the_network_as_it_was() -> None:
    network = small().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fabric = Fabric(accelerator="cpu", devices=1)
    after = Adversary(PGD).moved(network, batch_of(2), epoch=0, seed=0, fabric=fabric)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    network.eval()  # what the attack saw: the same images against the network in evaluation mode
    assert torch.equal(after.images, Adversary(PGD).moved(network, batch_of(2), epoch=0, seed=0, fabric=fabric).images)


def test_drift_is_the_divergence_of_two_answers() -> None:
    clean, attacked = torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    weights = torch.ones(2, 4, 5)
    weights[0] = 0
    p, q = clean.softmax(1)[1], attacked.softmax(1)[1]
    assert float(drift(clean, attacked, weights)) == pytest.approx(float((p * (p / q).log()).sum()))
    assert float(drift(clean, clean, weights)) == pytest.approx(0, abs=1e-12)


def first_step(folder: Path, adversary: Adversary | None) -> Step:
    """The first step of a training without dropout on all four images."""
    recipe, fabric = dataclasses.replace(QUICK, batch_size=4), Fabric(accelerator="cpu", devices=1)
    return Training(task_of(Setup(small(0), Halves(), Halves(), recipe, fabric), adversary), folder).step(0)


def test_trades_learns_the_clean_images_and_keeps_the_answer(tmp_path: Path) -> None:
    losses = {}
    for trades, eps in ((0, 0), (0, 64), (6, 0), (6, 64)):
        attack = f"pgd(budget='linf:{eps}/255', steps=2, keep='last')"
        step = first_step(tmp_path, Adversary(attack, trades=trades))
        losses[trades, eps] = step.loss
        assert step.passes == (4 if trades else 2) + (4 if eps else 0)
    assert losses[6, 0] == pytest.approx(losses[0, 0], rel=1e-4)
    assert losses[6, 64] > losses[6, 0] + 1e-3


def test_passes_are_told(tmp_path: Path) -> None:
    # one forward and one backward, and as many for each step of the attack
    assert first_step(tmp_path, Adversary(PGD)).passes == 2 + 2 * 2
    assert first_step(tmp_path, None).passes == 2


def test_a_loss_that_is_no_number_is_one_sentence(tmp_path: Path) -> None:
    broken = small()
    torch.nn.init.constant_(broken.classifier.bias, torch.nan)
    with pytest.raises(
        RobustsegError, match=r"expected a finite loss, got nan at step 0 in .half_\d., .half_\d.; try a smaller"
    ):
        train(broken, Halves(), holdout=Halves(2), folder=tmp_path, recipe=QUICK, adversary=Adversary(PGD))


def test_overfitting_is_an_accuracy_under_many_steps_of_less_than_half_that_under_one() -> None:
    assert overfitted(0.1, 0.5)
    assert not overfitted(0.4, 0.5)


class Bright(Network):
    """Class 1 where it is bright, class 0 elsewhere."""

    def __init__(self) -> None:
        super().__init__(CAMVID, "bright")

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[b, 11, h, w]`."""
        above = 20 * (images.mean(1, keepdim=True) - 0.5)
        return torch.cat([-above, above, torch.full_like(above, -99).expand(-1, 9, -1, -1)], 1)


def test_a_network_that_holds_against_one_step_only_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    network, none = Bright(), "fgsm(budget='linf:0/255')"
    setup = Setup(network, Halves(), Halves(), QUICK, Fabric(accelerator="cpu", devices=1))
    for many, warned in (("segpgd(budget='linf:96/255', steps=10)", True), (none, False)):
        checks = tuple(registry.build("perturbation", spec) for spec in (many, none))
        monkeypatch.setattr(Adversary, "checks", lambda self, checks=checks: checks)
        held_out = AdversarialLabels(setup, Adversary(PGD)).measure(network)
        assert held_out.figures["single_step_miou"] == held_out.figures["miou"] > 0.5
        assert held_out.rank == held_out.figures["robust_miou"]
        assert ("catastrophic overfitting" in held_out.warning) == warned


@pytest.mark.parametrize(
    ("nonsense", "sentence"),
    [
        ({"share": 1.5}, "expected a share of 0 to 1"),
        ({"warm_up": -1}, "a warm-up of at least 0 epochs"),
        ({"trades": -1}, "a weight of TRADES of at least 0"),
        ({"attack": "gaussian(rms='4/255')"}, "expected an attack with a budget, got 'gaussian"),
        ({"attack": "pdg(budget='linf:4/255')"}, "try pgd"),
    ],
)
def test_nonsense_is_refused(nonsense: dict[str, Any], sentence: str) -> None:
    with pytest.raises((RobustsegError, SpecError), match=sentence):
        Adversary(**{"attack": PGD, **nonsense})
