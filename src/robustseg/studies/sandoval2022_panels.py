"""The pictures of the study of Sandoval-Segura 2022: networks side by side, and pairs for a person who does not know which is which."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from robustseg.core.files import make_folder, write_whole
from robustseg.core.labels import IGNORE
from robustseg.core.types import Batch, Mask, Network, frozen
from robustseg.datasets.files import read_image
from robustseg.results.panels import Tile, page_of
from robustseg.studies.sandoval2022_claims import ORIGINAL, ROLES, START
from robustseg.synthesis.gradients import input_gradients
from robustseg.synthesis.output import drawn_map, gradient_picture, picture_of, write_picture

TITLES = {ORIGINAL: "image", START: "start", **ROLES}


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
        images = [np.asarray(Image.open(path)) for path in (reversed(pairs[index]) if swapped else pairs[index])]
        gap = np.full((images[0].shape[0], 12, 3), 255, np.uint8)
        picture = Image.fromarray(np.concatenate([images[0], gap, images[1]], 1))
        write_picture(folder / f"pair-{number:02d}.png", picture.resize((2 * picture.width, 2 * picture.height)))
        sides[f"pair-{number:02d}"] = "left" if swapped else "right"
    write_whole(key, json.dumps({"adversarial": sides}, indent=1) + "\n")
