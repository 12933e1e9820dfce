"""inpaint and generate in process: what they write, and one sentence for what a user can mend."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import run
from robustseg import api
from robustseg.core.files import json_line, sole_writer
from robustseg.datasets.files import read_image
from robustseg.networks.weights import save
from robustseg.synthesis.output import picture_of

NETWORK = "erfnet(classes='camvid', width=0.25)"
STREETS = "streets(scenes=2, frames=1, size='32x64')"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of a network and of pictures."""
    folder = tmp_path_factory.mktemp("given")
    save(api.network(NETWORK), folder / "net.safetensors")
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 20:50] = 255
    maps = {
        "image": image,
        "mask": mask,
        "empty": 0 * mask,
        "small": mask[:-1],
        "void": mask | 255,
        "wrong": 0 * mask + 40,
    }
    maps["target"] = (mask > 0).astype(np.uint8) * 8
    for name, picture in maps.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    (folder / "torn.png").write_bytes((folder / "image.png").read_bytes()[:200])
    return {path.stem: str(path) for path in folder.iterdir()}


def inpaint(
    given: dict[str, str], out: Path, *more: str, image: str = "image", mask: str = "mask", code: int = 0
) -> str:
    known = ("--network", given["net"], "--image", given.get(image, image), "--mask", given.get(mask, mask))
    return run("inpaint", *known, "--out", str(out), "--steps", "2", *more, code=code)


def size(path: Path) -> tuple[int, ...]:
    return tuple(read_image(path).shape[1:])


@pytest.mark.parametrize("mask", ["mask", "10,20,30,50"])
def test_inpaint_changes_the_hole_only(given: dict[str, str], tmp_path: Path, mask: str) -> None:
    text = inpaint(given, tmp_path, "--target", "car", "--starts", "2", mask=mask)
    assert "seen as asked: " in text
    before = np.asarray(Image.open(given["image"]))
    after = np.asarray(Image.open(tmp_path / "image.png"))
    hole = np.asarray(Image.open(given["mask"])) > 0
    assert np.array_equal(after[~hole], before[~hole])
    assert (after[hole] != before[hole]).mean() > 0.8
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["classes"] == [["car"]]
    assert np.shape(result["loss"]) == (2, 1)
    assert {p.name for p in tmp_path.iterdir()} == {"image.png", "sheet.png", "film.gif", "result.json"}


def test_a_mask_is_drawn_on_the_photograph_as_it_is_shown(given: dict[str, str], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    with Image.open(given["image"]) as shown:
        shown.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "photo.png", exif=exif)
    inpaint(given, tmp_path / "out", "--target", "car", image=str(tmp_path / "photo.png"))
    before, after = read_image(Path(given["image"])), read_image(tmp_path / "out" / "image.png")
    assert (before != after).any(0)[10:30, 20:50].float().mean() > 0.8
    assert (before != after).any(0).sum() <= 20 * 30


def test_a_class_is_taken_out_of_a_photograph_of_any_size(tmp_path: Path) -> None:
    frame = picture_of(api.data("streets(scenes=1, frames=1, size='160x320')")[0].image)
    Image.fromarray(frame).resize((640, 320)).save(tmp_path / "large.png")
    network = ("--network", "zoo:erfnet-streets", "--steps", "1", "--step", "0")
    run("inpaint", *network, "--image", str(tmp_path / "large.png"), "--mask", "car", "--out", str(tmp_path / "out"))
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert "road" in result["classes"][0]
    assert "car" not in result["classes"][0]
    assert size(tmp_path / "out" / "image.png") == (196, 392)


def test_generate_from_a_map_and_from_data(given: dict[str, str], tmp_path: Path) -> None:
    known = ("generate", "--network", given["net"], "--steps", "2")
    run(*known, "--target", given["target"], "--out", str(tmp_path / "a"))
    assert size(tmp_path / "a" / "image.png") == (48, 64)
    assert json.loads((tmp_path / "a" / "result.json").read_text())["classes"] == [["sky", "car"]]
    more = ("--colours", STREETS, "--size", "32x48", "--number", "1")
    run(*known, "--target", STREETS, *more, "--out", str(tmp_path / "b"))
    assert size(tmp_path / "b" / "image.png") == (32, 48)


def test_generate_without_a_map_draws_every_class(given: dict[str, str], tmp_path: Path) -> None:
    run("generate", "--network", given["net"], "--steps", "1", "--size", "16x24", "--out", str(tmp_path))
    assert len(list(tmp_path.glob("image-*.png"))) == 11
    assert (tmp_path / "classes.png").is_file()


@pytest.mark.parametrize(
    ("changed", "more", "sentence"),
    [
        ({"mask": "small"}, (), "expected a mask of the image's size 64x48 in"),
        ({"mask": "empty"}, (), "expected bright, opaque pixels (128 to 255) where the mask is in"),
        (
            {"mask": "5,5,5,9"},
            (),
            "expected a rectangle TOP,LEFT,BOTTOM,RIGHT in an image of 48x64, got '5,5,5,9'; try",
        ),
        (
            {"mask": "lorry"},
            (),
            "expected a mask as TOP,LEFT,BOTTOM,RIGHT, a PNG, or a class of the network, got 'lorry'; try",
        ),
        ({"image": "nowhere.png"}, (), "expected a photograph at 'nowhere.png', got none"),
        ({"image": "torn"}, (), "expected a readable image in"),
        (
            {},
            ("--target", "lorry"),
            "expected a class of the network or an index PNG, got 'lorry'; try one of sky, building",
        ),
        ({}, ("--target", "WRONG"), "expected label values 0 to 10 or void in"),
        ({}, ("--target", "VOID"), "expected a labelled pixel to climb toward, got void only"),
        ({}, ("--film", "avi"), "expected a film of gif or mp4, got 'avi'"),
        ({}, ("--optimiser", "sgd"), "expected an optimiser, got 'sgd'"),
        ({}, ("--budget", "linf:8/255"), "expected an L2 budget above 0, got 'linf:8/255'"),
        ({}, ("--size", "big"), "expected a size HxW, got 'big'"),
        ({}, ("--size", "²x²"), "expected a size HxW, got '²x²'"),
    ],
)
def test_what_cannot_be_inpainted_is_said_in_one_sentence(given, tmp_path, changed, more, sentence) -> None:
    more = tuple(given.get(word.lower(), word) if word.isupper() else word for word in more)
    assert sentence in inpaint(given, tmp_path / "out", *more, **changed, code=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--target", STREETS, "--number", "2"), "expected an image 0 to 1 of streets"),
        (("--target", "VOID"), "got void only"),
        (("--target", "WRONG"), "expected label values 0 to 10 or void in"),
        (("--target", "nowhere.png"), "expected"),
    ],
)
def test_what_cannot_be_generated_is_said_in_one_sentence(given, tmp_path, more, sentence) -> None:
    more = tuple(given.get(word.lower(), word) if word.isupper() else word for word in more)
    assert sentence in run("generate", "--network", given["net"], *more, "--out", str(tmp_path / "out"), code=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("more", "maps"), [((), None), (("--label", "car"), 1), (("--region", "4,4,20,20"), None)])
def test_gradients_of_each_class_or_one(given: dict[str, str], tmp_path: Path, more, maps) -> None:
    known = ("gradients", "--network", given["net"], "--image", given["image"], "--out", str(tmp_path))
    text = run(*known, *more, "--kind", "plain")
    found = json.loads((tmp_path / "gradients.json").read_text())["maps"]
    seen = api.network(given["net"]).predict(read_image(Path(given["image"]))[None])
    seen = seen[:, 4:20, 4:20] if "--region" in more else seen
    assert len(found) == (maps or len(seen.unique()))
    assert all(f"{one['name']}: high-frequency share {one['share']:.2f}" in text for one in found)
    assert (tmp_path / "gradients.png").is_file()


def test_gradients_of_what_is_not_known_are_one_sentence(given: dict[str, str], tmp_path: Path) -> None:
    known = ("gradients", "--network", given["net"], "--out", str(tmp_path / "out"), "--image")
    assert "expected a class of the network, got 'lorry'" in run(*known, given["image"], "--label", "lorry", code=2)
    assert "expected a kind of plain, smooth" in run(*known, given["image"], "--kind", "guided", code=2)
    assert "expected a photograph at 'none.png'" in run(*known, "none.png", code=2)
    assert "got none; try white on black" in run(*known, given["image"], "--region", given["empty"], code=2)
    assert not (tmp_path / "out").exists()


def verbs(given: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Each verb with what it needs, and the name of a picture that it writes."""
    known = ("--network", given["net"], "--image", given["image"])
    return {
        "inpaint": (*known, "--mask", given["mask"], "--target", "car", "--steps", "2"),
        "generate": ("--network", given["net"], "--target", given["target"], "--steps", "2"),
        "gradients": (*known, "--label", "car", "--kind", "smooth"),
    }


@pytest.mark.parametrize("verb", ["inpaint", "generate", "gradients"])
def test_the_same_again_has_nothing_to_do_and_another_result_is_refused(given, tmp_path: Path, verb: str) -> None:
    command = (verb, *verbs(given)[verb], "--out", str(tmp_path))
    run(*command)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert f"nothing to do: {tmp_path} holds this result" in run(*command)
    assert "expected seed 0 of the run in" in run(*command, "--seed", "1", code=2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("verb", ["inpaint", "generate", "gradients"])
def test_pictures_of_a_user_are_not_replaced(given, tmp_path: Path, verb: str) -> None:
    picture = tmp_path / ("gradients.png" if verb == "gradients" else "image.png")
    picture.write_bytes(b"mine")
    text = run(verb, *verbs(given)[verb], "--out", str(tmp_path), code=2)
    assert f"got '{picture.name}' of something else" in text
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(picture.name, b"mine")]


def test_a_cut_between_pictures_is_made_good(given, tmp_path: Path) -> None:
    inpaint(given, tmp_path)
    before = (tmp_path / "result.json").read_bytes()
    about = json.loads(before)["about"]
    (tmp_path / "result.json").write_text(json_line({"about": about}))
    (tmp_path / "image.png").unlink()
    inpaint(given, tmp_path)
    assert (tmp_path / "result.json").read_bytes() == before
    assert (tmp_path / "image.png").is_file()


@pytest.mark.parametrize("verb", ["inpaint", "generate", "gradients"])
def test_a_folder_that_is_written_to_is_refused(given, tmp_path: Path, verb: str) -> None:
    with ThreadPoolExecutor(1) as other, sole_writer(tmp_path):
        text = other.submit(run, verb, *verbs(given)[verb], "--out", str(tmp_path), code=2).result()
    assert "another run that writes there" in text
