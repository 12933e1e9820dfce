"""Objectives against several networks at once, and behind a monitor's back."""

import pytest
import torch

from robustseg.attacks.objectives import WEIGHT, evade, members, objective, unnoticed
from robustseg.core.errors import SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.core.registry import build
from robustseg.losses import pixelwise as losses
from robustseg.monitor.triplet import Triplet
from robustseg.testing import SmallNetwork

generator = torch.Generator().manual_seed(1)
IMAGES = torch.rand((2, 3, 16, 24), generator=generator, dtype=torch.float64)
LABELS = torch.randint(4, (2, 16, 24), generator=generator)
LABELS[:, :3] = IGNORE


def _triplet(threshold=(-0.05, 0.05)):
    return Triplet(*(SmallNetwork(seed=seed) for seed in range(3)), threshold=threshold).eval()


def test_members_is_the_mean_over_those_named():
    triplet = _triplet()
    each = {n: losses.cross_entropy(getattr(triplet, n), IMAGES, LABELS) for n in ("teacher", "student", "adaptive")}
    torch.testing.assert_close(objective("members")(triplet, IMAGES, LABELS), sum(each.values()) / 3)
    some = objective("members:teacher, adaptive")(triplet, IMAGES, LABELS)
    torch.testing.assert_close(some, (each["teacher"] + each["adaptive"]) / 2)


def test_a_plain_network_is_its_own_member():
    network = SmallNetwork()
    torch.testing.assert_close(members(network, IMAGES, LABELS), losses.cross_entropy(network, IMAGES, LABELS))


def test_evade_pays_for_what_is_noticed_only():
    quiet, loud = _triplet((-2.0, 2.0)), _triplet((-1e-9, 1e-9))
    joint = members(quiet, IMAGES, LABELS)
    torch.testing.assert_close(evade(quiet, IMAGES, LABELS), joint)
    noticed = loud.beyond(loud.members(IMAGES))
    assert (noticed > 0).all()
    torch.testing.assert_close(evade(loud, IMAGES, LABELS), joint - WEIGHT * noticed)
    torch.testing.assert_close(objective("evade:1/2")(loud, IMAGES, LABELS), joint - noticed / 2)


def test_unnoticed_counts_wrong_pixels_and_takes_one_for_an_alarm():
    quiet, loud = _triplet((-2.0, 2.0)), _triplet((-1e-9, 1e-9))
    for triplet, alarm in ((quiet, 0), (loud, 1)):
        wrong = losses.wrong_pixels(triplet, IMAGES, LABELS)
        torch.testing.assert_close(unnoticed(triplet, IMAGES, LABELS), wrong - alarm)


@pytest.mark.parametrize("name", ["evade", "unnoticed"])
def test_a_network_without_monitor_cannot_be_evaded(name):
    with pytest.raises(SpecError, match="monitor"):
        objective(name)(SmallNetwork(), IMAGES, LABELS)


@pytest.mark.parametrize("name", ["entropy", "members:teacher,parent", "members:", "evade:much"])
def test_unknown_names(name):
    with pytest.raises(SpecError, match="expected"):
        objective(name)(_triplet(), IMAGES, LABELS)


@pytest.mark.parametrize("name", sorted(losses.OBJECTIVES))
def test_the_objectives_on_answers_are_the_losses(name):
    assert objective(name) is losses.objective(name)


SPECS = [
    "pgd(budget='linf:8/255', steps=4, objective='members', judge='wrong_pixels')",
    "pgd(budget='linf:8/255', steps=4, objective='members:teacher,student')",
    "pgd(budget='linf:8/255', steps=4, objective='evade', judge='unnoticed')",
    "apgd(budget='linf:8/255', steps=4, objective='evade', judge='unnoticed')",
    "mifgsm(budget='linf:8/255', steps=4, objective='members')",
    "ifgsm_ll(budget='linf:8/255', objective='members')",
    "search(budget='linf:8/255', queries=20, objective='unnoticed')",
]


@pytest.mark.parametrize("spec", SPECS)
def test_every_attack_takes_them_by_name(spec):
    triplet, attack = _triplet(), build("perturbation", spec)
    labels = torch.where(LABELS == IGNORE, IGNORE, triplet.predict(IMAGES))
    attacked = attack(triplet, IMAGES, labels, rng=ImageRng(0, ("a", "b")))
    assert float((attacked - IMAGES).abs().max()) <= 8 / 255 + 1e-9
    judge = unnoticed if "unnoticed" in spec else members
    before, after = (judge(triplet, x, labels) for x in (IMAGES, attacked))
    assert (after >= before).all() or "_ll" in spec
    assert (after > before).any() or "_ll" in spec


def test_evading_is_noticed_less_than_attacking_all_members():
    triplet = _triplet((-0.02, 0.02))
    labels = torch.where(LABELS == IGNORE, IGNORE, triplet.predict(IMAGES))

    def noticed(name):
        attack = build("perturbation", f"pgd(budget='linf:16/255', steps=10, keep='last', objective='{name}')")
        attacked = attack(triplet, IMAGES, labels, rng=ImageRng(0, ("a", "b")))
        return triplet.beyond(triplet.members(attacked))

    assert (noticed("evade") < noticed("members")).all()
