"""What is left in a folder is what was synthesised."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustseg.core.errors import RobustsegError
from robustseg.core.files import read_lines
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.synthesis.output import PICTURES, Reel, about, class_sheet, picture_of, seen_as, write_synthesis
from robustseg.synthesis.paint import Settings, SynthesisStep, generate
from robustseg.testing import PixelNetwork


def test_images_and_numbers_are_those_of_the_synthesis(tmp_path: Path) -> None:
    network, reel = PixelNetwork(), Reel()
    target = torch.arange(4).view(4, 1, 1).expand(4, 6, 8).contiguous()
    target[0, 0, 0] = IGNORE
    settings = Settings(steps=5, step=0.2, starts=2, budget="l2:3")
    done = generate(network, target, settings=settings, rng=ImageRng(0, list("abcd")), on_step=reel)
    known = about(network, target, seed=0)
    options = {"settings": settings, "given": {}, "reel": reel, "more": {"classes.png": class_sheet(network, done)}}
    result = write_synthesis(tmp_path / "new", network, target, done, **options, about=known)
    (read,) = read_lines(tmp_path / "new" / "result.json")
    assert read == {"about": known, **result}
    assert read["settings"]["budget"] == "l2:765/255"
    assert read["classes"] == [["a"], ["b"], ["c"], ["d"]]
    assert np.allclose(read["loss"], done.losses)
    for index in range(4):
        stored = np.asarray(Image.open(tmp_path / "new" / f"image-{index}.png"))
        assert np.array_equal(stored, picture_of(done.best[index]))
    right = (network.predict(done.images[1]) == target).flatten(1).sum(1) / torch.tensor([47, 48, 48, 48])
    assert np.allclose(read["seen_as_asked"][1], right)
    assert np.allclose(seen_as(network, done.images[1], target), right)
    assert {p.name for p in (tmp_path / "new").iterdir()} == {
        *(f"image-{i}.png" for i in range(4)),
        "sheet.png",
        "classes.png",
        "film.gif",
        "result.json",
    }
    assert class_sheet(network, done).width >= 4 * 8
    with pytest.raises(RobustsegError, match=r"expected seed 0 of the run in .*, got 1; try another folder"):
        write_synthesis(tmp_path / "new", network, target, done, **options, about=about(network, target, seed=1))


def test_what_decides_a_result_is_its_content() -> None:
    network, other, target = PixelNetwork(), PixelNetwork(), torch.zeros(1, 2, 3)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert about(network, target) == about(PixelNetwork(), target.clone())
    assert about(other, target)["weights"] != about(network, target)["weights"]
    for changed in (target + 1, target.view(1, 3, 2), target.double()):
        assert about(network, changed) != about(network, target)


def test_a_reel_keeps_pictures_at_even_distances_and_the_last() -> None:
    for total in (1, 7, 60, 61, 500):
        reel = Reel()
        for done in range(total + 1):
            images = torch.full((2, 3, 1, 1), done / total)
            reel(SynthesisStep(done, total, images, torch.zeros(2)))
        values = [int(picture[0, 0, 0]) for picture in reel.pictures]
        assert len(values) == min(total + 1, PICTURES)
        assert (values[0], values[-1]) == (0, 255)
        assert reel.pictures[0].shape == (1, 2, 3)
        assert max(np.diff(values)) <= 2 * 255 / min(total, PICTURES - 1) + 1
