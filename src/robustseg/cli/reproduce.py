"""The command that runs the study of a paper: reproduce."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustseg.cli.shared import Device, app, err, out, parse_size, pick_device, progress_bar, table_of
from robustseg.core import registry
from robustseg.core.errors import RobustsegError

if TYPE_CHECKING:
    from robustseg.studies.study import Study


@app.command()
def reproduce(
    paper: Annotated[str, typer.Argument(help="Name of a study: robustseg list study.")],
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of networks, records and results; with --from-records, of results."),
    ] = None,
    tier: Annotated[
        str | None,
        typer.Option(help="synthetic (a minute, default), camvid, full (Cityscapes), or another tier of the study."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder with the data sets of the tier (default: data), or a data spec where a study takes one."
        ),
    ] = None,
    rows: Annotated[
        str | None, typer.Option(help="Only these rows of the study, joined by commas, where it has such a choice.")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help="Network spec of your own, or the name of one of the study's, where it has such a choice."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Resize images of your own to HxW, where a study takes them.")
    ] = None,
    train_only: Annotated[
        bool, typer.Option("--train-only", help="Train the networks, and stop; several processes can share a folder.")
    ] = False,
    from_records: Annotated[
        Path | None,
        typer.Option(help="Write tables, verdicts and figures from the records of this folder; nothing is run."),
    ] = None,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what each step takes, and stop.")] = False,
) -> None:
    """Run the study of a paper: its tables, our figures beside the paper's, and a verdict on each claim.

    An interrupted run resumes when you repeat the command; what is in the folder is used. `robustseg list study` lists the
    studies with their tiers and choices.
    """
    from robustseg.studies.page import as_run, conclude
    from robustseg.studies.study import opened

    if from_records is not None:
        given = {"--data": data, "--rows": rows, "--network": network, "--size": size, "--train-only": train_only}
        for option in (name for name, value in given.items() if value):
            raise RobustsegError(f"expected --from-records without {option}, got both; try --tier and --out only")
        where = out_dir or from_records
        _print(conclude(as_run(paper, from_records, tier), from_records, where), where)
        return
    if out_dir is None:
        raise RobustsegError("expected a folder for the results, got none; try --out runs/NAME, or --from-records")
    options: dict[str, Any] = {
        "tier": tier or "synthetic",
        "data": _spelled("data", data) if data else "data",
        "rows": tuple(row.strip() for row in rows.split(",")) if rows else None,
        "networks": tuple(_spelled("network", spec) for spec in network) if network else None,
        "size": parse_size(size) if size else None,
    }
    _run(opened(paper, **options), out_dir, device=pick_device(device), dry_run=dry_run, train_only=train_only)


def _run(study: "Study", folder: Path, *, device: str, dry_run: bool, train_only: bool) -> None:
    from robustseg.studies import run

    def told(step: str) -> None:
        err.print(step, soft_wrap=True)

    if dry_run:
        table, costs = table_of("step", "minutes"), run.costs(study, folder, device=device)
        for step, seconds in costs.items():
            table.add_row(step, f"{seconds / 60:.1f}" if seconds else "done")
        out.print(table)
        out.print(f"in all {sum(costs.values()) / 60:.1f} minutes, judged by one image each")
    elif train_only:
        run.train(study, folder, device=device, on_step=told)
    else:
        with progress_bar() as on_batch:
            verdicts = run.reproduce(study, folder, device=device, on_step=told, on_batch=on_batch)
        _print(verdicts, folder)


def _print(verdicts: list[Any], folder: Path) -> None:
    for verdict in verdicts:
        out.print(verdict.line, soft_wrap=True)
    out.print(f"tables: {folder / 'tables.md'}", soft_wrap=True)


def _spelled(kind: str, text: str) -> str:
    """A spec as records spell it; a folder or the name of a network as it is."""
    spec = "(" in text or text.startswith("zoo:") or text.endswith(".safetensors")
    return registry.spelled(kind, text) if spec else text
