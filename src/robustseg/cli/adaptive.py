"""The command that finetunes an adaptive student: train-adaptive."""

from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from robustseg.cli.shared import (
    DataSpec,
    Device,
    OutDir,
    Seed,
    app,
    err,
    open_data,
    open_network,
    out,
    parse_size,
    pick_device,
    whole,
)


@app.command()
def train_adaptive(
    teacher: Annotated[str, typer.Option(help="Network spec of the static teacher.")],
    student: Annotated[str, typer.Option(help="Network spec of the static student, of which a copy is finetuned.")],
    data: DataSpec,
    out_dir: OutDir,
    holdout: Annotated[str | None, typer.Option(help="Data spec with labels to follow the run on.")] = None,
    size: Annotated[str | None, typer.Option(help="Resize the held-out images to HxW.")] = None,
    layers: Annotated[
        str, typer.Option(help="Whose features move away: down, up, rest, all, names like down2, joined by commas.")
    ] = "down2",
    alpha: Annotated[float, typer.Option(help="Weight of the feature term; 0 is the control.")] = 0.6,
    beta: Annotated[float, typer.Option(help="Added to the mean feature distance.")] = 0.5,
    gamma: Annotated[float, typer.Option(help="Power of the inverse.")] = 1.0,
    p: Annotated[float, typer.Option(help="Norm of the feature distance.")] = 1.0,
    relative: Annotated[bool, typer.Option(help="Measure distances in units of the student's features.")] = False,
    updates: Annotated[
        int, typer.Option(help="Steps of the optimiser; a folder's run goes on to a larger number.")
    ] = 2000,
    batch_size: Annotated[int, whole(1, "Images an update, over all devices.")] = 8,
    crop: Annotated[str, typer.Option(help="Size HxW that the networks see.")] = "180x240",
    scale: Annotated[tuple[float, float], typer.Option(help="Range of the random factor on the image size.")] = (
        0.75,
        1.5,
    ),
    learning_rate: Annotated[float, typer.Option(help="Of Adam, constant.")] = 1e-4,
    train_mode: Annotated[bool, typer.Option(help="Finetune with batch statistics and dropout (an ablation).")] = False,
    check_every: Annotated[int, typer.Option(help="Updates between two checkpoints and measurements.")] = 250,
    seed: Seed = 0,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(help="Processes, one device each.")] = 1,
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = "32-true",
) -> None:
    """Finetune a copy of the student on unlabelled images: answers like the teacher, features unlike the student."""
    from robustseg.training.fabric import fabric_on
    from robustseg.training.redundant import AdaptiveRecipe, Update
    from robustseg.training.redundant import train_adaptive as run

    recipe = AdaptiveRecipe(
        layers=tuple(layer.strip() for layer in layers.split(",") if layer.strip()),
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        p=p,
        relative=relative,
        updates=updates,
        batch_size=batch_size,
        crop=parse_size(crop),
        scale=scale,
        learning_rate=learning_rate,
        train_mode=train_mode,
        check_every=check_every,
        seed=seed,
    )
    place = pick_device(device)
    dataset, held_out = open_data(data, None, None), open_data(holdout, None, size) if holdout else None
    fabric = fabric_on(place, precision, devices=devices)
    networks = open_network(teacher), open_network(student)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not fabric.is_global_zero) as progress:
        task = progress.add_task("finetuning", total=updates)

        def on_update(update: Update) -> None:
            text = f"cross-entropy {update.cross_entropy:.3f} feature term {update.feature_term:.3f}"
            progress.update(task, description=text, completed=update.update)
            if update.miou is not None and update.agreement is not None:
                figures = f"held-out mIoU {update.miou:.2%}, agreement with the teacher {update.agreement:.2%}"
                progress.console.print(f"update {update.update}: {figures}")

        path = run(
            *networks, dataset, folder=out_dir, recipe=recipe, holdout=held_out, fabric=fabric, on_update=on_update
        )
    if fabric.is_global_zero:
        if not progress.tasks[task].completed:
            out.print(f"nothing to do: {out_dir} holds this training", soft_wrap=True)
        text = f"adaptive student: {path}\nnext: robustseg evaluate --network {path} …"
        out.print(text, soft_wrap=True)
