"""The doctor: what it says of healthy and of spoiled data, and of networks on it."""

import re

import numpy as np
import pytest
import torch
from torch import nn

import trees
from robustseg.core import registry
from robustseg.core.labels import LabelSpace
from robustseg.core.types import Dataset, Network, Sample
from robustseg.evaluation.doctor import examine
from robustseg.networks.adapters import adapt
from robustseg.testing import gray_space

SPACE = gray_space(4)


class Blocks(Dataset):
    """Images in red, green, blue and dark blocks, labelled 0 to 3."""

    def __init__(self, count=6, space=SPACE):
        self.spec, self.label_space = "blocks", space
        self.ids = tuple(f"a_{i}" for i in range(count))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        labels = torch.arange(4).repeat_interleave(4).repeat(8, 1).roll(index, 1)
        image = torch.full((3, *labels.shape), 0.1)
        for channel in range(3):
            image[channel][labels == channel] = 0.9
        return Sample(image, labels, self.ids[index])


class Channels(nn.Module):
    """Names the brightest of three channels in 0..255 in BGR order, or class 3 where all are below 100."""

    def forward(self, x):
        return torch.cat([x.flip(1), torch.full_like(x[:, :1], 100.0)], 1)


class Judge(Network):
    """Gives what a function of the images says."""

    def __init__(self, answer, space=SPACE):
        super().__init__(space, "judge")
        self.answer = answer

    def forward(self, images):
        return self.answer(images)


def test_healthy_data_is_described(tmp_path):
    root = trees.camvid(tmp_path, {"test": [f"a_{i}" for i in range(3)]})
    found = examine(f"camvid(root='{root}')")
    assert found.ok
    text = "\n".join(found.lines)
    assert "3 images, all of them looked at." in text
    assert "Sizes, width x height: 8x6 (3)." in text
    assert "Void: 8.3% of the pixels." in text  # 4 of 48
    assert "sky 9.1% (in 3)" in text  # 4 of 44
    assert "Warning" not in text


def test_a_missing_folder_shows_the_tree(tmp_path):
    found = examine(f"camvid(root='{tmp_path / 'none'}')")
    assert not found.ok
    assert re.search(
        r"(?s)^Problem: expected the folder '.*none/test' of CamVid, got none; .*testannot/", found.lines[0]
    )
    assert examine("camvit(root='x')").lines[0].startswith("Problem: expected a known data, got 'camvit'; try camvid")


def test_odd_data_is_warned_of(tmp_path):
    root = trees.folder(tmp_path, {"a.png": (6, 8), "b.png": (10, 12)}, values=(255, 255, 0))
    found = examine(f"folder(images='{root}/images', labels='{root}/labels', classes=('road', 'car', 'sky'))")
    text = "\n".join(found.lines)
    assert found.ok
    assert "Warning: images differ in size" in text
    assert "Warning: more than half of the pixels are void" in text
    assert "Warning: never seen in the images read: car, sky." in text
    assert "Warning: there is one class only" in text


def test_each_broken_file_is_a_problem_and_the_rest_is_described(tmp_path):
    root = trees.folder(tmp_path, {f"{i}.png": (6, 8) for i in range(10)})
    trees.write_mask(root / "labels" / "3.png", [0, 9])
    whole = (root / "images" / "4.png").read_bytes()
    (root / "images" / "4.png").write_bytes(whole[:80])
    spec = f"folder(images='{root}/images', labels='{root}/labels', classes=3)"
    found = examine(spec)
    assert not found.ok
    problems = [line for line in found.lines if line.startswith("Problem:")]
    assert found.lines[0].endswith("10 images, all of them looked at, 8 read.")
    assert len(problems) == 2
    assert "got 9" in problems[0]
    assert "4.png" in problems[1]
    assert any(line.startswith("Sizes, width x height: 8x6 (8).") for line in found.lines)
    for i in range(10):
        trees.write_mask(root / "labels" / f"{i}.png", [9])
    problems = [line for line in examine(spec).lines if line.startswith("Problem:")]
    assert len(problems) == 6
    assert "5 more" in problems[-1]


def test_withheld_labels_are_a_problem(tmp_path):
    root = trees.folder(tmp_path, {"a.png": (6, 8)}, values=(255,))
    found = examine(f"folder(images='{root}/images', labels='{root}/labels', classes=3)")
    assert not found.ok
    assert any("every pixel read is void" in line for line in found.lines)


def test_an_empty_data_set_and_repeated_ids_are_problems():
    assert "an empty data set" in examine(Blocks(0)).lines[0]
    data = Blocks(3)
    data.ids = ("a_0", "a_0", "a_1")
    found = examine(data)
    assert not found.ok
    assert any("1 ids occur more than once, the first is 'a_0'" in line for line in found.lines)


@pytest.mark.parametrize(("samples", "expected"), [(20, 20), (None, 100), (1, 1), (3, 3)])
def test_it_reads_a_spread_unless_told_all(samples, expected):
    data, steps = Blocks(100), []
    found = examine(data, samples=samples, on_sample=lambda done, total: steps.append((done, total)))
    assert steps == [(i + 1, expected) for i in range(expected)]
    assert ("all of them looked at" in found.lines[0]) == (expected == 100)


def test_the_form_of_a_networks_input_is_found_by_labels():
    wrong = adapt(Channels(), label_space=SPACE)
    found = examine(Blocks(), wrong)
    assert found.ok
    text = "\n".join(found.lines)
    assert "The best is BGR in 0..255." in text
    assert re.search(
        r"Warning: BGR in 0\.\.255 gives .* more than what is set \(RGB in \[0, 1\]\); try bgr=True, scale=255", text
    )
    right = "\n".join(examine(Blocks(), adapt(Channels(), label_space=SPACE, bgr=True, scale=255.0)).lines)
    assert "mIoU 100.0% on 5 images." in right
    assert "Warning" not in right


def test_what_is_wrong_with_a_network_is_said():
    def lines(answer, space=SPACE):
        found = examine(Blocks(), Judge(answer, space))
        return found.ok, "\n".join(found.lines)

    ok, text = lines(lambda x: x, LabelSpace(("a", "b", "x", "d"), SPACE.palette))
    assert not ok
    assert "Problem: expected one label space" in text
    assert "they part at class 2" in text
    ok, text = lines(lambda x: torch.full((1, 4, *x.shape[-2:]), float("nan")))
    assert not ok
    assert "Problem: some logits are NaN or infinite" in text
    ok, text = lines(lambda x: x @ x)
    assert not ok
    assert "Problem: expected logits from judge, got " in text
    ok, text = lines(lambda x: nn.functional.one_hot(x.argmax(1) * 0, 4).movedim(-1, 1).float())
    assert ok
    assert "no better than guessing" in text
    assert "expected a known network, got 'ernet'; try erfnet" in "\n".join(examine(Blocks(), "ernet").lines)


def test_the_pixels_of_each_class_are_said_as_the_attack_takes_them():
    data = Blocks(25)
    assert "class_pixels" not in "\n".join(examine(data, samples=20).lines)
    (line,) = (line for line in examine(data, samples=None).lines if "class_pixels" in line)
    pixels = np.bincount(np.concatenate([data[i].labels.numpy().ravel() for i in range(25)]), minlength=4)
    argument = re.search(r"class_pixels=\(.*?\)", line)[0]
    attack = registry.build("perturbation", f"sea(budget='linf:8/255', {argument})")
    assert attack.arguments["class_pixels"] == tuple(pixels.tolist())
