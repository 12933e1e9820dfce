"""The commands that measure: demo, evaluate, report, compare."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustseg.cli.shared import (
    DataSpec,
    Device,
    OutDir,
    Seed,
    Size,
    Specs,
    app,
    err,
    number,
    open_data,
    open_network,
    out,
    pick_device,
    print_summary,
    progress_bar,
    table_of,
    whole,
)

if TYPE_CHECKING:
    from robustseg.core.types import Dataset, Network, Perturbation
    from robustseg.evaluation.run import Conditions, Cost


@app.command()
def demo(
    out_dir: OutDir = Path("demo"),
    device: Device = "auto",
) -> None:
    """Attack the built-in triplet on the built-in streets, see it noticed and repaired: a table, a report, a picture."""
    from robustseg.demo import run_demo

    with progress_bar() as on_batch:
        result = run_demo(out_dir, device=pick_device(device), on_batch=on_batch)
    table = table_of("mIoU %", "teacher", "student", "adaptive", "corrected", "teacher judged attacked")
    for row in result.rows:
        figures = (row.teacher, row.student, row.adaptive, row.corrected)
        table.add_row(row.what, *(number(v, 100) for v in figures), f"{row.noticed:.0%} of images")
    out.print(table)
    out.print(f"picture: {result.picture}\nreport:  {result.report}", soft_wrap=True)


@app.command()
def evaluate(
    network: Specs,
    data: DataSpec,
    out_dir: OutDir,
    perturbation: Annotated[
        list[str] | None, typer.Option(help="Perturbation spec; may be given several times.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Network that perturbations see; default: each its own.")] = None,
    images: Annotated[int | None, whole(1, "Use this many images, evenly spread.")] = None,
    batch_size: Annotated[int, whole(1, "Most images at a time.")] = 4,
    size: Size = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="float32, float64, or bfloat16 for the attack's passes.")] = "float32",
    panels: Annotated[int, whole(0, "Pictures kept of the images that lose most, for each record.")] = 2,
    save_images: Annotated[
        Path | None, typer.Option(help="Write perturbed images here as 8-bit PNG; what is read back is measured.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would take, and stop; what is recorded costs nothing.")
    ] = False,
) -> None:
    """Measure networks on clean and perturbed images; writes records.jsonl and summary.json.

    A cut run goes on when the same command is given again.
    """
    from robustseg import api
    from robustseg.evaluation.run import Conditions
    from robustseg.evaluation.run import evaluate as run

    conditions = Conditions(seed=seed, batch_size=batch_size, precision=precision)
    changes = [None, *(api.perturbation(spec) for spec in perturbation or [])]  # cheap checks come first
    if save_images:
        changes = [
            c and api.perturbation(f"saved(perturbation={c.spec}, folder={str(save_images)!r})") for c in changes
        ]
    dataset = open_data(data, images, size)
    where = pick_device(device)
    networks = [open_network(spec).to(where) for spec in dict.fromkeys(network)]
    origin = _source(source, networks, where)
    if dry_run:
        _print_plan([c for p in changes for c in _costs(networks, dataset, p, origin, conditions, out_dir)])
        return
    with progress_bar() as on_batch:
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
            for own, seen in _unsaved(networks, dataset, change, origin):  # recorded, and the pictures removed since
                run(own, dataset, change, seen, conditions=conditions, on_batch=on_batch)
    print_summary(out_dir, dataset)
    out.print(f"next: robustseg report {shlex.quote(str(out_dir))}", soft_wrap=True)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Run folders, each with records.jsonl.")],
    out_file: Annotated[Path | None, typer.Option("--out", help="Default: report.html in the first folder.")] = None,
) -> None:
    """Make one self-contained HTML page of one or more runs."""
    from robustseg.report import write_report

    path = write_report(folders, out_file or folders[0] / "report.html")
    out.print(f"report: {path}", soft_wrap=True)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="Run folder of the old network.")],
    after: Annotated[Path, typer.Argument(help="Run folder of the new network.")],
) -> None:
    """Pair two runs image by image; exit code 1 if the second is significantly worse anywhere."""
    from robustseg.report import compare as pair
    from robustseg.results.current import current
    from robustseg.results.record import read_records

    comparisons = pair(current(read_records(before)), read_records(after))
    table = table_of("perturbation", "images", "mIoU before", "after", "difference", "verdict")
    for c in comparisons:
        low, high = c.difference.low * 100, c.difference.high * 100
        change = f"{c.difference.value * 100:+.2f}" + ("" if c.undecided else f" [{low:+.2f}, {high:+.2f}]")
        values = (f"{c.before * 100:.2f}", f"{c.after * 100:.2f}", change)
        table.add_row(c.perturbation, str(c.images), *values, c.verdict)
    out.print(table)
    out.print("the intervals hold together at 95 % over all rows")
    if all(c.undecided for c in comparisons):
        err.print("warning: too few images to decide anything; try runs over at least 30", soft_wrap=True)
    if any(c.worse for c in comparisons):
        raise typer.Exit(1)


def _source(spec: str | None, networks: "list[Network]", device: str) -> "Network | None":

    if spec is None:
        return None
    known = open_network(spec)
    return next((n for n in networks if n.spec == known.spec), known.to(device))


def _costs(
    networks: "list[Network]",
    data: "Dataset",
    change: "Perturbation | None",
    origin: "Network | None",
    conditions: "Conditions",
    folder: Path,
) -> "list[Cost]":
    """What one perturbation takes; for what writes pictures that of the perturbation itself, so that none are written."""
    from robustseg.evaluation.run import Cost, plan, recorded

    inner = getattr(change, "arguments", {}).get("perturbation")
    if change is None or inner is None:
        return plan(networks, data, change, origin, conditions=conditions, folder=folder)
    costs, unsaved = [], [own for own, _ in _unsaved(networks, data, change, origin)]
    for own in [networks] if origin else [[network] for network in networks]:
        done = own not in unsaved and recorded(own, data, change, origin, conditions=conditions, folder=folder)
        source = (origin or own[0]).spec
        known = [Cost(inner.spec, source, 0, 0, 0.0, 0)]
        costs += known if done else plan(own, data, inner, origin, conditions=conditions)
    return costs


def _unsaved(
    networks: "list[Network]", data: "Dataset", change: "Perturbation | None", origin: "Network | None"
) -> "Iterator[tuple[list[Network], Network | None]]":
    """The networks and their source for which pictures of `--save-images` are not there."""
    from robustseg.perturbations.saved import files_of

    given = getattr(change, "arguments", {})
    if not {"perturbation", "folder"} <= set(given):
        return
    for own in [networks] if origin else [[network] for network in networks]:
        files = files_of(given["folder"], given["perturbation"].spec, (origin or own[0]).spec, data.ids)
        if not all(file.is_file() for file in files):
            yield own, origin


def _print_plan(costs: "list[Cost]") -> None:
    table = table_of("perturbation", "source", "forwards", "backwards", "minutes")
    for cost in costs:
        row = (str(cost.forwards), str(cost.backwards), f"{cost.seconds / 60:.1f}")
        table.add_row(cost.perturbation, cost.source, *row)
    out.print(table)
    minutes, memory = sum(c.seconds for c in costs) / 60, max(c.memory for c in costs) / 2**30
    out.print(f"in all {minutes:.1f} minutes and {memory:.1f} GiB, judged by the first batch")
