"""One network at several sizes: a single scale is a branch, the fusion is per pixel, and branches attack each other."""

import pytest
import torch
import torch.nn.functional as F

from robustseg import api
from robustseg.core.errors import SpecError
from robustseg.core.random import ImageRng
from robustseg.core.types import Dataset, Sample
from robustseg.evaluation.run import evaluate
from robustseg.monitor.triplet import Triplet
from robustseg.networks.fast import fast
from robustseg.networks.multiscale import MultiScale
from robustseg.networks.passes import counted
from robustseg.networks.weights import load, save
from robustseg.testing import SmallNetwork, check_network, gray_space

IMAGES = torch.rand((2, 3, 16, 24), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
ERFNET = "erfnet(classes='camvid', width=0.25)"


class Pictures(Dataset):
    """Two random images with random labels."""

    spec, label_space, ids = "pictures", gray_space(4), ("a_0", "a_1")

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        labels = torch.randint(4, (16, 24), generator=torch.Generator().manual_seed(index))
        return Sample(IMAGES[index].float(), labels, self.ids[index])


def _branch(network, scale):
    small = F.interpolate(IMAGES, scale_factor=scale, mode="bilinear", align_corners=False)
    return F.interpolate(network(small), IMAGES.shape[-2:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("fusion", ["max", "mean"])
def test_the_scale_one_is_the_network_itself(small_network, fusion):
    whole = MultiScale(small_network, scales=(1.0,), fusion=fusion)
    assert torch.equal(whole(IMAGES), small_network(IMAGES))


def test_branches_are_fused_pixel_by_pixel(small_network):
    half, full = _branch(small_network, 0.5), small_network(IMAGES)
    torch.testing.assert_close(MultiScale(small_network, scales=(0.5,))(IMAGES), half)
    torch.testing.assert_close(MultiScale(small_network, scales=(0.5, 1))(IMAGES), torch.maximum(half, full))
    mean = MultiScale(small_network, scales=(0.5, 1), fusion="mean")
    torch.testing.assert_close(mean(IMAGES), (half + full) / 2)


def test_it_keeps_the_contract_and_its_fast_copy_agrees(small_network):
    check_network(MultiScale(small_network))
    network = api.network(f"multiscale({ERFNET})")
    check_network(network, sizes=((32, 48), (33, 45)))
    images = IMAGES.float()
    torch.testing.assert_close(fast(network)(images), network(images), rtol=1e-3, atol=1e-4)


def test_no_scales_and_other_fusions_are_refused(small_network):
    for arguments in ({"scales": ()}, {"scales": (1.0, 0.0)}, {"scales": (float("nan"),)}):
        with pytest.raises(SpecError, match="expected scales above 0"):
            MultiScale(small_network, **arguments)
    with pytest.raises(SpecError, match="'max', 'mean'"):
        api.network(f"multiscale({ERFNET}, fusion='median')")


def test_gradients_of_all_branches_reach_the_shared_weights():
    network = MultiScale(SmallNetwork(), scales=(0.5, 1.0), fusion="mean")
    network(IMAGES).square().sum().backward()
    whole = network.network.layers[0].weight.grad.clone()
    network.zero_grad()
    one = MultiScale(network.network, scales=(0.5,))
    half = (one(IMAGES) * network(IMAGES).detach()).sum()
    full = (network.network(IMAGES) * network(IMAGES).detach()).sum()
    (half + full).backward()
    torch.testing.assert_close(network.network.layers[0].weight.grad, whole)


def test_it_carries_spec_files_and_weights_of_the_network_inside(tmp_path):
    inner = api.network(ERFNET)
    save(inner, tmp_path / "inner.safetensors")
    path = str(tmp_path / "inner.safetensors")
    outer = api.network(f"multiscale(weights({path!r}))")
    assert outer.spec == f"multiscale(network=weights({path!r}))"
    assert outer.architecture == f"multiscale(network={inner.spec}, scales=(0.5, 0.75, 1.0), fusion='max')"
    assert [file.name for file in outer.files] == ["inner.safetensors"]
    assert api.network(MultiScale(inner, scales=(0.5,)).spec).scales == (0.5,)
    save(outer, tmp_path / "outer.safetensors")
    images = IMAGES.float()
    assert torch.equal(load(tmp_path / "outer.safetensors")(images), outer(images))


def test_branches_and_the_whole_attack_each_other():
    """The matrix of scales: made on one branch, measured on all, without any code of its own."""
    data, attack = Pictures(), api.perturbation("fgsm(budget='linf:8/255')")
    inner = SmallNetwork().float()
    networks = [MultiScale(inner, scales=scales).eval() for scales in ((0.5,), (1.0,), (0.5, 1.0))]
    matrix = [evaluate(networks, data, attack, source) for source in networks]
    assert [[r.network for r in row] for row in matrix] == [[n.spec for n in networks]] * 3
    assert [row[0].source for row in matrix] == [n.spec for n in networks]
    assert all(record.scores["linf"][0] > 0 for row in matrix for record in row)
    own = evaluate(networks[0], data, attack)
    assert own.counts.tp.tolist() == matrix[0][0].counts.tp.tolist()


def test_around_a_vote_its_stand_in_and_draws_go_inside():
    triplet = Triplet(*(SmallNetwork(seed=seed) for seed in range(3)))
    outer = MultiScale(triplet, scales=(1.0,)).eval()
    assert torch.equal(outer.soft()(IMAGES), triplet.soft()(IMAGES))
    assert outer.network is triplet
    assert outer.draw(ImageRng(0, ("a", "b"))) is outer
    plain = MultiScale(SmallNetwork())
    assert plain.soft() is plain


def test_a_pass_counts_once_for_each_scale(small_network):
    network = MultiScale(small_network, scales=(0.5, 1.0))
    with counted([network]) as passes:
        network(IMAGES)
    assert passes.forwards == 4
