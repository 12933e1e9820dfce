"""The command line: parses, picks the device, draws progress, prints tables. The work is in the library.

Starts without torch: `--help`, `list`, `report` and `compare` never load it.

Exit codes: 0 done, 1 `compare` found worse, 2 what the user can mend (one sentence), 70 anything else (a traceback),
130 stopped by Ctrl-C.
"""

import json
import logging
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.core import TyperGroup

from robustseg.records import RobustsegError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from robustseg.types import Dataset, Network

out, err = Console(), Console(stderr=True)


class _Group(TyperGroup):
    """Turns the errors that a user can mend into one sentence and exit code 2, and Ctrl-C into 130."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (RobustsegError, OSError) as error:
            err.print(f"[bold red]error:[/] {_plain(str(error))}", soft_wrap=True)
            raise SystemExit(2) from error
        except KeyboardInterrupt:
            err.print("stopped; the same command goes on from here")
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

Specs = Annotated[list[str], typer.Option("--network", help="Network spec; may be given several times.")]
DataSpec = Annotated[str, typer.Option("--data", help="Data spec, for example \"camvid(root='…', split='test')\".")]
Size = Annotated[str | None, typer.Option(help="Resize images and labels to HxW before anything else.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")]
OutDir = Annotated[Path, typer.Option("--out", help="Folder of the results.")]


@app.command("list")
def list_names(
    kind: Annotated[str | None, typer.Argument(help="network, data, perturbation or monitor")] = None,
) -> None:
    """List what a spec may name: networks, data sets, perturbations."""
    from robustseg import registry
    from robustseg.records import SpecError

    kinds = sorted(set(registry.KINDS.values()))
    if kind is not None and kind not in kinds:
        raise SpecError(f"expected one of {', '.join(kinds)}, got '{kind}'")
    table = Table("kind", "name", "what it is", box=None, header_style="bold")
    for entry in sorted(registry.table().values()):
        if kind in (None, entry.kind):
            table.add_row(entry.kind, entry.name, _plain(entry.summary))
    out.print(table)


@app.command()
def demo(
    out_dir: OutDir = Path("demo"),
    device: Device = "auto",
) -> None:
    """Measure the built-in network on the built-in streets: one table, a report, a picture."""
    from robustseg.demo import run_demo

    with _bar() as on_batch:
        result = run_demo(out_dir, device=_device(device), on_batch=on_batch)
    _print_summary(out_dir)
    out.print(f"picture: {result.picture}\nreport:  {result.report}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def evaluate(
    network: Specs,
    data: DataSpec,
    out_dir: OutDir,
    perturbation: Annotated[
        list[str] | None, typer.Option(help="Perturbation spec; may be given several times.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Network that perturbations see; default: each its own.")] = None,
    images: Annotated[int | None, typer.Option(help="Use this many images, evenly spread.")] = None,
    batch_size: Annotated[int, typer.Option(help="Most images at a time.")] = 4,
    size: Size = None,
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="float32, float64, or bfloat16 for the attack's passes.")] = "float32",
    panels: Annotated[int, typer.Option(help="Pictures kept of the images that lose most, for each record.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and stop.")] = False,
) -> None:
    """Measure networks on clean and perturbed images; writes records.jsonl and summary.json.

    A cut run goes on when the same command is given again.
    """
    from robustseg import api
    from robustseg.evaluation import Conditions, plan
    from robustseg.evaluation import evaluate as run

    conditions = Conditions(seed=seed, batch_size=batch_size, precision=precision)
    changes = [None, *(api.perturbation(spec) for spec in perturbation or [])]  # cheap checks come first
    dataset = _data(data, images, size)
    where = _device(device)
    networks = [_network(spec).to(where) for spec in dict.fromkeys(network)]
    origin = _source(source, networks, where)
    if dry_run:
        _print_plan([c for p in changes for c in plan(networks, dataset, p, origin, conditions=conditions)])
        return
    with _bar() as on_batch:
        for change in changes:
            run(
                networks,
                dataset,
                change,
                origin,
                conditions=conditions,
                folder=out_dir,
                panels=panels,
                on_batch=on_batch,
            )
    _print_summary(out_dir)
    out.print(f"next: robustseg report {shlex.quote(str(out_dir))}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Run folders, each with records.jsonl.")],
    out_file: Annotated[Path | None, typer.Option("--out", help="Default: report.html in the first folder.")] = None,
) -> None:
    """Make one self-contained HTML page of one or more runs."""
    from robustseg.report import write_report

    path = write_report(folders, out_file or folders[0] / "report.html")
    out.print(f"report: {path}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="Run folder of the old network.")],
    after: Annotated[Path, typer.Argument(help="Run folder of the new network.")],
) -> None:
    """Pair two runs image by image; exit code 1 if the second is significantly worse anywhere."""
    from robustseg.records import read_records
    from robustseg.report import compare as pair

    comparisons = pair(read_records(before), read_records(after))
    table = Table("perturbation", "images", "mIoU before", "after", "difference", "verdict", box=None)
    for c in comparisons:
        low, high = c.difference.low * 100, c.difference.high * 100
        change = f"{c.difference.value * 100:+.2f}" + ("" if c.undecided else f" [{low:+.2f}, {high:+.2f}]")
        values = (f"{c.before * 100:.2f}", f"{c.after * 100:.2f}", _plain(change))
        table.add_row(_plain(c.perturbation), str(c.images), *values, c.verdict)
    out.print(table)
    out.print("the intervals hold together at 95 % over all rows", highlight=False)
    if all(c.undecided for c in comparisons):
        err.print("warning: too few images to decide anything; try runs over at least 30", soft_wrap=True)
    if any(c.worse for c in comparisons):
        raise typer.Exit(1)


@app.command()
def doctor(
    data: DataSpec,
    network: Annotated[str | None, typer.Option(help="Also try this network on a few images.")] = None,
) -> None:
    """Say in plain words what a data set (and a network on it) looks like, and what is missing."""
    from robustseg.doctor import examine

    findings = examine(data, network=network)
    for line in findings.lines:
        out.print(_plain(line), highlight=False, soft_wrap=True)
    if not findings.ok:
        raise typer.Exit(2)


@app.command()
def train(
    network: Annotated[str, typer.Option(help="Network spec.")],
    data: DataSpec,
    holdout: Annotated[str, typer.Option(help="Data spec to choose the best weights on; never the test data.")],
    out_dir: OutDir,
    size: Annotated[str | None, typer.Option(help="Resize the held-out images to HxW.")] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 60,
    batch_size: Annotated[int, typer.Option(help="Images a step, over all devices.")] = 12,
    crop: Annotated[str, typer.Option(help="Size HxW that the network sees.")] = "180x240",
    scale: Annotated[tuple[float, float], typer.Option(help="Range of the random factor on the image size.")] = (
        0.75,
        1.5,
    ),
    flip: Annotated[bool, typer.Option(help="Mirror half of the images.")] = True,
    colour: Annotated[float, typer.Option(help="Largest relative change of brightness, contrast, saturation.")] = 0.3,
    learning_rate: Annotated[float, typer.Option(help="At the start; falls to 0 (poly 0.9).")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 1e-4,
    balance: Annotated[bool, typer.Option(help="Weight rare classes more in the loss.")] = True,
    ema: Annotated[
        float, typer.Option(help="Decay a step of the averaged weights that are kept; 0: no average.")
    ] = 0.998,
    check_every: Annotated[int, typer.Option(help="Epochs between two checks on the held-out data.")] = 5,
    seed: Annotated[int, typer.Option(help="Of weights, order, augmentation and dropout.")] = 0,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(help="Processes, one device each; they train like one but for dropout.")] = 1,
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = "32-true",
) -> None:
    """Train a network with labels; keeps the best by mIoU on held-out data, and goes on where it was cut."""
    import torch

    from robustseg import api
    from robustseg.training import Recipe, Step
    from robustseg.training import train as run

    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        crop=_size(crop),
        scale=scale,
        flip=flip,
        colour=colour,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        balance=balance,
        ema=ema,
        check_every=check_every,
        seed=seed,
    )
    fabric = _fabric(_device(device), devices, precision)
    dataset, held_out = api.data(data), _data(holdout, None, size)
    fabric.launch()
    with torch.random.fork_rng():  # the same first weights in every process and after every restart
        torch.manual_seed(seed)
        model = api.network(network)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not fabric.is_global_zero) as progress:
        task = progress.add_task("training", total=None)

        def on_step(step: Step) -> None:
            text = f"epoch {step.epoch} loss {step.loss:.3f}"
            progress.update(task, description=text, completed=step.step, total=step.steps)
            if step.miou is not None:
                progress.console.print(f"epoch {step.epoch}: held-out mIoU {step.miou:.2%}", highlight=False)

        best = run(model, dataset, holdout=held_out, folder=out_dir, recipe=recipe, fabric=fabric, on_step=on_step)
    if fabric.is_global_zero:
        spec = str(best)
        if model.architecture.startswith("module("):  # a file names no code to import; the user does
            spec = f'"{model.architecture[:-1]}, weights={spec!r})"'
        out.print(f"best: {best}\nnext: robustseg evaluate --network {_plain(spec)} …", highlight=False, soft_wrap=True)


@data_app.callback()
def _data_verbs() -> None:
    """Write a procedural data set to a folder."""


@data_app.command()
def streets(
    out_dir: OutDir,
    frames: Annotated[int, typer.Option(help="How many frames.")] = 8,
    size: Annotated[str, typer.Option(help="Size HxW.")] = "256x512",
    seed: Annotated[int, typer.Option(help="Of the scenes.")] = 0,
) -> None:
    """Render street video with labels, depth (millimetres, 16 bit) and poses, in the SegNet layout."""
    from robustseg.datasets.streets import export

    _size(size)
    path = export(out_dir, frames=frames, size=size, seed=seed)
    out.print(
        f"wrote {frames} frames to {path}\nread them: camvid(root='{path}', split='test')",
        highlight=False,
        markup=False,
    )


def _data(spec: str, images: int | None, size: str | None) -> "Dataset":
    from robustseg import api
    from robustseg.datasets import Resized, Spread

    dataset = api.data(spec)
    if images is not None:
        dataset = Spread(dataset, images)
    return Resized(dataset, _size(size)) if size else dataset


def _network(spec: str) -> "Network":
    """Build a network; weights that nobody trained are said, and the same ones at each call, so that a cut run goes on."""
    import torch

    from robustseg import api

    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = api.network(spec)
    if not built.files and not spec.startswith(("module", "transformers", "torchvision", "smp")):
        err.print(f"warning: {_plain(spec)} has no trained weights", soft_wrap=True)
    return built


def _source(spec: str | None, networks: "list[Network]", device: str) -> "Network | None":

    if spec is None:
        return None
    known = _network(spec)
    return next((n for n in networks if n.spec == known.spec), known.to(device))


def _size(text: str) -> tuple[int, int]:
    from robustseg.records import SpecError

    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise SpecError(f"expected a size HxW, got '{text}'; try 180x240 (height first)")
    return int(height), int(width)


def _device(name: str) -> str:
    import torch

    if name != "auto":
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            raise RobustsegError(f"expected a device of this machine, got '{name}'; try --device cpu") from error
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _fabric(device: str, devices: int, precision: str) -> "Fabric":
    import torch
    from lightning_fabric import Fabric

    known = ("32-true", "bf16-mixed", "16-mixed")
    if precision not in known:
        raise RobustsegError(f"expected a precision of {', '.join(known)}, got '{precision}'; try 32-true")
    place = torch.device(device)
    most = {"cuda": 1 if place.index is not None else torch.cuda.device_count(), "mps": 1}.get(place.type)
    if devices < 1 or (most is not None and devices > most):
        there = f"1 to {most}" if most is not None else "at least 1"
        raise RobustsegError(f"expected {there} devices of '{device}', got {devices}; try --devices 1")
    chosen = devices if place.index is None or place.type == "cpu" else [place.index]
    return Fabric(accelerator="gpu" if place.type == "cuda" else place.type, devices=chosen, precision=precision)  # type: ignore[arg-type]


@contextmanager
def _bar() -> Iterator[Any]:
    """A bar with the time left on stderr; yields the callback that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress:
        tasks: dict[tuple[str, str], Any] = {}

        def on_batch(step: Any) -> None:
            key = (step.perturbation, step.source)
            if key not in tasks:
                tasks[key] = progress.add_task(_plain(step.perturbation), total=step.total)
            progress.update(tasks[key], completed=step.done)

        yield on_batch


def _print_summary(folder: Path) -> None:
    table = Table(
        "network", "source", "perturbation", "images", "mIoU %", "Q", "accuracy %", "RMS /255", "flags", box=None
    )
    for row in json.loads((folder / "summary.json").read_text()):
        origin = "itself" if row["source"] == row["network"] else row["source"]
        cells = [row["network"], origin, row["perturbation"], str(row["images"]), _number(row["miou"], 100)]
        cells += [_number(row["q"], 1, 3), _number(row["pixel_accuracy"], 100), _number(row["rms"], 255, 2)]
        table.add_row(*map(_plain, cells), ", ".join(row["flags"]))
    out.print(table)


def _print_plan(costs: list[Any]) -> None:
    table = Table("perturbation", "source", "forwards", "backwards", "minutes", box=None)
    for cost in costs:
        row = (str(cost.forwards), str(cost.backwards), f"{cost.seconds / 60:.1f}")
        table.add_row(_plain(cost.perturbation), _plain(cost.source), *row)
    out.print(table)
    minutes, memory = sum(c.seconds for c in costs) / 60, max(c.memory for c in costs) / 2**30
    out.print(f"in all {minutes:.1f} minutes and {memory:.1f} GiB, judged by the first batch", highlight=False)


def _number(value: float | None, factor: float, digits: int = 1) -> str:
    return "" if value is None else f"{value * factor:.{digits}f}"


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def main() -> None:
    """The entry point of the `robustseg` command."""
    logging.captureWarnings(True)
    try:
        app()
    except Exception:  # no fault of the user's that we know of; 1 is what `compare` says of worse networks
        traceback.print_exc()
        sys.exit(70)


if __name__ == "__main__":
    main()
