"""Saved images: the files hold what is measured, inside the ball, 8 bits a value."""

import numpy as np
import pytest
import torch
from PIL import Image

from robustseg.core import registry
from robustseg.core.budget import Budget
from robustseg.core.errors import RobustsegError
from robustseg.core.files import file_name
from robustseg.core.random import ImageRng
from robustseg.core.types import Dataset
from robustseg.evaluation.run import evaluate
from robustseg.testing import SmallNetwork, check_perturbation


def _spec(folder, inner="pgd(budget='linf:8/255', steps=3)"):
    return f"saved(perturbation={inner}, folder='{folder}')"


def _scene(dtype, eight_bit):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((3, 3, 8, 10), generator=generator, dtype=torch.float64)
    images[0, 0, 0] = torch.tensor([0.0, 1.0, 1 / 255, 254 / 255, 0.5, 0.001, 0.999, 0.25, 0.75, 1 / 3])
    labels = torch.randint(4, (3, 8, 10), generator=generator)
    return ((images * 255).round() / 255 if eight_bit else images).to(dtype), labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eight_bit", [True, False])
@pytest.mark.parametrize("eps", [1, 2, 8])
def test_what_is_returned_is_in_the_files_and_within_the_budget(tmp_path, dtype, eight_bit, eps):
    images, labels = _scene(dtype, eight_bit)
    network, budget = SmallNetwork().to(dtype), Budget("linf", eps / 255)
    change = registry.build("perturbation", _spec(tmp_path, f"pgd(budget='linf:{eps}/255', steps=3)"))
    result = change(network, images, labels, rng=ImageRng(0, ["a_1", "a_2", "b/1"]))
    files = {file.stem: np.array(Image.open(file)) for file in tmp_path.rglob("*.png")}
    names = ["a_1", "a_2", file_name("b/1")]
    assert sorted(files) == names
    for image, name in zip(result, names, strict=True):
        np.testing.assert_array_equal((image * 255).round().permute(1, 2, 0).numpy(), files[name])
        torch.testing.assert_close(image, torch.from_numpy(files[name]).permute(2, 0, 1).to(dtype) / 255)
    assert (budget.distance(result, images) <= budget.eps + 1e-6).all()
    assert (budget.distance(result, images) >= (eps - 1) / 255).all()


def test_each_value_goes_towards_the_original(tmp_path):
    images, labels = (
        torch.full((1, 3, 1, 4), 100.4 / 255, dtype=torch.float64),
        torch.zeros((1, 1, 4), dtype=torch.int64),
    )

    class Fixed:
        spec = "fixed"

        def __call__(self, network, images, labels, *, rng):
            return torch.tensor([103.6, 100.6, 97.2, 100.4], dtype=torch.float64).expand(1, 3, 1, 4) / 255

    saved = registry.build("perturbation", _spec(tmp_path, "sign(rms=0)"))
    saved.arguments["perturbation"] = Fixed()
    result = saved(SmallNetwork(), images, labels, rng=ImageRng(0, ["a"]))
    assert (result[0, 0, 0] * 255).round().tolist() == [103, 100, 98, 100]


def test_it_conforms(tmp_path):
    check_perturbation(_spec(tmp_path), budget="linf:8/255")


def test_perturbations_and_networks_have_folders_of_their_own(tmp_path):
    images, labels = _scene(torch.float64, True)
    rng = ImageRng(0, ["a", "b", "c"])
    for inner in ("pgd(budget='linf:2/255')", "pgd(budget='linf:4/255')", "sign(rms='2/255')"):
        for seed in (0, 1):
            registry.build("perturbation", _spec(tmp_path, inner))(SmallNetwork(seed=seed), images, labels, rng=rng)
    assert len(list(tmp_path.iterdir())) == 6
    assert len(list(tmp_path.rglob("*.png"))) == 18


class _Few(Dataset):
    """Three labelled images."""

    def __init__(self):
        from robustseg.core.types import Sample
        from robustseg.testing import gray_space

        images, labels = _scene(torch.float32, False)
        self.spec, self.label_space, self.ids = "few", gray_space(4), ("a_1", "a_2", "a_3")
        self.samples = [Sample(i, y, n) for i, y, n in zip(images, labels, self.ids, strict=True)]

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.samples[index]


def test_a_record_says_what_is_left_when_the_files_are_read_back(tmp_path):
    network = SmallNetwork().float()
    record = evaluate(network, _Few(), registry.build("perturbation", _spec(tmp_path)))
    (place,) = tmp_path.iterdir()
    right = 0
    for sample in _Few().samples:
        picture = torch.from_numpy(np.array(Image.open(place / f"{sample.id}.png"))).permute(2, 0, 1)[None] / 255
        right += int((network.predict(picture) == sample.labels).sum())
    assert record.counts.tp.sum() == right
    assert max(record.scores["linf"]) <= 8 / 255 + 1e-6


def test_a_folder_that_cannot_be_made_is_said():
    images, labels = _scene(torch.float64, True)
    with pytest.raises(RobustsegError, match="expected to make the folder"):
        registry.build("perturbation", _spec("/dev/null/x"))(SmallNetwork(), images, labels, rng=ImageRng(0, "abc"))
