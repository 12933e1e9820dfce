"""The main job on the built-in data: measure the shipped network under noise and attack, draw one picture.

Takes about two minutes on two CPU cores and needs nothing from outside the package.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from robustseg import api, metrics
from robustseg.evaluation import Conditions, Progress, evaluate
from robustseg.networks.fast import fast
from robustseg.panels import quantised
from robustseg.records import Record, write_whole
from robustseg.report import write_report
from robustseg.types import Batch, ImageRng, Network, device_of, frozen

NETWORK = "zoo:erfnet-streets"
DATA = "streets(scenes=8, frames=1, size='192x384')"
PERTURBATIONS = (
    "gaussian(rms='2/255')",
    "gaussian(rms='8/255')",
    "gaussian(rms='16/255')",
    "sign(rms='8/255')",
    "fgsm(budget='linf:2/255')",
    "fgsm(budget='linf:8/255')",
    "pgd(budget='linf:1/255')",
    "pgd(budget='linf:2/255')",
    "pgd(budget='linf:8/255')",
    "llcm(budget='linf:10/255')",
)
PICTURE_DATA = "streets(scenes=3, frames=6, size='320x640')"
PICTURE_FRAME = 6
"""The frame of the picture: chosen for what stands in the street, not for how the network does on it."""
COLUMNS = (
    ("clean", None),
    ("noise, 8/255", "sign(rms='8/255')"),
    ("attack, 8/255", "pgd(budget='linf:8/255')"),
)


class Demo(NamedTuple):
    """What a demo leaves behind."""

    records: list[Record]
    picture: Path
    report: Path


def run_demo(
    folder: str | Path, *, device: str = "cpu", on_batch: Callable[[Progress], None] = lambda progress: None
) -> Demo:
    """Measure the shipped network on rendered streets; write records, a report and a picture.

    Args:
        folder: of the results; a cut demo goes on there.
        device: where to run. on_batch: called after every batch.

    Raises:
        RobustsegError: the folder cannot be written.
    """
    folder = Path(folder)
    network = api.network(NETWORK).to(device)
    data = api.data(DATA)
    changes = [None, *map(api.perturbation, PERTURBATIONS)]
    conditions = Conditions(batch_size=2)
    records = [evaluate(network, data, c, conditions=conditions, folder=folder, on_batch=on_batch) for c in changes]
    picture = folder / "demo.png"
    buffer = io.BytesIO()
    draw_story(network).save(buffer, "PNG")
    write_whole(picture, buffer.getvalue())
    return Demo(records, picture, write_report([folder], folder / "report.html"))


def draw_story(network: Network) -> Image.Image:
    """One frame three times: clean, under noise, and under an attack no larger than the noise; what the network sees."""
    sample = api.data(PICTURE_DATA)[PICTURE_FRAME]
    device = device_of(network)
    batch = Batch.of([sample]).to(device)
    guide = fast(network)
    columns = []
    with frozen(network):
        for title, spec in COLUMNS:
            rng = ImageRng(0, batch.ids)
            images = api.perturbation(spec)(guide, batch.images, batch.labels, rng=rng) if spec else batch.images
            with torch.inference_mode():
                prediction = network.predict(images).cpu().numpy()
            counts = metrics.count(batch.labels.cpu().numpy(), prediction, batch.ids, len(network.label_space))
            accuracy = metrics.pixel_accuracy(counts)
            columns.append((title, accuracy, quantised(images[0].cpu().numpy()), prediction[0]))
    return _sheet(columns, network.label_space.palette)


def _sheet(
    columns: Sequence[tuple[str, float, np.ndarray, np.ndarray]], palette: Sequence[tuple[int, int, int]]
) -> Image.Image:
    height, width = columns[0][3].shape
    gap, head, side = 24, 74, 24
    size = (2 * side + len(columns) * width + (len(columns) - 1) * gap, head + 2 * height + gap + side)
    page = Image.new("RGB", size, (17, 19, 23))
    pen = ImageDraw.Draw(page)
    large, small = ImageFont.load_default(30), ImageFont.load_default(22)
    for i, (title, accuracy, image, prediction) in enumerate(columns):
        left = side + i * (width + gap)
        pen.text((left, 22), title, fill=(240, 242, 245), font=large)
        text = f"{accuracy:.0%} of the pixels right"
        pen.text((left + width - pen.textlength(text, font=small), 29), text, fill=(160, 168, 178), font=small)
        page.paste(Image.fromarray(image), (left, head))
        page.paste(Image.fromarray(_overlay(image, prediction, palette)), (left, head + height + gap))
    return page


def _overlay(image: np.ndarray, prediction: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """The prediction in colour over the grey image."""
    colours = np.array(palette, np.float64)[np.clip(prediction, 0, len(palette) - 1)]
    grey = image.mean(2, keepdims=True)
    return np.clip(0.7 * colours + 0.45 * grey, 0, 255).astype(np.uint8)
