"""Perturbed images as 8-bit PNG files, and what is left of a perturbation when they are read back.

A perturbation of a few gray levels may live on fractions of one. What counts outside of a computer's memory is what an
image file can hold; so this is a perturbation that writes another's images and returns what is in the files.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from robustseg.core.files import file_name, make_folder, write_whole
from robustseg.core.levels import to_8bit
from robustseg.core.random import ImageRng
from robustseg.core.registry import attack
from robustseg.core.types import Images, Labels, Network, Perturbation


@attack("saved")
def saved(
    network: Network, images: Images, labels: Labels, *, perturbation: Perturbation, folder: str, rng: ImageRng
) -> Images:
    """Another perturbation, written as 8-bit PNG files (one an image) and read back: what is measured is what they hold.

    Each changed value goes to the next n/255 towards the original, by less than 1/255 past it (`core.levels.to_8bit`), so
    that images within a budget of L-inf 1/255 or more still are.

    Args:
        network: as the perturbation takes it.
        images: `[b, 3, h, w]` in [0, 1].
        labels: `[b, h, w]`, void 255.
        perturbation: what moves the images.
        folder: of the files, see `files_of`.
        rng: as the perturbation takes it; its ids name the files.

    Returns:
        The images in the files, whole multiples of 1/255.

    Raises:
        RobustsegError: the files cannot be written.
    """
    if not len(images):
        return images.clone()
    perturbed = perturbation(network, images, labels, rng=rng)
    levels = to_8bit(perturbed, towards=images).permute(0, 2, 3, 1).cpu().numpy()
    files = files_of(folder, perturbation.spec, network.spec, rng.ids)
    make_folder(files[0].parent)
    for file, picture in zip(files, levels, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        write_whole(file, buffer.getvalue())
    read = [torch.from_numpy(np.array(Image.open(file))) for file in files]
    return torch.stack(read).permute(0, 3, 1, 2).to(images) / 255


def files_of(folder: str, perturbation: str, network: str, ids: Sequence[str]) -> list[Path]:
    """Where `saved` keeps images: each perturbation and network has a folder of its own, each image its id as a name.

    Args:
        folder: of all. perturbation, network: specs. ids: of the images; see `core.files.file_name`.
    """
    place = Path(folder) / file_name(f"{perturbation}\n{network}")
    return [place / file_name(name, ".png") for name in ids]
