"""The command that measures depth and motion learned from video: depth."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from robustseg.cli.shared import Device, OutDir, app, out, parse_size, pick_device, plain

FRAMES, DRAWN = 60, 6
"""Frames of the training video that the row median is taken from, and frames of each data set that are drawn; spread evenly."""


@app.command()
def depth(
    folder: Annotated[Path, typer.Argument(help="Folder of a training with --video.")],
    data: Annotated[
        list[str], typer.Option(help="Data spec with depth, or neighbours and poses; may be given several times.")
    ],
    size: Annotated[str, typer.Option(help="Size HxW that the network sees.")],
    out_dir: OutDir,
    device: Device = "auto",
) -> None:
    """Measure depth and motion of a training with video, beside baselines that look at no image.

    Depth beside the median of each row over the training video, motion beside going straight ahead, and the loss of view
    synthesis. Adds lines to OUT/depth.jsonl and draws OUT/depth-NAME.png: image, depth, true depth, error.
    """
    from robustseg import api
    from robustseg.datasets import Resized, Spread
    from robustseg.depth_evaluation import RowDepth, judge, trained_on_video
    from robustseg.gallery import depth_sheet, write_picture
    from robustseg.networks.weights import notes_of
    from robustseg.provenance import commit, digest
    from robustseg.records import append_line, make_folder

    wanted, sets = parse_size(size), [api.data(spec) for spec in data]
    trained = trained_on_video(folder).to(pick_device(device))
    learned = api.data(notes_of(folder / "best.safetensors")["recipe"]["depth"]["video"])
    rows = RowDepth.of(trained.network, Resized(Spread(learned, FRAMES), wanted), size=wanted)
    make_folder(out_dir)
    for number, known in enumerate(sets):
        found = judge(trained, rows, known, size=wanted)
        about = {"weights": digest(trained.network), "data": known.spec, "images": len(known), "size": list(wanted)}
        figures = {kind: beside._asdict() for kind, beside in found.items()}
        append_line(out_dir / "depth.jsonl", {**about, **figures, "commit": commit()})
        drawn = out_dir / f"depth-{number}.png"
        write_picture(drawn, depth_sheet(trained.network, Spread(known, DRAWN), size=wanted))
        table = Table("", "figure", "network", "baseline", box=None, title_justify="left")
        for kind, (baseline, own, beside) in found.items():
            for name, value in own.items():
                other = f"{beside[name]:.4f} ({baseline})" if name in beside else ""
                table.add_row(kind, name, f"{value:.4f}", other)
        out.print(
            f"\n{plain(known.spec)}, {len(known)} images, seen at {size}: {drawn}", highlight=False, soft_wrap=True
        )
        out.print(table)
