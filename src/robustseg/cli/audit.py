"""The command that doubts: audit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from robustseg.cli.shared import Device, app, err, open_network, out, pick_device, progress_bar, table_of, whole

if TYPE_CHECKING:
    from robustseg.results.findings import Finding


@app.command()
def audit(
    folder: Annotated[Path, typer.Argument(help="Run folder with records.jsonl.")],
    images: Annotated[int, whole(1, "Look at this many images, evenly spread.")] = 4,
    transfer: Annotated[
        str | None, typer.Option(help="Another network to make attacks on; default: of the run or the zoo.")
    ] = None,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and stop.")] = False,
) -> None:
    """Can the numbers of a run be trusted? Runs the controls that are missing and says what they mean.

    Looks at each network, and holds the strongest attack within each budget against noise, a single step, transfer, a
    search without gradients and ten times the steps. Records of networks or data that have changed since are left out. A cut
    audit goes on; exit code 1 if anything is suspicious.
    """
    from robustseg.audit import audit as run
    from robustseg.audit import costs

    found = costs(folder, images=images)
    minutes, passes = sum(c.seconds for c in found) / 60, sum(c.passes for c in found)
    out.print(
        f"about {minutes:.1f} minutes at the speed of the recorded run: {passes:,} passes on {images} images, "
        f"{sum(bool(c.perturbation) for c in found)} attacks",
    )
    if dry_run:
        return
    where = pick_device(device)
    with progress_bar() as on_batch:
        findings = run(
            folder,
            images=images,
            transfer=transfer,
            device=where,
            build_network=open_network,
            on_batch=on_batch,
            on_skip=lambda reason: err.print(f"warning: {reason}", soft_wrap=True),
        )
    _print(findings)
    if any(f.status == "suspicious" for f in findings):
        raise typer.Exit(1)


def _print(findings: "list[Finding]") -> None:
    places = dict.fromkeys((f.network, f.perturbation) for f in findings)
    for network, attack in places:
        own = [f for f in findings if (f.network, f.perturbation) == (network, attack)]
        table = table_of("check", "status", "what was seen")
        for f in own:
            table.add_row(f.check, Text(f.status, "bold red" if f.status == "suspicious" else ""), f.text)
        out.print(f"\n{network}{' under ' + attack if attack else ''}", soft_wrap=True)
        out.print(table)
        for f in own:
            if f.advice:
                out.print(f"{f.check}, next: {f.advice}.", soft_wrap=True)
    doubts = sum(f.status == "suspicious" for f in findings)
    masking = sum(f.masking for f in findings)
    out.print(
        f"\n{doubts} of {len(findings)} findings are suspicious, {masking} of them hint at masked gradients",
    )
    if not any(attack for _, attack in places):
        err.print("warning: no attack that follows gradients in this run, so none to hold against controls")
