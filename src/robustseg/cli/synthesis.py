"""The commands that show what a network sees: inpaint, generate, gradients."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from robustseg.cli.shared import (
    Device,
    NetworkSpec,
    OutDir,
    Seed,
    Size,
    app,
    err,
    open_data,
    open_network,
    out,
    parse_size,
    pick_device,
    whole,
)
from robustseg.core.errors import RobustsegError
from robustseg.core.files import on_disk, sole_writer
from robustseg.core.folders import result_in
from robustseg.core.labels import IGNORE

if TYPE_CHECKING:
    from torch import Tensor

    from robustseg.core.types import Network
    from robustseg.synthesis.output import Reel
    from robustseg.synthesis.paint import SynthesisStep

AREA = 240 * 320
"""Pixels that a photograph is shrunk to where no size is given."""
CLASS_SIZE = (120, 160)
"""Of the pictures of every class."""
RIM = 4
"""Pixels around a class that are removed with it."""

Photograph = Annotated[Path, typer.Option("--image", help="The photograph.")]
Optimiser = Annotated[str, typer.Option(help="pgd, descent or adam.")]
Steps = Annotated[int, whole(1, "Gradient steps.")]
StepSize = Annotated[float, typer.Option("--step", help="Root mean square of one step, images in [0, 1].")]
Ball = Annotated[str | None, typer.Option("--budget", help="An L2 ball around the start, such as l2:20.")]
Smoothness = Annotated[float, typer.Option(help="Weight of the total variation.")]
Coarse = Annotated[int, typer.Option(help="Halvings of the scale that gradients start at; 0 is off.")]
Shifts = Annotated[int, typer.Option(help="Shifted copies that each step is averaged over; 1 is off.")]
Starts = Annotated[int, typer.Option(help="Different starts, as one batch.")]
FilmFormat = Annotated[str, typer.Option("--film", help="gif, or mp4 (needs the extra video).")]


@app.command()
def inpaint(
    network: NetworkSpec,
    image: Photograph,
    mask: Annotated[str, typer.Option(help="TOP,LEFT,BOTTOM,RIGHT in pixels, a picture (bright: hole), or a class.")],
    out_dir: OutDir,
    target: Annotated[
        str | None,
        typer.Option(help="A class or an index PNG to see in the hole; default: what the network sees around."),
    ] = None,
    size: Size = None,
    optimiser: Optimiser = "pgd",
    steps: Steps = 200,
    step: StepSize = 0.01,
    budget: Ball = None,
    smoothness: Smoothness = 0.0,
    coarse: Coarse = 3,
    shifts: Shifts = 1,
    starts: Starts = 1,
    film: FilmFormat = "gif",
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Fill a hole of a photograph so that a network sees a label map there: a picture, a film."""
    from robustseg.core.film import require_format
    from robustseg.core.random import ImageRng
    from robustseg.datasets.views import resize_labels
    from robustseg.synthesis.output import SYNTHESIS, SYNTHESIS_FILES, Reel, about, write_synthesis
    from robustseg.synthesis.paint import Settings, completed
    from robustseg.synthesis.paint import inpaint as run

    settings = Settings(optimiser, steps, step, budget, smoothness, coarse, shifts, starts)
    require_format(film)
    built = open_network(network).to(pick_device(device))
    images, whole = _photograph(image, size, built)
    masks, removed = _mask(mask, whole, built, images)
    if target is None:
        labels = completed(built, images, masks, without=removed)
    else:
        labels = resize_labels(_labels(target, whole, built), (images.shape[2], images.shape[3]))[None].to(
            images.device
        )
    goal = labels.where(masks, IGNORE)
    decided = about(built, images, masks, goal, verb="inpaint", settings=str(settings), seed=seed, film=film)
    with _kept(out_dir / SYNTHESIS, decided, SYNTHESIS_FILES):
        reel = Reel()
        with _shown(reel) as told:
            done = run(built, images, masks, labels, settings=settings, rng=ImageRng(seed, [image.stem]), on_step=told)
        shown = {"image": images, "hole": images.where(~masks.unsqueeze(1), 0.5)}
        result = write_synthesis(
            out_dir, built, goal, done, settings=settings, given=shown, reel=reel, film=film, about=decided
        )
    _print(out_dir, result)


@app.command()
def generate(
    network: NetworkSpec,
    out_dir: OutDir,
    target: Annotated[
        str | None,
        typer.Option(help="An index PNG, or a data spec whose labels are taken; default: every class by itself."),
    ] = None,
    number: Annotated[int, typer.Option(help="Which image of the data, from 0.")] = 0,
    colours: Annotated[
        str | None, typer.Option(help="Data spec: the start is drawn from the colours of its classes, else it is grey.")
    ] = None,
    size: Size = None,
    optimiser: Optimiser = "pgd",
    steps: Steps = 200,
    step: StepSize = 0.02,
    budget: Ball = None,
    smoothness: Smoothness = 0.0,
    coarse: Coarse = 4,
    shifts: Shifts = 1,
    starts: Starts = 1,
    film: FilmFormat = "gif",
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Draw an image in which a network sees a label map; without a map, what each class looks like to it."""
    from robustseg.core.film import require_format
    from robustseg.core.random import ImageRng
    from robustseg.datasets.views import content
    from robustseg.synthesis.output import SYNTHESIS, SYNTHESIS_FILES, Reel, about, class_sheet, write_synthesis
    from robustseg.synthesis.paint import Settings, class_colours
    from robustseg.synthesis.paint import generate as run

    settings = Settings(optimiser, steps, step, budget, smoothness, coarse, shifts, starts)
    require_format(film)
    built = open_network(network).to(pick_device(device))
    labels, shown = _scene(target, number, size, built)
    start, drawn = None, ""
    if colours:
        data = open_data(colours, None, None)
        built.label_space.require_same(data.label_space, mine=built.spec, theirs=data.spec)
        start, drawn = class_colours(data), f"{data.spec} with content {content(data).digest}"
    known = {"verb": "generate", "settings": str(settings), "colours": drawn, "seed": seed, "film": film}
    decided = about(built, labels, *shown.values(), **known)
    with _kept(out_dir / SYNTHESIS, decided, SYNTHESIS_FILES):
        reel, rng = Reel(), ImageRng(seed, [f"image_{i}" for i in range(len(labels))])
        with _shown(reel) as told:
            done = run(built, labels, colours=start, settings=settings, rng=rng, on_step=told)
        more = {"classes.png": class_sheet(built, done)} if target is None else {}
        options: dict[str, Any] = {"settings": settings, "given": shown, "reel": reel, "film": film, "more": more}
        result = write_synthesis(out_dir, built, labels, done, **options, about=decided)
    _print(out_dir, result)


@app.command()
def gradients(
    network: NetworkSpec,
    image: Photograph,
    out_dir: OutDir,
    label: Annotated[str | None, typer.Option(help="A class; default: each that the network sees.")] = None,
    region: Annotated[str | None, typer.Option(help="As --mask of inpaint; default: where the class is seen.")] = None,
    kind: Annotated[str, typer.Option(help="plain, smooth or integrated.")] = "smooth",
    size: Size = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Show how an image would have to change for a class to be likelier: input gradients, class by class."""
    import torch

    from robustseg.core.random import ImageRng
    from robustseg.synthesis.gradients import input_gradients
    from robustseg.synthesis.output import GRADIENTS, GRADIENTS_FILES, about, write_gradients
    from robustseg.synthesis.paint import require_masks

    built = open_network(network).to(pick_device(device))
    images, whole = _photograph(image, size, built)
    names = built.label_space.names
    if label is not None and label not in names:
        raise RobustsegError(f"expected a class of the network, got '{label}'; try one of {', '.join(names)}")
    where = _mask(region, whole, built, images).pixels if region else torch.ones_like(images[:, 0], dtype=torch.bool)
    require_masks(images, where)
    with torch.no_grad():
        seen = built.predict(images).where(where, IGNORE)
    if label is not None and (region or names.index(label) not in seen):
        seen = torch.full_like(seen, names.index(label)).where(where, IGNORE)
    classes = [names.index(label)] if label else [k for k in seen.unique().tolist() if k < len(names)]
    decided = about(built, images, seen, verb="gradients", classes=classes, kind=kind, seed=seed)
    with _kept(out_dir / GRADIENTS, decided, GRADIENTS_FILES):
        maps = {}
        for one in classes:
            labels = torch.where(seen == one, one, IGNORE)
            maps[names[one]] = input_gradients(built, images, labels, kind=kind, rng=ImageRng(seed, [image.stem]))
        found = write_gradients(out_dir, images, maps, about=decided)
    for name, share, edges in found:
        out.print(f"{name}: high-frequency share {share:.2f}, agreement with edges {edges:.2f}")
    out.print(f"maps: {out_dir / 'gradients.png'}", soft_wrap=True)


@contextmanager
def _kept(head: Path, decided: Mapping[str, Any], files: Sequence[str]) -> Iterator[None]:
    """Within: the only one to write into the folder of a head (see `core.folders`); a finished result ends the command."""
    with sole_writer(head.parent):
        if result_in(head, decided, files):
            out.print(f"nothing to do: {head.parent} holds this result", soft_wrap=True)
            raise typer.Exit
        yield


class _Photograph(NamedTuple):
    """A photograph `[1, 3, h, w]` at the size that is worked on, and its own (height, width)."""

    images: "Tensor"
    whole: tuple[int, int]


def _photograph(path: Path, size: str | None, network: "Network") -> _Photograph:
    from robustseg.core.types import device_of
    from robustseg.datasets.files import read_image
    from robustseg.datasets.views import resize_image

    if not path.is_file():
        raise RobustsegError(f"expected a photograph at '{path}', got none; try another --image")
    photo = read_image(path)
    whole = (int(photo.shape[1]), int(photo.shape[2]))
    return _Photograph(
        resize_image(photo, parse_size(size) if size else _shrunk(whole))[None].to(device_of(network)), whole
    )


@contextmanager
def _shown(reel: "Reel") -> "Iterator[Callable[[SynthesisStep], None]]":
    """A bar with the loss on stderr, beside the film."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("descending", total=None)

        def on_step(step: "SynthesisStep") -> None:
            reel(step)
            text = f"loss {float(step.losses.mean()):.3f}"
            progress.update(task, description=text, completed=step.done, total=step.total)

        yield on_step


def _print(folder: Path, result: dict[str, Any]) -> None:
    if any(map(any, result["diverged"])):
        err.print(
            "warning: the loss did not fall to the end; the best image so far is kept; try a smaller --step",
            soft_wrap=True,
        )
    shares = [share for start in result["seen_as_asked"] for share in start]
    text = f"seen as asked: {', '.join(f'{100 * share:.0f} %' for share in shares)} of the pixels\npictures: {folder}"
    out.print(text, soft_wrap=True)


def _shrunk(size: tuple[int, int]) -> tuple[int, int]:
    """The size of a photograph that is worked on: at most `AREA` pixels, in its own shape."""
    factor = min(1.0, math.sqrt(AREA / (size[0] * size[1])))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


class _Mask(NamedTuple):
    """A mask bool `[1, h, w]`, and the class that it takes away, if it is made of one."""

    pixels: "Tensor"
    without: tuple[int, ...]


def _mask(text: str, whole: tuple[int, int], network: "Network", images: "Tensor") -> _Mask:
    """What `--mask` means on a photograph of size `whole`, at the size of `images`."""
    import torch

    from robustseg.datasets.files import read_mask
    from robustseg.datasets.views import resize_labels
    from robustseg.synthesis.paint import widened

    if text in network.label_space.names:
        one = network.label_space.names.index(text)
        with torch.no_grad():
            found = network.predict(images) == one
        if not found.any():
            raise RobustsegError(
                f"expected some {text} in the image, got none that {network.spec} sees; try a rectangle"
            )
        return _Mask(widened(found, RIM), (one,))
    if text.replace(",", "").replace(" ", "").isdecimal():
        mask = _rectangle(text, whole)
    elif on_disk(text):
        mask = read_mask(Path(text), whole)
    else:
        names = ", ".join(network.label_space.names)
        raise RobustsegError(
            f"expected a mask as TOP,LEFT,BOTTOM,RIGHT, a PNG, or a class of the network, got '{text}'; try one of {names}"
        )
    return _Mask(resize_labels(mask.long(), (images.shape[2], images.shape[3]))[None].bool().to(images.device), ())


def _rectangle(text: str, whole: tuple[int, int]) -> "Tensor":
    import torch

    ends = [int(part) for part in text.split(",") if part.strip()]
    mask = torch.zeros(whole, dtype=torch.bool)
    if len(ends) == 4:
        mask[ends[0] : ends[2], ends[1] : ends[3]] = True
    if not mask.any():
        raise RobustsegError(
            f"expected a rectangle TOP,LEFT,BOTTOM,RIGHT in an image of {whole[0]}x{whole[1]}, got '{text}'; "
            f"try {whole[0] // 3},{whole[1] // 3},{2 * whole[0] // 3},{2 * whole[1] // 3}"
        )
    return mask


def _labels(text: str, whole: tuple[int, int], network: "Network") -> "Tensor":
    """What `--target` means: a class all over, or an index PNG of size `whole`."""
    import torch

    from robustseg.datasets.files import read_labels, train_ids_of

    names = network.label_space.names
    if text in names:
        return torch.full(whole, names.index(text))
    if not on_disk(text):
        raise RobustsegError(
            f"expected a class of the network or an index PNG, got '{text}'; try one of {', '.join(names)}"
        )
    return read_labels(Path(text), train_ids_of(len(names)), whole)


class _Scene(NamedTuple):
    """A target `[b, h, w]`, and what stands before it on the sheet."""

    labels: "Tensor"
    shown: "dict[str, Tensor]"


def _scene(target: str | None, number: int, size: str | None, network: "Network") -> _Scene:
    """What `--target` of `generate` means."""
    import torch

    from robustseg.core.types import device_of
    from robustseg.datasets.files import read_labels, train_ids_of
    from robustseg.datasets.views import resize_labels

    where = device_of(network)
    if target is None:
        shape = parse_size(size) if size else CLASS_SIZE
        classes = torch.arange(len(network.label_space), device=where)
        return _Scene(classes.view(-1, 1, 1).expand(-1, *shape).contiguous(), {})
    if on_disk(target):
        labels = read_labels(Path(target), train_ids_of(len(network.label_space)))
        return _Scene((resize_labels(labels, parse_size(size)) if size else labels)[None].to(where), {})
    data = open_data(target, None, size)
    network.label_space.require_same(data.label_space, mine=network.spec, theirs=data.spec)
    if not 0 <= number < len(data):
        raise RobustsegError(f"expected an image 0 to {len(data) - 1} of {data.spec}, got {number}; try --number 0")
    sample = data[number]
    return _Scene(sample.labels[None].to(where), {"real image": sample.image[None]})
