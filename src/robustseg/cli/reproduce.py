"""The command that runs the study of a paper: reproduce."""

import importlib
import math
from typing import Annotated

import typer
from rich.table import Table

from robustseg.cli.shared import Device, OutDir, app, err, out, parse_size, pick_device, plain, progress_bar
from robustseg.core.errors import RobustsegError

PAPERS = ("arnab2018", "baer2020", "klingner2020", "sandoval2022")


@app.command()
def reproduce(
    paper: Annotated[str, typer.Argument(help="arnab2018, baer2020, klingner2020 or sandoval2022.")],
    out_dir: OutDir,
    tier: Annotated[
        str,
        typer.Option(
            help="synthetic (a minute), camvid, or full (Cityscapes); klingner2020 also has camvid-own-video."
        ),
    ] = "synthetic",
    data: Annotated[
        str,
        typer.Option(help="Folder with camvid and video, or with cityscapes. arnab2018: or a data spec of your own."),
    ] = "data",
    rows: Annotated[
        str | None,
        typer.Option(help="baer2020: rows of tables 2 and 3; klingner2020: networks; to run, joined by commas."),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help="arnab2018: spec of your own, or name of one of the tier's; may be given several times."),
    ] = None,
    size: Annotated[str | None, typer.Option(help="arnab2018: resize images of your own to HxW.")] = None,
    train_only: Annotated[
        bool,
        typer.Option(
            "--train-only", help="arnab2018: train the networks, which may be done several at once, and stop."
        ),
    ] = False,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and stop.")] = False,
) -> None:
    """Run the study of a paper: its tables, ours beside theirs, and a verdict on each claim.

    A cut run goes on when the same command is given again; what is in the folder already is used.
    """
    if paper not in PAPERS:
        raise RobustsegError(f"expected a paper, got '{paper}'; try {', '.join(PAPERS)}")
    arnab = ("arnab2018",)
    owners = {"rows": ("baer2020", "klingner2020"), "network": arnab, "size": arnab, "train-only": arnab}
    for option, given in {"rows": rows, "network": network, "size": size, "train-only": train_only}.items():
        if given and paper not in owners[option]:
            known = " or ".join(owners[option])
            raise RobustsegError(f"expected --{option} with {known} only, got it with {paper}; try without")
    module = importlib.import_module(f"robustseg.studies.{paper}")
    own = {"networks": network or [], "size": parse_size(size) if size else None} if network or size else {}
    study = module.tier(tier, data, **own)
    options = {"rows": [row.strip() for row in rows.split(",")]} if rows else {}
    where = pick_device(device)
    if dry_run:
        table = Table("step", "minutes", box=None)
        costs = module.costs(study, out_dir, device=where, **options)
        for cost in costs:
            minutes = "unknown" if math.isnan(cost.seconds) else f"{cost.seconds / 60:.1f}"
            table.add_row(plain(cost.step), minutes if cost.seconds else "done")
        out.print(table)
        total = sum(cost.seconds for cost in costs if not math.isnan(cost.seconds)) / 60
        out.print(f"in all {total:.1f} minutes, judged by one image each", highlight=False)
        return

    def told(step: str) -> None:
        err.print(plain(step), highlight=False, soft_wrap=True)

    if train_only:
        module.train(study, out_dir, device=where, on_step=told)
        return
    with progress_bar() as on_batch:
        findings = module.reproduce(study, out_dir, device=where, on_step=told, on_batch=on_batch, **options)
    for finding in findings:
        out.print(plain(finding.line), highlight=False, soft_wrap=True)
    out.print(f"tables: {out_dir / 'tables.md'}", highlight=False, markup=False, soft_wrap=True)
