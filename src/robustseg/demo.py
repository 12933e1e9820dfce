"""Attacked, noticed, repaired: the shipped triplet on rendered streets. A table, a report and one picture.

Takes about two minutes on two CPU cores and needs nothing from outside the package.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from robustseg import api
from robustseg.core.files import sole_writer, write_whole
from robustseg.core.folders import require_own
from robustseg.core.levels import to_8bit
from robustseg.core.random import ImageRng
from robustseg.core.types import Batch, device_of, frozen
from robustseg.evaluation.run import Conditions, Progress, evaluate
from robustseg.monitor.detector import extreme
from robustseg.monitor.triplet import Triplet
from robustseg.networks.fast import fast
from robustseg.report import write_report
from robustseg.results import metrics
from robustseg.results.panels import quantised
from robustseg.results.record import Record

TRIPLET = "zoo:triplet-streets"
DATA = "streets(scenes=8, frames=1, size='192x384')"
CHANGES = (
    ("clean", None, None),
    ("noise, 8/255", "sign(rms='8/255')", None),
    ("weak attack on the teacher, 1/255", "llcm(budget='linf:1/255')", "teacher"),
    ("strong attack on the teacher, 10/255", "llcm(budget='linf:10/255')", "teacher"),
    ("strong attack on the student, 10/255", "llcm(budget='linf:10/255')", "student"),
    ("one attack on all three, 10/255", "pgd(budget='linf:10/255', steps=10, objective='members')", "all"),
)
"""What is done to the images, in words and as a spec, and who it is made against."""
PICTURE_DATA = "streets(scenes=3, frames=6, size='256x512')"
PICTURE_FRAME = 6
"""The frame of the picture: chosen for what stands in the street, not for how the networks do on it."""
PICTURE_ATTACK = "llcm(budget='linf:10/255')"


class Row(NamedTuple):
    """One line of the table: mIoU of each member and of the corrected answer, in shares, and where an attack was noticed.

    Args:
        what: in words. noticed: share of the images in which the teacher was judged attacked.
    """

    what: str
    teacher: float
    student: float
    adaptive: float
    corrected: float
    noticed: float


class Demo(NamedTuple):
    """What a demo leaves behind."""

    rows: list[Row]
    picture: Path
    report: Path


def run_demo(
    folder: str | Path, *, device: str = "cpu", on_batch: Callable[[Progress], None] = lambda progress: None
) -> Demo:
    """Attack the members of the shipped triplet on rendered streets; write records, a report and a picture.

    Args:
        folder: of the results; a cut demo goes on there.
        device: where to run. on_batch: called after every batch.

    Raises:
        RobustsegError: the folder cannot be written, holds something else, or another run writes there.
    """
    folder = Path(folder)
    with sole_writer(folder):
        require_own(folder / "records.jsonl", ("summary.json", "demo.png", "report.html"))
        return _run(folder, device, on_batch)


def _run(folder: Path, device: str, on_batch: Callable[[Progress], None]) -> Demo:
    triplet = open_triplet(device)
    data = api.data(DATA)
    conditions = Conditions(batch_size=2)
    members = {n: api.network(f"member({TRIPLET}, '{n}')").to(device) for n in ("teacher", "student", "adaptive")}
    networks = [*members.values(), triplet]
    rows = []
    for what, spec, against in CHANGES:
        source = None if spec is None else members.get(against or "teacher", triplet)
        change = api.perturbation(spec) if spec else None
        records = evaluate(
            networks, data, change, source, conditions=conditions, folder=folder, panels=1, on_batch=on_batch
        )
        rows.append(_row(what, records))
    picture = folder / "demo.png"
    buffer = io.BytesIO()
    draw_story(triplet).save(buffer, "PNG")
    write_whole(picture, buffer.getvalue())
    return Demo(rows, picture, write_report([folder], folder / "report.html"))


def open_triplet(device: str) -> Triplet:
    """The shipped triplet on a device."""
    built = api.network(TRIPLET).to(device)
    assert isinstance(built, Triplet)
    return built


def _row(what: str, records: Sequence[Record]) -> Row:
    blamed = records[-1].verdicts["attacked"]
    teacher, student, adaptive, corrected = (metrics.miou(r.counts) for r in records)
    return Row(what, teacher, student, adaptive, corrected, blamed.count("teacher") / len(blamed))


def draw_story(triplet: Triplet) -> Image.Image:
    """One frame three times: clean; attacked, as the teacher sees it; attacked, as the triplet answers."""
    sample = api.data(PICTURE_DATA)[PICTURE_FRAME]
    batch = Batch.of([sample]).to(device_of(triplet))
    with frozen(triplet):
        rng = ImageRng(0, batch.ids)
        attacked = api.perturbation(PICTURE_ATTACK)(fast(triplet.teacher), batch.images, batch.labels, rng=rng)
        with torch.inference_mode():
            before, after = (triplet.teacher.predict(images) for images in (batch.images, attacked))
            assessment = triplet.watch(attacked)
    doubt = np.repeat(to_8bit(assessment.disagreement[0].cpu().numpy())[..., None], 3, 2)
    pictures = [quantised(images[0].cpu().numpy()) for images in (batch.images, attacked)]
    said = f"{assessment.attacked[0]} judged attacked, d = {float(extreme(assessment.tiles)[0]):.2f}"
    columns = []
    for title, note, picture, labels in (
        ("clean", "the teacher's answer", pictures[0], before),
        ("attacked, 10/255", "the teacher's answer", pictures[1], after),
        ("noticed (where they disagree), repaired", said, doubt, assessment.labels),
    ):
        counts = metrics.count(batch.labels.cpu().numpy(), labels.cpu().numpy(), batch.ids, len(triplet.label_space))
        text = f"{note}, {metrics.pixel_accuracy(counts):.0%} right"
        columns.append((title, text, picture, labels[0].cpu().numpy()))
    return _sheet(columns, pictures, triplet.label_space.palette)


def _sheet(
    columns: Sequence[tuple[str, str, np.ndarray, np.ndarray]],
    pictures: Sequence[np.ndarray],
    palette: Sequence[tuple[int, int, int]],
) -> Image.Image:
    """Title above; what goes in (last: where the members disagree), what comes out, and a line on it below."""
    height, width = columns[0][3].shape
    gap, head, foot, side = 24, 60, 50, 24
    size = (2 * side + len(columns) * width + (len(columns) - 1) * gap, head + 2 * height + gap + foot)
    page = Image.new("RGB", size, (17, 19, 23))
    pen = ImageDraw.Draw(page)
    large, small = ImageFont.load_default(28), ImageFont.load_default(19)
    grounds = (*pictures, pictures[-1])
    for i, ((title, text, picture, labels), ground) in enumerate(zip(columns, grounds, strict=True)):
        left = side + i * (width + gap)
        pen.text((left, 16), title, fill=(240, 242, 245), font=large)
        pen.text((left, head + 2 * height + gap + 12), text, fill=(160, 168, 178), font=small)
        page.paste(Image.fromarray(picture), (left, head))
        page.paste(Image.fromarray(_overlay(ground, labels, palette)), (left, head + height + gap))
    return page


def _overlay(image: np.ndarray, prediction: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """The prediction in colour over the grey image."""
    colours = np.array(palette, np.float64)[np.clip(prediction, 0, len(palette) - 1)]
    grey = image.mean(2, keepdims=True)
    return np.clip(0.7 * colours + 0.45 * grey, 0, 255).astype(np.uint8)
