"""What the commands share: the app, the options, how specs become things, how progress and tables look."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, ConsoleDimensions
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text
from typer.core import TyperGroup

from robustseg.core.errors import RobustsegError, readable
from robustseg.core.processes import require_alone
from robustseg.core.registry import LARGEST, RUNS_CODE

if TYPE_CHECKING:
    from robustseg.core.types import Dataset, Network

WIDE = 10_000
"""Columns where no terminal says how many there are: in a pipe or a file no line is cut or folded."""


class _Plain(Console):
    """Prints texts as they are: brackets are no markup, control characters are shown and not obeyed."""

    def __init__(self, *, stderr: bool = False):
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    @property
    def size(self) -> ConsoleDimensions:
        """Of the terminal; wide where there is none."""
        return super().size if self.is_terminal else ConsoleDimensions(WIDE, 25)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        Console.size.fset(self, new_size)  # type: ignore[attr-defined]

    def render_str(self, text: str, **options: Any) -> Text:
        """A text on its way to the terminal."""
        return super().render_str(plain(text), **options)


def plain(text: str) -> str:
    """A text that a terminal shows and does not obey: control characters and lone surrogates as escapes."""
    shown = "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)
    return shown.encode(errors="backslashreplace").decode()


out, err = _Plain(), _Plain(stderr=True)


def table_of(*heads: str) -> Table:
    """A table without lines whose cells are folded where a terminal is narrow, and never cut."""
    return Table(*(Column(head, overflow="fold") for head in heads), box=None)


ANY_WORLD = ("train", "train-adaptive", "list", "doctor", "compare")
"""The commands that several processes can run: together, or because nothing is written."""


class _Group(TyperGroup):
    """Turns the errors that a user can mend into one sentence and exit code 2, and Ctrl-C into 130."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; most run in one process."""
        found = super().resolve_command(ctx, args)
        if found[0] not in ANY_WORLD:
            require_alone()
        return found

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (RobustsegError, OSError) as error:
            told = str(error) if isinstance(error, RobustsegError) else readable(str(error))
            err.print(Text("error:", "bold red"), told, soft_wrap=True)
            raise SystemExit(2) from error
        except KeyboardInterrupt:
            err.print("stopped; given again, a command that keeps records or checkpoints goes on from here")
            raise SystemExit(130) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How far noise and attacks break a semantic segmentation network: measure, train, compare.",
)
data_app = typer.Typer(cls=_Group, no_args_is_help=True, help="Write a procedural data set to a folder.")
app.add_typer(data_app, name="data")


def whole(least: int, help: str) -> Any:
    """An option whose value is a whole number from `least` on, which any computer can hold."""

    def check(param: typer.CallbackParam, value: int | None) -> int | None:
        if value is not None and not least <= value < LARGEST:
            name = param.opts[0]
            raise RobustsegError(
                f"expected {name} to be at least {least} and below 2**63, got {value}; try {name} {max(least, 4)}"
            )
        return value

    return typer.Option(help=help, callback=check)


Specs = Annotated[list[str], typer.Option("--network", help=f"Network spec; may be given several times. {RUNS_CODE}")]
NetworkSpec = Annotated[str, typer.Option("--network", help=f"Network spec. {RUNS_CODE}")]
Seed = Annotated[int, whole(0, "Random seed.")]
DataSpec = Annotated[str, typer.Option("--data", help="Data spec, for example \"camvid(root='…', split='test')\".")]
Size = Annotated[str | None, typer.Option(help="Resize images and labels to HxW before anything else.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")]
OutDir = Annotated[Path, typer.Option("--out", help="Folder of the results.")]


def open_data(spec: str, images: int | None, size: str | None) -> "Dataset":
    """Build a data set, evenly thinned to so many images and resized to `HxW` where asked."""
    from robustseg import api
    from robustseg.datasets import Resized, Spread

    dataset = api.data(spec)
    if images is not None:
        dataset = Spread(dataset, images)
    return Resized(dataset, parse_size(size)) if size else dataset


def open_network(spec: str) -> "Network":
    """Build a network; weights that nobody trained are said, and the same ones at each call, so that a cut run goes on."""
    import torch

    from robustseg import api

    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = api.network(spec)
    if not built.files and not spec.startswith(("module", "transformers", "torchvision", "smp")):
        err.print(f"warning: {spec} has no trained weights", soft_wrap=True)
    return built


def parse_size(text: str) -> tuple[int, int]:
    """`HxW` as (height, width).

    Raises:
        SpecError: it is not two whole numbers, or no network can take such images.
    """
    from robustseg.core.errors import SpecError
    from robustseg.datasets.views import require_size

    height, cross, width = text.lower().partition("x")
    if not (cross and re.fullmatch("[0-9]{1,9}", height) and re.fullmatch("[0-9]{1,9}", width)):
        raise SpecError(f"expected a size HxW, got '{text}'; try 180x240 (height first)")
    require_size((int(height), int(width)))
    return int(height), int(width)


def pick_device(name: str) -> str:
    """The name of the device to run on; `auto` is a GPU where there is one."""
    import torch

    if name != "auto":
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            raise RobustsegError(f"expected a device of this machine, got '{name}'; try --device cpu") from error
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def progress_bar() -> Iterator[Any]:
    """A bar with the time left on stderr; yields the callback that moves it."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress:
        tasks: dict[tuple[str, str], Any] = {}

        def on_batch(step: Any) -> None:
            key = (step.perturbation, step.source)
            if key not in tasks:
                tasks[key] = progress.add_task(plain(step.perturbation), total=step.total)
            progress.update(tasks[key], completed=step.done)

        yield on_batch


def print_summary(folder: Path, data: "Dataset") -> None:
    """Print the figures of a folder's present records, and the worst of all that was tried.

    Of the data set's own records those are printed that are of its present images.
    """
    from robustseg.report import worst_cases
    from robustseg.report.words import without_predictions
    from robustseg.results.current import current, distinct, stale_sentence
    from robustseg.results.record import read_records
    from robustseg.results.summary import summary

    table = table_of("network", "source", "perturbation", "images", "mIoU %", "Q", "accuracy %", "RMS /255", "flags")
    everything = distinct(read_records(folder))
    shown = [r for r in current(everything) if (r.data, r.size) != (data.spec, data.size) or r.ids == tuple(data.ids)]
    for row in summary(shown):
        origin = "itself" if row["source"] == row["network"] else row["source"]
        cells = [row["network"], origin, row["perturbation"], str(row["images"]), number(row["miou"], 100)]
        cells += [number(row["q"], 1, 3), number(row["pixel_accuracy"], 100), number(row["rms"], 255, 2)]
        table.add_row(*cells, ", ".join(row["flags"]))
    out.print(table)
    for text in without_predictions(shown):
        out.print(Text("warning:", "bold red"), text, soft_wrap=True)
    worst = table_of("network", "within", "worst of", "mIoU %", "none below %", "accuracy %")
    for case in worst_cases(shown):
        figures = (number(v, 100) for v in (case.miou, case.bound, case.pixel_accuracy))
        worst.add_row(case.network, case.budget, f"{len(case.tried)} records", *figures)
    if worst.rows:
        out.print(worst)
    if len(shown) < len(everything):
        out.print(stale_sentence(len(everything) - len(shown)), soft_wrap=True)


def number(value: float | None, factor: float, digits: int = 1) -> str:
    """A figure as a table shows it."""
    return "" if value is None or math.isnan(value) else f"{value * factor:.{digits}f}"
