"""What a synthesis leaves in a folder: the image, a sheet to look at, a film of the way there, and its numbers; depth drawn."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from robustseg.core.code import code_of
from robustseg.core.files import json_line, sole_writer, write_whole
from robustseg.core.film import write_film
from robustseg.core.folders import claim
from robustseg.core.labels import IGNORE
from robustseg.core.provenance import digest
from robustseg.core.types import Dataset, Images, Labels, Network, device_of, frozen
from robustseg.datasets.views import read, resize_image
from robustseg.networks.depth import MultiTask
from robustseg.results.depth_metrics import FARTHEST, NEAREST
from robustseg.results.panels import Tile, map_picture, page_of, quantised
from robustseg.synthesis.gradients import edge_agreement, high_frequency_share
from robustseg.synthesis.paint import Settings, Synthesis, SynthesisStep

PICTURES = 60
"""Pictures of a film, the last one included."""


class Reel:
    """Collects the pictures of a film: given to a synthesis as its `on_step`."""

    def __init__(self) -> None:
        self.pictures: list[np.ndarray] = []

    def __call__(self, step: SynthesisStep) -> None:
        """Keep a picture of all images side by side, at even distances and at the end."""
        passed = step.done * (PICTURES - 1) // step.total
        if step.done == step.total or passed > (step.done - 1) * (PICTURES - 1) // step.total:
            self.pictures.append(np.concatenate([picture_of(image) for image in step.images], 1))


def picture_of(image: Tensor) -> np.ndarray:
    """An image `[3, h, w]` as uint8 `[h, w, 3]`."""
    return quantised(image.float().cpu().numpy())


def drawn_map(labels: Tensor, palette: Sequence[tuple[int, int, int]]) -> Image.Image:
    """Labels `[h, w]` in the colours of their classes."""
    return map_picture(labels.clamp(0, IGNORE).byte().cpu().numpy(), palette)


def gradient_picture(gradient: Tensor) -> Image.Image:
    """A gradient `[3, h, w]` around mid-grey; three standard deviations reach black and white."""
    scale = gradient.std().clamp_min(torch.finfo(gradient.dtype).tiny)
    return Image.fromarray(picture_of((0.5 + gradient / (6 * scale)).clamp(0, 1)))


def write_picture(path: Path, picture: Image.Image) -> None:
    """A PNG, whole or not at all."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_whole(path, buffer.getvalue())


def seen_as(network: Network, images: Images, target: Labels) -> Tensor:
    """The share of the labelled pixels of each image that the network labels so, `[b]`."""
    with frozen(network), torch.no_grad():
        right = network.predict(images) == target
    known = target != IGNORE
    return (right & known).flatten(1).sum(1) / known.flatten(1).sum(1).clamp_min(1)


SYNTHESIS, SYNTHESIS_FILES = "result.json", ("image.png", "image-*.png", "sheet.png", "classes.png", "film.*")
GRADIENTS, GRADIENTS_FILES = "gradients.json", ("gradients.png",)


def about(network: Network, *tensors: Tensor, **named: Any) -> dict[str, Any]:
    """What decides a result: a network with its weights and code, tensors by their content, and what is named; see `claim`.

    Args:
        network: that made it. tensors: images, masks, labels. named: plain data.
    """
    told = hashlib.sha256()
    for x in tensors:
        told.update(f"{x.dtype}{tuple(x.shape)};".encode() + x.detach().cpu().contiguous().numpy().tobytes())
    known = {"network": network.spec, "weights": digest(network), "code": code_of(network)}
    return {**known, "images, masks and labels": told.hexdigest()[:16], **named}


def write_synthesis(
    folder: Path,
    network: Network,
    target: Labels,
    done: Synthesis,
    *,
    settings: Settings,
    given: Mapping[str, Images],
    reel: Reel,
    film: str = "gif",
    more: Mapping[str, Image.Image] | None = None,
    about: Mapping[str, Any],
) -> dict[str, object]:
    """Write `image.png` (the best start; numbered where there are several images), `sheet.png`, `film.gif` and `result.json`.

    Args:
        folder: made where it is not there.
        network: whose prediction stands on the sheet. target: `[b, h, w]`, void where anything may stand.
        done: what came of it. settings: how. given: images `[b, 3, h, w]` that stand first on the sheet, by title.
        reel: that was given to the synthesis. film: gif or mp4.
        more: further pictures, by the names of their files. about: what decides the result, see `about`.

    Returns:
        What `result.json` holds beside `about`.

    Raises:
        RobustsegError: a file cannot be written, another run writes there, or the folder holds something else.
            MissingExtra: MP4 without PyAV.
    """
    with sole_writer(folder):
        claim(folder / SYNTHESIS, about, SYNTHESIS_FILES)
        for name, picture in (more or {}).items():
            write_picture(folder / name, picture)
        return _write_synthesis(folder, network, target, done, settings, given, reel, film, about)


def _write_synthesis(
    folder: Path,
    network: Network,
    target: Labels,
    done: Synthesis,
    settings: Settings,
    given: Mapping[str, Images],
    reel: Reel,
    film: str,
    about: Mapping[str, Any],
) -> dict[str, object]:
    best, names = done.best, network.label_space.names
    for index, image in enumerate(best):
        name = "image.png" if len(best) == 1 else f"image-{index}.png"
        write_picture(folder / name, Image.fromarray(picture_of(image)))
    write_picture(folder / "sheet.png", _sheet(network, target, done, given))
    write_film(folder / f"film.{film}", reel.pictures)
    seen = torch.stack([seen_as(network, images, target) for images in done.images])
    asked = [[names[k] for k in labels.unique().tolist() if k != IGNORE] for labels in target]
    result: dict[str, object] = {
        "network": network.spec,
        "settings": {**asdict(settings), "budget": settings.budget and settings.ball.spec},
        "classes": asked,
        "loss": done.losses.tolist(),
        "seen_as_asked": seen.tolist(),
        "diverged": done.diverged.tolist(),
    }
    write_whole(folder / SYNTHESIS, json_line({"about": about, **result}))
    return result


def _sheet(network: Network, target: Labels, done: Synthesis, given: Mapping[str, Images]) -> Image.Image:
    """One row an image: what was given, the label map, each start's result and what the network sees there."""
    with frozen(network), torch.no_grad():
        seen = [network.predict(images) for images in done.images]
    palette = network.label_space.palette
    tiles = []
    for index in range(len(target)):
        tiles += [Tile(title, Image.fromarray(picture_of(images[index])), True) for title, images in given.items()]
        tiles.append(Tile("to be seen", drawn_map(target[index], palette), False))
        for number, (images, labels) in enumerate(zip(done.images, seen, strict=True)):
            loss = f"loss {float(done.losses[number, index]):.2f}"
            tiles += [
                Tile(loss, Image.fromarray(picture_of(images[index])), True),
                Tile("seen", drawn_map(labels[index], palette), False),
            ]
    return page_of(tiles, columns=len(tiles) // len(target))


def class_sheet(network: Network, done: Synthesis) -> Image.Image:
    """What each class looks like to a network: the best image of each, under its name; image k is of class k."""
    names = network.label_space.names
    return page_of([Tile(n, Image.fromarray(picture_of(i)), True) for n, i in zip(names, done.best, strict=True)])


class Aligned(NamedTuple):
    """A map's name, its share of high frequencies, and its agreement with the image's edges (see `alignment`)."""

    name: str
    share: float
    edges: float


def write_gradients(
    folder: Path, images: Images, maps: Mapping[str, Images], *, about: Mapping[str, Any]
) -> list[Aligned]:
    """Write `gradients.png`, the image and its maps, and `gradients.json` with what they are like.

    Args:
        folder: made where it is not there. images: `[1, 3, h, w]`. maps: of this image, `[1, 3, h, w]`, by name.
        about: what decides the result, see `about`.

    Raises:
        RobustsegError: a file cannot be written, another run writes there, or the folder holds something else.
    """
    found = [Aligned(n, float(high_frequency_share(m)), float(edge_agreement(m, images))) for n, m in maps.items()]
    tiles = [Tile("image", Image.fromarray(picture_of(images[0])), True)]
    tiles += [Tile(name, gradient_picture(gradients[0]), True) for name, gradients in maps.items()]
    with sole_writer(folder):
        claim(folder / GRADIENTS, about, GRADIENTS_FILES)
        write_picture(folder / "gradients.png", page_of(tiles))
        maps_told = [one._asdict() for one in found]
        write_whole(folder / GRADIENTS, json_line({"about": about, "maps": maps_told}))
    return found


def depth_sheet(network: MultiTask, data: Dataset, *, size: tuple[int, int]) -> Image.Image:
    """Image and depth of every sample, a row each, true depth and error too where any sample knows it; what is near is bright.

    Args:
        network: whose depth is drawn. data: few samples. size: (height, width) of what the network sees, and of the tiles.

    Depth is scaled by medians as in `depth_sums`. The error is red where the network takes things for farther than they are,
    blue where for nearer, full from a half of the true depth on, and black where nothing is known. Sparse truth is thinned to
    the nearest point of each pixel.
    """
    samples = [read(data, index) for index in range(len(data))]
    measured = any("depth" in sample.extras for sample in samples)
    drawn = []
    for sample in samples:
        image = resize_image(sample.image, size)
        with frozen(network), torch.no_grad():
            inverse = 1 / network.depth(image[None].to(device_of(network))).float().cpu()[0]
        truth = sample.extras.get("depth", torch.zeros(size))
        nearness = torch.where((truth > NEAREST) & (truth < FARTHEST), 1 / truth, 0)
        nearness = F.adaptive_max_pool2d(nearness[None], size)[0]
        known = nearness > 0
        if known.any():
            inverse = inverse * nearness[known].median() / inverse[known].median()
        bright = (nearness[known] if known.any() else inverse.flatten()).quantile(0.98)
        ratio = torch.where(known, nearness / inverse - 1, 0)
        error = torch.stack([ratio.clamp_min(0), torch.zeros(size), (-ratio).clamp_min(0)]) / 0.5
        shown = {sample.id: image, "depth": inverse / bright}
        if measured:
            shown |= {"true depth": nearness / bright, "error": error}
        for title, tile in shown.items():
            picture = picture_of(tile.clamp(0, 1).expand(3, *size))
            drawn.append(Tile(title, Image.fromarray(picture), True))
    return page_of(drawn, columns=4 if measured else 2)
