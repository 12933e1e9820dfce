"""The command that watches a stream: monitor."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn

from robustseg.cli.shared import Device, OutDir, Seed, app, err, open_network, out, parse_size, pick_device
from robustseg.core.errors import RobustsegError

if TYPE_CHECKING:
    from robustseg.datasets.video import Frame
    from robustseg.monitor.stream import FrameDone, Injection
    from robustseg.monitor.triplet import Triplet

MEMBERS = {"T": "teacher", "S": "student", "A": "adaptive"}


@app.command()
def monitor(
    triplet: Annotated[
        str, typer.Option(help="Spec of a triplet, or a folder with triplet.safetensors or its three members.")
    ],
    source: Annotated[str, typer.Option("--input", help="A video, a folder of images, or a data spec.")],
    out_dir: OutDir,
    size: Annotated[str | None, typer.Option(help="Resize frames to HxW.")] = None,
    quiet: Annotated[
        int, typer.Option(help="Frames at the start that are known to be quiet; 0: the triplet's own thresholds.")
    ] = 50,
    attack: Annotated[str | None, typer.Option(help="Inject this attack, to see it noticed.")] = None,
    target: Annotated[str, typer.Option(help="The member that it is made for: T, S or A.")] = "T",
    first: Annotated[int, typer.Option("--from", help="The first attacked frame.")] = 150,
    end: Annotated[int, typer.Option("--to", help="The first frame after the attack.")] = 170,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds after which a member that gives no answer counts as failed.")
    ] = None,
    adapt: Annotated[
        bool, typer.Option("--adapt", help="Let the adaptive network go on learning on quiet frames.")
    ] = False,
    video: Annotated[bool, typer.Option(help="Write the overlay video.")] = True,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Watch a stream: which network is attacked, alarms and all-clears, an overlay video, a timeline.

    A stopped stream goes on when the same command is given again.
    """
    from robustseg.monitor.adapt import Schedule
    from robustseg.monitor.stream import watch_stream
    from robustseg.report.timeline import outcome, read_timeline, write_timeline

    injection = _injection(attack, target, first, end, seed)
    frames, rate, total = _open_frames(source)
    watched = _open_triplet(triplet).to(pick_device(device))
    wanted = parse_size(size) if size else None
    try:
        with _shown() as on_frame:
            watch_stream(
                watched,
                frames,
                source=source,
                folder=out_dir,
                size=wanted,
                quiet=quiet,
                injection=injection,
                timeout=timeout,
                schedule=Schedule() if adapt else None,
                video=video,
                rate=rate,
                total=total,
                on_frame=on_frame,
            )
    finally:
        if (out_dir / "frames.jsonl").is_file() and (out_dir / "stream.json").is_file():
            page, timeline = write_timeline(out_dir), read_timeline(out_dir)
            speed = timeline.speed
            lines = [
                *outcome(timeline),
                f"{speed.rate:.1f} frames/s; frame to verdict {1000 * speed.median:.0f} ms, 99 % within "
                f"{1000 * speed.slowest:.0f} ms; bare forwards over everything {speed.ratio:.2f}",
                f"timeline: {page}",
            ]
            out.print("\n".join(lines), soft_wrap=True)


@contextmanager
def _shown() -> "Iterator[Callable[[FrameDone], None]]":
    """The frame at work on stderr; alarms and all-clears as they come, on stdout."""
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), console=err, transient=True) as progress:
        task, held = progress.add_task("waiting for the first frame"), [""]

        def on_frame(done: "FrameDone") -> None:
            rate = f", {1 / done.seconds:.1f} frames/s" if done.seconds else ""
            progress.update(task, description=f"frame {done.number}{rate}")
            if done.alarm != held[0]:
                text = f"alarm, the {done.alarm} is attacked" if done.alarm else "all clear"
                out.print(f"frame {done.number}: {text}")
                held[0] = done.alarm

        yield on_frame


def _injection(attack: str | None, target: str, first: int, end: int, seed: int) -> "Injection | None":
    from robustseg import api
    from robustseg.monitor.stream import Injection

    if attack is None:
        return None
    if target.upper() not in MEMBERS:
        raise RobustsegError(f"expected a target T, S or A, got '{target}'; try --target T")
    return Injection(api.perturbation(attack), MEMBERS[target.upper()], first, end, seed)


class _Stream(NamedTuple):
    frames: "Iterator[Frame]"
    rate: Fraction
    total: int | None = None


def _open_frames(source: str) -> _Stream:
    """The frames that `--input` means, the rate that their overlay plays at, and how many there are where that is known.

    10 frames a second where nothing says the rate.
    """
    from robustseg import api
    from robustseg.datasets.files import images_in
    from robustseg.datasets.video import frame_rate, frames_of, read_frames

    path, rate = Path(source), Fraction(10)
    if os.path.isfile(source):
        return _Stream(read_frames(path), frame_rate(path) or rate)
    if os.path.isdir(source):
        return _Stream(read_frames(path), rate, len(images_in(path)) or None)
    if "(" not in source and ("/" in source or path.suffix):
        return _Stream(read_frames(path), rate)
    data = api.data(source)
    return _Stream(frames_of(data), rate, len(data))


def _open_triplet(text: str) -> "Triplet":
    from robustseg.monitor.triplet import Triplet

    folder = Path(text)
    if os.path.isdir(text):  # a long spec is no name of a file, and Path would say so with an error
        files = [folder / f"{name}.safetensors" for name in MEMBERS.values()]
        missing = [file.name for file in files if not file.is_file()]
        if (folder / "triplet.safetensors").is_file():
            text = str(folder / "triplet.safetensors")
        elif missing:
            raise RobustsegError(
                f"expected triplet.safetensors, or teacher, student and adaptive.safetensors, in {folder}, "
                f"got no {missing[0]}; try robustseg train-adaptive for the adaptive network"
            )
        else:
            members = (f"{file.stem}=weights({str(file)!r})" for file in files)
            text = f"triplet({', '.join(members)})"
    network = open_network(text)
    if not isinstance(network, Triplet):
        raise RobustsegError(f"expected a triplet, got '{network.spec}'; try triplet(teacher=…, student=…, adaptive=…)")
    return network
