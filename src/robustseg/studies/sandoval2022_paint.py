"""What the study of Sandoval-Segura 2022 paints and measures: gradients, filled holes, drawn scenes, and their pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustseg.core.files import file_name, make_folder, write_whole
from robustseg.core.labels import IGNORE
from robustseg.core.provenance import digest
from robustseg.core.random import ImageRng
from robustseg.core.types import Batch, Mask, Network, frozen
from robustseg.datasets.files import read_image
from robustseg.losses.pixelwise import total_variation
from robustseg.results.panels import Tile, page_of
from robustseg.studies.measures import Measure
from robustseg.studies.run import Work
from robustseg.studies.sandoval2022 import JUDGE, KINDS, ORIGINAL, ROLES, START, Setting, painters
from robustseg.synthesis.gradients import edge_agreement, fidelity, high_frequency_share, input_gradients, judged
from robustseg.synthesis.output import (
    class_sheet,
    drawn_map,
    gradient_picture,
    picture_of,
    seen_as,
    write_picture,
)
from robustseg.synthesis.paint import Settings, class_colours, generate, inpaint

SEED = 0
TITLES = {ORIGINAL: "image", START: "start", **ROLES}


def about(work: Work, setting: Setting, kind: str, who: str) -> dict[str, Any]:
    """What decides the measures of a kind."""
    network = _network(work, who)
    return {
        "network": network.spec,
        "weights": digest(network),
        "judge": setting.judge,
        "judge_weights": digest(_network(work, JUDGE)),
        "settings": "" if kind == "gradients" else _said(_settings(setting, kind, who)),
        "data": setting.data,
        "size": list(setting.size),
        "seed": SEED,
    }


def measured(work: Work, setting: Setting, kind: str, who: str, batch: Batch) -> list[Measure]:
    """The measures of a batch; of paintings with what the independent network sees in them, and their pictures are written."""
    if kind == "gradients":
        return _listed(kind, who, batch, _gradients(work, who, batch))
    painted = painting(work, setting, kind, who, batch)
    found = _listed(kind, who, batch, painted.values)
    for index, measure in enumerate(found):
        write_picture(_picture(work, kind, who, measure.image), Image.fromarray(picture_of(painted.images[index])))
        one = slice(index, index + 1)
        counts = judged(work.network(JUDGE), painted.images[one], painted.target[one], (measure.image,))
        found[index] = replace(measure, counts=counts)
    return found


def _listed(kind: str, who: str, batch: Batch, values: Mapping[str, Tensor]) -> list[Measure]:
    return [
        Measure(kind, who, image, {}, {name: float(value[index]) for name, value in values.items()})
        for index, image in enumerate(batch.ids)
    ]


def _gradients(work: Work, who: str, batch: Batch) -> dict[str, Tensor]:
    """Input gradients toward the labels, plain and smooth."""
    values = {}
    for kind in ("plain", "smooth"):
        rng = ImageRng(SEED, batch.ids, "smooth")
        maps = input_gradients(work.network(who), batch.images, batch.labels, kind=kind, rng=rng)
        values[f"{kind} share"] = high_frequency_share(maps)
        values[f"{kind} edges"] = edge_agreement(maps, batch.images)
    return values


class Painting(NamedTuple):
    """What was painted from a batch: images `[b, 3, h, w]`, values by name `[b]`, and the label maps that they were painted for."""

    images: Tensor
    values: dict[str, Tensor]
    target: Tensor


def painting(work: Work, setting: Setting, kind: str, who: str, batch: Batch) -> Painting:
    """Holes filled, or scenes drawn, toward the ground truth by one network; or what they start from, or the original images."""
    settings, network, images = _settings(setting, kind, who), _network(work, who), batch.images
    target, masks = batch.labels, None
    if kind == "inpaint":
        masks = holes(batch).to(images.device)
        target = batch.labels.where(masks, IGNORE)
    values: dict[str, Tensor] = {}
    if who != ORIGINAL:
        rng = ImageRng(SEED, batch.ids, kind)
        if masks is None:
            colours = class_colours(work.data("choose"))
            done = generate(network, target, colours=colours, settings=settings, rng=rng)
        else:
            done = inpaint(network, batch.images, masks, target, settings=settings, rng=rng)
        images = done.best
        if who in ROLES:
            values = {"loss": done.losses.amin(0), "seen": seen_as(network, images, target)}
    if masks is None:
        values["variation"] = total_variation(images) / total_variation(batch.images)
    else:
        values |= fidelity(images, batch.images, masks)._asdict()
    return Painting(images, values, target)


def _network(work: Work, who: str) -> Network:
    """The network of a role; the judge stands in where no network is asked."""
    return work.network(who if who in ROLES else JUDGE)


def _settings(setting: Setting, kind: str, who: str) -> Settings:
    own = Settings(**(setting.draw if kind == "generate" else setting.fill))
    return own if who in ROLES else replace(own, steps=1, step=0.0)


def _said(settings: Settings) -> str:
    return ", ".join(f"{name} {value}" for name, value in asdict(settings).items() if value is not None)


def _picture(work: Work, kind: str, who: str, image: str) -> Path:
    return make_folder(work.folder / "panels" / kind / who) / file_name(image, ".png")


def hole(labels: Tensor, image_id: str) -> Tensor:
    """A hole for labels `[h, w]`: a third high and wide, at the first of 20 places drawn for this image where nine tenths are
    labelled, else where most are."""
    height, width = labels.shape
    tall, wide = height // 3, width // 3
    rng = ImageRng(SEED, [image_id], "hole")
    best, most = torch.zeros_like(labels, dtype=torch.bool), -1.0
    for _ in range(20):
        down, right = rng.uniform((2,), torch.zeros(1))[0].tolist()
        mask = torch.zeros_like(best)
        top, left = int(down * (height - tall + 1)), int(right * (width - wide + 1))
        mask[top : top + tall, left : left + wide] = True
        share = float((labels[mask] != IGNORE).float().mean())
        if share > most:
            best, most = mask, share
        if share >= 0.9:
            break
    return best


def holes(batch: Batch) -> Mask:
    """The hole of each image of a batch, bool `[b, h, w]`."""
    return torch.stack([hole(labels, name) for labels, name in zip(batch.labels.cpu(), batch.ids, strict=True)])


# Pictures


def draw_panels(work: Work, setting: Setting) -> None:
    """Write the pictures of `sandoval2022.Pictures`."""
    folder = work.folder / "panels"
    for kind in ("inpaint", "generate"):
        data = work.data(KINDS[kind])
        for index, name in enumerate(data.ids):
            batch = Batch.of([data[index]])
            pictures = {who: _picture(work, kind, who, name) for who in painters(kind)}
            for who, path in pictures.items():
                if not path.is_file():  # measures are kept with the study, pictures need not be
                    measured(work, setting, kind, who, batch.to(work.device))
            masks = holes(batch) if kind == "inpaint" else None
            write_picture(folder / f"{kind}-{name}.png", comparison(batch, masks, pictures, work.network(JUDGE)))
    data = work.data("holes")
    batch = Batch.of([data[index] for index in range(min(4, len(data)))]).to(work.device)
    write_picture(folder / "gradients.png", gradient_sheet({role: work.network(role) for role in ROLES}, batch))
    pairs = [[_picture(work, "inpaint", who, name) for who in ("standard", "adversarial")] for name in data.ids]
    blind_pairs(folder / "blind", pairs, key=folder / "blind-key.json")
    for role in ROLES if setting.class_steps else ():
        path = folder / f"classes-{role}.png"
        if not path.is_file():
            write_picture(path, _classes(work, setting, role))


def _classes(work: Work, setting: Setting, role: str) -> Image.Image:
    """What each class looks like to a network."""
    network = work.network(role)
    count = len(network.label_space)
    target = torch.arange(count, device=work.device).view(-1, 1, 1).expand(-1, *setting.size).contiguous()
    settings = replace(Settings(**setting.draw), steps=setting.class_steps)
    rng = ImageRng(SEED, [f"class_{k}" for k in range(count)])
    return class_sheet(network, generate(network, target, settings=settings, rng=rng))


def comparison(batch: Batch, masks: Mask | None, pictures: Mapping[str, Path], judge: Network) -> Image.Image:
    """One image: the original, the start, each network's painting; below, the target and what the judge sees in each.

    Args:
        batch: of this one image. masks: its hole; None: all of it was drawn. pictures: by who painted.
        judge: the independent network.
    """
    palette = judge.label_space.palette
    target = batch.labels if masks is None else batch.labels.where(masks, IGNORE)
    above, below = [], []
    for who in (ORIGINAL, START, *ROLES):
        image = read_image(pictures[who])
        above.append(Tile(TITLES[who], Image.fromarray(picture_of(image)), True))
        with frozen(judge), torch.no_grad():
            seen = judge.predict(image.unsqueeze(0).to(next(judge.parameters())))[0].cpu()
        below.append(Tile("judge sees", drawn_map(seen, palette), False))
    below[0] = Tile("to be seen", drawn_map(target[0], palette), False)
    return page_of([*above, *below], columns=len(above))


def gradient_sheet(networks: Mapping[str, Network], batch: Batch) -> Image.Image:
    """Input gradients toward the labels: one row an image, one column a network, beside the image."""
    maps = {r: input_gradients(n, batch.images, batch.labels) for r, n in networks.items()}
    tiles = []
    for index, image in enumerate(batch.images):
        tiles.append(Tile("image", Image.fromarray(picture_of(image)), True))
        tiles += [Tile(ROLES[r], gradient_picture(gradients[index]), True) for r, gradients in maps.items()]
    return page_of(tiles, columns=1 + len(maps))


def blind_pairs(folder: Path, pairs: Sequence[Sequence[Path]], *, key: Path, seed: int = 0) -> None:
    """Pictures of two paintings each, in random order and without a label, and the key in a file of its own.

    Args:
        folder: of `pair-01.png` and so on. pairs: the paintings of the standard and of the adversarially trained network.
        key: JSON: for each pair, on which side the adversarially trained network's is. seed: of the order.
    """
    make_folder(folder)
    draws, sides = np.random.default_rng(seed), {}
    order = draws.permutation(len(pairs))
    for number, index in enumerate(order, start=1):
        swapped = bool(draws.integers(2))
        images = [picture_of(read_image(path)) for path in (reversed(pairs[index]) if swapped else pairs[index])]
        gap = np.full((images[0].shape[0], 12, 3), 255, np.uint8)
        picture = Image.fromarray(np.concatenate([images[0], gap, images[1]], 1))
        write_picture(folder / f"pair-{number:02d}.png", picture.resize((2 * picture.width, 2 * picture.height)))
        sides[f"pair-{number:02d}"] = "left" if swapped else "right"
    write_whole(key, json.dumps({"adversarial": sides}, indent=1) + "\n")
