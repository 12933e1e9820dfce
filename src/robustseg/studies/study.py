"""What a study of a paper is: figures to measure, claims on them, tables. Plain data, without torch.

**How a paper is written.** One file in this folder (or in another package, named by an entry point of the group `robustseg`)
holds a function `@study("smith2020")` with arguments `tier` and `data` (and what else the command may pass: `rows`,
`networks`, `size`) that returns a `Study`. `robustseg reproduce smith2020` finds it by reading the file; nothing else names it.
The file loads no torch at module level: networks, images and perturbations are specs, spelled as records spell them, and
trainings are plain arguments (`trainings.Training`). It reads from top to bottom:

1. the settings of its tiers: `networks` by role, `images` by name, and `rows`, one `Row` a figure;
2. functions of the `Evidence` that find records by role: `f.miou("T", attack, source="S")`; NaN where nothing was measured;
3. tables, and claims: `@claim("B3", "sentence")` on functions that return `Basis(cases, said)`, see `verdicts`;
4. the function that puts these together.

`run.reproduce` trains what is missing, measures what is missing, and concludes; `run.costs` judges the same rows;
`page.conclude` writes `tables.md`, `verdicts.json` and figures from records alone. What no record holds (depth, paintings, an audit)
is an `Extra`: a named step with `run` and `seconds`; `measures.Measuring` is one that keeps its values in `measures.jsonl`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from robustseg.core import registry
from robustseg.core.errors import RobustsegError
from robustseg.studies.verdicts import Case, Verdict, verdict

if TYPE_CHECKING:
    from robustseg.studies.evidence import Evidence
    from robustseg.studies.page import Figure, Table
    from robustseg.studies.run import Work
    from robustseg.studies.trainings import Trained
else:
    Evidence = Figure = Table = Work = Trained = Any  # these build on this file

Kind = TypeVar("Kind")

SEEDS = 3
"""How many trainings of one kind carry a claim."""
CLEAN = "clean"


@dataclass(frozen=True)
class Images:
    """Images of a study.

    Args:
        data: spec, as records spell it. size: (height, width) to resize to; None leaves them as they are.
        counts: how many images to keep, evenly spread; several numbers thin one after the other.
        block: images a block of the bootstrap over frames: about 15 seconds of video, so fewer where images are spread.
    """

    data: str
    size: tuple[int, int] | None = None
    counts: tuple[int, ...] = ()
    block: int = 15


@dataclass(frozen=True)
class Row:
    """One figure of a study: a network on images that are perturbed against a network.

    Args:
        source: role of the network that the perturbation is made against. target: role of the network that is measured.
        images: name of the images. perturbation: spec, as records spell it.
        seed: of random draws. precision: of the passes of the perturbation, see `evaluation.run.Conditions`.
        place: subfolder of the study's folder for the record, so that several processes can work on one study.
    """

    source: str
    target: str
    images: str = "report"
    perturbation: str = CLEAN
    seed: int = 0
    precision: str = "float32"
    place: str = ""


@runtime_checkable
class Extra(Protocol):
    """A step of a study that is no row: it resumes by itself, and its cost is 0 where it is done."""

    @property
    def name(self) -> str:
        """How the step is called in progress and costs."""

    def run(self, work: Work) -> None:
        """Do what is missing."""

    def seconds(self, work: Work) -> float:
        """Seconds that `run` will take, judged by a small part of it."""


class Basis(NamedTuple):
    """What a claim rests on: its cases, and what must be told besides them."""

    cases: Sequence[Case]
    said: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim of a paper: its name, its sentence, and the function that tests it."""

    name: str
    statement: str
    test: Callable[[Evidence], Basis]

    def verdict(self, found: Evidence) -> Verdict:
        """The verdict that the evidence supports."""
        basis = self.test(found)
        return verdict(self.name, self.statement, basis.cases, basis.said)


def claim(name: str, statement: str) -> Callable[[Callable[[Evidence], Basis]], Claim]:
    """Decorate a function of the evidence as the test of a claim."""
    return lambda test: Claim(name, statement, test)


def _nothing(found: Evidence) -> tuple[Any, ...]:
    return ()


@dataclass(frozen=True)
class Study:
    """A paper's study in one tier.

    Args:
        title: of the page. source: the paper.
        tier: name of the tier. protocol: what must be said beside each figure.
        networks: by role, in order of training: a spec, in which `{ROLE}` stands for the spec of another role; a training; or a
            function of the evidence that gives a spec, for networks that are fitted on what was measured.
        images: by name; `report` is what claims rest on, `choose` is held out for training.
        rows: all figures, in the order in which they are measured.
        claims, tables: what is concluded from the evidence.
        about: what the page says of the study, as name -> text. words: answers in prose, a paragraph each.
        figures: drawings of the page. seeds: name of a group -> the roles that differ by their seed alone.
        extras: steps that are no rows, in order, after the rows.
        settings: what tables and claims of this paper must know of the tier.
        precision: of training. batch_size: images at a time when measuring.
        name, options: how `opened` was called.
    """

    title: str
    source: str
    tier: str
    protocol: str
    networks: Mapping[str, str | Trained | Callable[[Evidence], str]]
    images: Mapping[str, Images]
    rows: Sequence[Row]
    claims: Sequence[Claim]
    tables: Callable[[Evidence], Sequence[Table]]
    about: Mapping[str, str] = field(default_factory=dict)
    words: Callable[[Evidence], Sequence[str]] = _nothing
    figures: Callable[[Evidence], Sequence[Figure]] = _nothing
    seeds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    extras: Sequence[Extra] = ()
    settings: Any = None
    precision: str = "32-true"
    batch_size: int = 4
    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def opened(name: str, **options: Any) -> Study:
    """The study of this name.

    Args:
        name: as in `robustseg list study`. options: arguments of its function; those that are None are left out.

    Raises:
        RobustsegError: there is no such study or tier, or the study has no such option.
    """
    function = registry.function("study", name)
    given = {key: value for key, value in options.items() if value is not None}
    known = list(inspect.signature(function).parameters)
    for key in given:
        if key not in known:
            raise RobustsegError(f"expected an option of {name}, got {key}; try {', '.join(known)}")
    study: Study = function(**given)
    return replace(study, name=name, options=given)


def tier_of(name: str, known: Mapping[str, Kind]) -> Kind:
    """The tier of this name.

    Raises:
        RobustsegError: there is none.
    """
    if name not in known:
        raise RobustsegError(f"expected a tier, got '{name}'; try {', '.join(known)}")
    return known[name]
