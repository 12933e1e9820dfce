"""The command that measures depth and motion learned from video: depth."""

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustseg.cli.shared import Device, OutDir, app, out, parse_size, pick_device, table_of

if TYPE_CHECKING:
    from robustseg.evaluation.depth import Judged

DRAWN = 6
"""Frames of each data set, evenly spread."""


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

    Depth beside the median of each row over the training video, motion beside going straight ahead, both also with the turn
    that aligning the frames finds, and the loss of view synthesis, with the motion of the network and with motion found by
    aligning the frames; of the averaged weights at the end of the training. Adds a line for each data set to OUT/depth.jsonl
    and draws some frames, image, depth, true depth and error, in OUT/depth-0.png, depth-1.png and so on.
    """
    from robustseg import api
    from robustseg.core.files import append_line, read_lines, sole_writer
    from robustseg.core.provenance import commit, digest
    from robustseg.datasets import Spread
    from robustseg.datasets.views import content
    from robustseg.evaluation.depth import RowDepth, judge, trained_on_video, video_of
    from robustseg.synthesis.output import depth_sheet, write_picture

    wanted, sets = parse_size(size), [api.data(spec) for spec in data]
    trained, video = trained_on_video(folder).to(pick_device(device)), api.data(video_of(folder)["video"])
    decided = {"weights": digest(trained.network), "video": content(video).digest, "size": list(wanted)}
    path = out_dir / "depth.jsonl"
    with sole_writer(out_dir):
        rows = RowDepth.of(trained.network, video, size=wanted)
        for known in sets:
            about = {**decided, "data": known.spec, "content": content(known).digest}
            if path.is_file() and any(about.items() <= line.items() for line in read_lines(path, torn=True)):
                out.print(f"nothing to do: {path} holds {known.spec}", soft_wrap=True)
                continue
            found = judge(trained, rows, known, size=wanted)
            drawn = out_dir / f"depth-{next(i for i in count() if not (out_dir / f'depth-{i}.png').exists())}.png"
            write_picture(drawn, depth_sheet(trained.network, Spread(known, DRAWN), size=wanted))
            figures = {kind: judged._asdict() for kind, judged in found.items()}
            told = {"images": len(known), "picture": drawn.name, "commit": commit()}
            append_line(path, {**about, **told, **figures})
            out.print(f"\n{known.spec}, {len(known)} images, seen at {size}: {drawn}", soft_wrap=True)
            _print(found)


def _print(found: "Mapping[str, Judged]") -> None:
    table = table_of("", "figure", "network", "baseline")
    for kind, judged in found.items():
        for name, value in judged.network.items():
            other = f"{judged.baseline[name]:.4f} ({judged.name})" if name in judged.baseline else ""
            table.add_row(kind, name, f"{value:.4f}", other)
    out.print(table)
