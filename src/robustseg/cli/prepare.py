"""The commands around a measurement: list, doctor, train, data."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from robustseg.cli.shared import (
    DataSpec,
    Device,
    NetworkSpec,
    OutDir,
    Seed,
    app,
    data_app,
    err,
    open_data,
    out,
    parse_size,
    pick_device,
    table_of,
    whole,
)
from robustseg.core.errors import RobustsegError
from robustseg.core.registry import RUNS_CODE

if TYPE_CHECKING:
    from robustseg.training import HeldOut


@app.command("list")
def list_names(
    kind: Annotated[str | None, typer.Argument(help="network, data, perturbation or study")] = None,
) -> None:
    """List what a spec may name (networks, data sets, perturbations), and the studies that `reproduce` runs."""
    from robustseg.core import registry
    from robustseg.core.errors import SpecError

    kinds = sorted(set(registry.KINDS.values()))
    if kind is not None and kind not in kinds:
        raise SpecError(f"expected one of {', '.join(kinds)}, got '{kind}'")
    table = table_of("kind", "name", "what it is")
    for entry in sorted(registry.table().values()):
        if kind in (None, entry.kind):
            table.add_row(entry.kind, entry.name, entry.summary)
    out.print(table)
    if kind in (None, "network"):
        out.print(f"note: {RUNS_CODE}", soft_wrap=True)


DEPTH_WEIGHT = 0.1
"""Of the encoder's gradient where video is learned from and nothing else is said."""


@app.command()
def doctor(
    data: DataSpec,
    network: Annotated[str | None, typer.Option(help="Also try this network on a few images.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Read every image, not 20 of them.")] = False,
) -> None:
    """Say in plain words what a data set (and a network on it) looks like, and what is missing."""
    from robustseg.evaluation.doctor import examine

    findings = examine(data, network=network, samples=None if everything else 20)
    for line in findings.lines:
        out.print(line, soft_wrap=True)
    if not findings.ok:
        raise typer.Exit(2)


@app.command()
def train(
    network: NetworkSpec,
    holdout: Annotated[str, typer.Option(help="Data spec to choose the best weights on; never the test data.")],
    out_dir: OutDir,
    data: Annotated[
        str | None, typer.Option(help="Data spec with labels; none is needed to learn depth alone.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Resize the held-out images to HxW.")] = None,
    start: Annotated[
        str | None, typer.Option(help="File of weights to begin with, as far as they fit: a robust encoder, say.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 60,
    batch_size: Annotated[int, whole(1, "Images a step, over all devices.")] = 12,
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
    adversary: Annotated[
        str | None, typer.Option(help="Attack spec; trains on attacked images, and keeps the best under attack.")
    ] = None,
    share: Annotated[float, typer.Option(help="Of the images that the adversary attacks.")] = 1.0,
    warm_up: Annotated[float, typer.Option(help="Epochs over which the adversary's budget rises from 0.")] = 0.0,
    trades: Annotated[
        float,
        typer.Option(help="Learn the clean images, and this times how far the answer moves; 0: the attacked ones."),
    ] = 0.0,
    video: Annotated[
        str | None, typer.Option(help="Data spec of video without labels, from which a multitask network learns depth.")
    ] = None,
    depth_weight: Annotated[
        float,
        typer.Option(help="Share of the encoder's gradient that is depth's: 0 is the control, 1 learns depth alone."),
    ] = DEPTH_WEIGHT,
    video_scale: Annotated[
        tuple[float, float], typer.Option(help="Range of the random factor on the size of the video.")
    ] = (1.0, 1.0),
    moving: Annotated[
        list[str] | None, typer.Option(help="Class of things that move, left out of depth where the network sees it.")
    ] = None,
    tensorboard: Annotated[bool, typer.Option(help="Also write events for TensorBoard into the folder.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(help="Processes, one device each; they train like one but for dropout.")] = 1,
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = "32-true",
) -> None:
    """Train a network with labels, under attack or with depth from video if wanted; keeps the best, goes on where it was cut.

    The same command goes on in its folder, and a finished one is left as it is; with other settings, images, masks, start
    weights or code the folder is refused.
    """
    import torch

    from robustseg import api
    from robustseg.networks.checkpoints import start_from
    from robustseg.training import Adversary, DepthTask, Recipe, Step
    from robustseg.training import train as run
    from robustseg.training.fabric import fabric_on

    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        crop=parse_size(crop),
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
    for name, what, unused in (
        ("--adversary", "--share, --warm-up or --trades", not adversary and (share, warm_up, trades) != (1, 0, 0)),
        ("--data", "--scale", not data and scale != Recipe.scale),
        (
            "--video",
            "--depth-weight, --video-scale or --moving",
            not video and (depth_weight != DEPTH_WEIGHT or video_scale != (1, 1) or moving),
        ),
    ):
        if unused:
            raise RobustsegError(f"expected {name} beside {what}, got none; try {name} SPEC, or without them")
    attacker = Adversary(adversary, share=share, warm_up=warm_up, trades=trades) if adversary else None
    second = DepthTask(video, weight=depth_weight, moving=tuple(moving or ()), scale=video_scale) if video else None
    labelled = data or (video if depth_weight == 1 else None)
    if labelled is None:
        raise RobustsegError("expected --data with labels, got none; try --video SPEC --depth-weight 1 for depth alone")
    place = pick_device(device)
    dataset, held_out = api.data(labelled), open_data(holdout, None, size)
    fabric = fabric_on(place, precision, devices=devices)
    with torch.random.fork_rng():  # the same first weights in every process and after every restart
        torch.manual_seed(seed)
        model = api.network(network)
    if start:
        taken, tensors = start_from(model, start)
        if fabric.is_global_zero:
            err.print(f"took over {taken} of {tensors} tensors from {start}", soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not fabric.is_global_zero) as progress:
        task = progress.add_task("training", total=None)

        passes: list[float] = []  # an image, of the steps since the last check

        def on_step(step: Step) -> None:
            text = f"epoch {step.epoch} loss {step.loss:.3f}"
            if "depth_loss" in step.figures:
                text += f" depth {step.figures['depth_loss']:.4f} ({step.figures['masked']:.0%} masked)"
            progress.update(task, description=text, completed=step.step, total=step.steps)
            passes.append(step.passes)
            if step.held_out is not None:
                text = f"epoch {step.epoch}: {_told(step.held_out)}, {sum(passes) / len(passes):.1f} passes an image"
                progress.console.print(text, soft_wrap=True)
                passes.clear()

        best = run(
            model,
            dataset,
            holdout=held_out,
            folder=out_dir,
            recipe=recipe,
            adversary=attacker,
            depth=second,
            tensorboard=tensorboard,
            fabric=fabric,
            on_step=on_step,
        )
    if fabric.is_global_zero:
        if progress.tasks[task].total is None:
            out.print(f"nothing to do: {out_dir} holds this training", soft_wrap=True)
        spec = str(best)
        if model.architecture.startswith("module("):  # a file names no code to import; the user does
            spec = f'"{model.architecture[:-1]}, weights={spec!r})"'
        out.print(f"best: {best}\nnext: robustseg evaluate --network {spec} …", soft_wrap=True)


@data_app.callback()
def _data_verbs() -> None:
    """Write a procedural data set to a folder."""


@data_app.command()
def streets(
    out_dir: OutDir,
    frames: Annotated[int, typer.Option(help="How many frames.")] = 8,
    size: Annotated[str, typer.Option(help="Size HxW.")] = "256x512",
    seed: Seed = 0,
) -> None:
    """Render street video with labels, depth (millimetres, 16 bit) and poses, in the SegNet layout."""
    from robustseg.datasets.streets import export

    parse_size(size)
    path = export(out_dir, frames=frames, size=size, seed=seed)
    out.print(
        f"wrote {frames} frames to {path}\nread them: camvid(root='{path}', split='test')",
    )


def _told(held_out: "HeldOut") -> str:
    figures = held_out.figures
    if "depth_loss" in figures:
        return f"held-out loss of view synthesis {figures['depth_loss']:.4f}"
    text = f"held-out mIoU {figures['miou']:.2%}"
    if "robust_miou" in figures:
        text += f", under attack {figures['robust_miou']:.2%}, after one step {figures['single_step_miou']:.2%}"
    return text + (f" ({held_out.warning})" if held_out.warning else "")
