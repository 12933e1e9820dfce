"""The other attacks and noises that a number is held against, and what their results say of it.

Each control is a perturbation spec, run by `evaluate` like any other, on the images of the audit. Judging needs the counts
only. What is compared is the share of labelled pixels that stay right; mIoU is reported, but over a few images it jumps.

Sources: Athalye, Carlini, Wagner, ICML 2018 (signs of masked gradients: single step beats iterative, black box beats
white box, large budgets do not reach 0); Carlini et al., 2019, On evaluating adversarial robustness (the checklist).
"""

import ast
import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

from robustseg.audit.verdicts import Verdict, doubtful, fine
from robustseg.core import registry
from robustseg.core.budget import Budget, as_255
from robustseg.results import metrics
from robustseg.results.record import Record
from robustseg.results.summary import largest_score, mean_score

QUERIES = 300
"""Of the search without gradients. On an ERFNet at 4/255, 100 queries get 75 % of the pixels wrong."""

STRONGER = 0.02
"""By so much of the pixels must a control be stronger to count: less is chance over a few images."""

CONVERGED = 0.05
"""So much of the pixels may ten times the steps still take from an attack that has converged."""


class Control(NamedTuple):
    """One comparison: its name, the spec to run, and whether through another network; `passes` an image, roughly."""

    check: str
    spec: str
    passes: float
    other: bool = False


LARGE = Control("large_eps", "pgd(budget='linf:64/255', steps=40, judge='wrong_pixels')", 82)
"""What must break any network: a quarter of the range of every value."""


def controls(record: Record) -> list[Control]:
    """What the number of an attack's record is held against, cheap ones first."""
    budget, passes = budget_of(record), (record.forwards + record.backwards) / len(record.ids)
    rms = as_255(budget.eps if budget.norm == "linf" else mean_score(record, "rms"))
    return [
        Control("noise", f"sign(rms='{rms}')", 2),
        Control("single_step", f"fgsm(budget='{budget.spec}')", 4),
        Control("transfer", record.perturbation, passes, other=True),
        Control("search", f"search(budget='{budget.spec}', queries={QUERIES})", QUERIES + 2),
        Control("more_steps", tenfold(record), 10 * passes),
    ]


def adaptive(record: Record) -> Control:
    """What the number of an attack made on another network is held against: the same attack on the network itself."""
    passes = (record.forwards + record.backwards) / len(record.ids)
    return Control("adaptive", record.perturbation, passes)


def budget_of(record: Record) -> Budget:
    """The budget that the attack of a record was given; where its spec names none, the largest change it made."""
    return record.budget or Budget("linf", largest_score(record, "linf"))


def tenfold(record: Record) -> str:
    """The attack of a record with ten times its steps; PGD with ten times its gradients where it has no such argument."""
    attack = registry.build("perturbation", record.perturbation)
    gradients = max(1, round(record.backwards / len(record.ids)))
    parameter = inspect.signature(attack.function).parameters.get("steps")
    if parameter is None:
        return f"pgd(budget='{budget_of(record).spec}', steps={10 * gradients})"
    return respelled(record.perturbation, steps=10 * (attack.arguments.get("steps", parameter.default) or gradients))


def respelled(spec: str, **changes: Any) -> str:
    """A perturbation's spec with other values of some arguments, in its one spelling."""
    call = registry.parse(spec)
    kept = [keyword for keyword in call.keywords if keyword.arg not in changes]
    call.keywords = kept + [ast.keyword(name, ast.Constant(value)) for name, value in changes.items()]
    return str(registry.build("perturbation", registry.text_of(call)).spec)


class Left(NamedTuple):
    """What a perturbation leaves: the share of labelled pixels that are right, and the pooled mIoU."""

    pixels: float
    miou: float

    @classmethod
    def of(cls, record: Record, ids: Sequence[str]) -> "Left":
        """Over some images of a record."""
        images = [record.ids.index(name) for name in ids]
        return cls(metrics.pixel_accuracy(record.counts, images), metrics.miou(record.counts, images))


def judge(check: str, attack: Left, control: Left) -> Verdict:
    """Hold what an attack leaves against what a control leaves."""
    numbers = {
        "attack": attack.pixels,
        "control": control.pixels,
        "attack_miou": attack.miou,
        "control_miou": control.miou,
    }
    told = (
        f"{_NAMES[check]} leaves {control.pixels:.1%} of the pixels right ({control.miou:.1%} mIoU), "
        f"the attack {attack.pixels:.1%} ({attack.miou:.1%})"
    )
    if check == "noise":
        wrong = attack.pixels > max(control.pixels - 0.005, 0.02)
    elif check == "more_steps":
        wrong = control.pixels < attack.pixels - CONVERGED
    else:
        wrong = control.pixels < attack.pixels - STRONGER and control.miou < attack.miou
    if not wrong:
        return fine(told + ".", **numbers)
    meaning, advice = _DOUBTS[check]
    return doubtful(f"{told}: {meaning}.", advice, **numbers)


def judge_large(clean: Left, large: Left) -> Verdict:
    """At 64/255 hardly a pixel may stay right."""
    numbers = {"clean": clean.pixels, "control": large.pixels, "control_miou": large.miou}
    told = f"At 64/255 an attack leaves {large.pixels:.1%} of the pixels right ({large.miou:.1%} mIoU)"
    if large.pixels < 0.1:
        return fine(told + ".", **numbers)
    return doubtful(
        told
        + ": with such changes any picture can be turned into another, so the attack fails and not the network holds.",
        "see which other finding is suspicious; try apgd(objective='margin'), transfer, search",
        **numbers,
    )


_NAMES = {
    "noise": "Noise of the same size",
    "single_step": "A single step",
    "transfer": "The same attack made on another network",
    "search": f"A search without gradients ({QUERIES} queries)",
    "adaptive": "The same attack made on the network itself",
    "more_steps": "Ten times the steps",
}

_DOUBTS = {
    "noise": (
        "the attack has found no direction that is worse than chance",
        "see zero_gradients, logits_scale and gradient; try apgd(objective='margin') or search at this budget",
    ),
    "single_step": (
        "many steps should not do less than one, so the gradients on the way mislead",
        "see random_output and gradient; try more restarts, other step sizes, apgd",
    ),
    "transfer": (
        "a stranger's gradients serve better than the network's own, so its own mislead",
        "report the transfer attack beside the other, and attack a smooth stand-in: soft() of the network",
    ),
    "search": (
        "trying beats the gradient, so the gradient misleads or the attack is weak",
        "report the search with 1000 queries and more; try sea, and other objectives",
    ),
    "adaptive": (
        "the attacker did not know all of the network, and the number is too kind",
        "report the attack that does: leave out --source; where the network decides hard or draws, give it soft() and draw()",
    ),
    "more_steps": (
        "the attack had not converged, and the number is too kind",
        "report the longer attack, and check that again; or sea",
    ),
}
