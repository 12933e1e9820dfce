"""The command that runs the study of a paper: reproduce."""

import importlib
import math
from typing import Annotated

import typer
from rich.table import Table

from robustseg.cli.shared import Device, OutDir, app, err, out, pick_device, plain, progress_bar
from robustseg.records import RobustsegError

PAPERS = ("baer2020", "sandoval2022")


@app.command()
def reproduce(
    paper: Annotated[str, typer.Argument(help="baer2020 or sandoval2022.")],
    out_dir: OutDir,
    tier: Annotated[str, typer.Option(help="synthetic (a minute), camvid, or full (Cityscapes).")] = "synthetic",
    data: Annotated[str, typer.Option(help="Folder with camvid and video, or with cityscapes.")] = "data",
    rows: Annotated[str | None, typer.Option(help="baer2020: rows of tables 2 and 3 to run, joined by commas.")] = None,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and stop.")] = False,
) -> None:
    """Run the study of a paper: its tables, ours beside theirs, and a verdict on each claim.

    A cut run goes on when the same command is given again; what is in the folder already is used.
    """
    if paper not in PAPERS:
        raise RobustsegError(f"expected a paper, got '{paper}'; try {', '.join(PAPERS)}")
    if rows and paper != "baer2020":
        raise RobustsegError(f"expected --rows with baer2020 only, got it with {paper}; try without")
    module = importlib.import_module(f"robustseg.experiments.{paper}")
    study = module.tier(tier, data)
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

    with progress_bar() as on_batch:
        findings = module.reproduce(study, out_dir, device=where, on_step=told, on_batch=on_batch, **options)
    for finding in findings:
        out.print(plain(finding.line), highlight=False, soft_wrap=True)
    out.print(f"tables: {out_dir / 'tables.md'}", highlight=False, markup=False, soft_wrap=True)
