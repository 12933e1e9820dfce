"""Input transformations: what the network inside sees, the gradients that attacks get, and what a naive attack is worth."""

import functools
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import gaussian_blur

from robustseg import api
from robustseg.audit import audit, costs, subjects
from robustseg.core.errors import ShapeError, SpecError
from robustseg.core.random import ImageRng
from robustseg.core.types import Batch, Network
from robustseg.evaluation.probes import gradient_of, look
from robustseg.evaluation.run import evaluate
from robustseg.losses.pixelwise import cross_entropy
from robustseg.monitor.triplet import Triplet
from robustseg.networks.fast import fast
from robustseg.networks.fronts import BitDepth, Front, GaussianBlur, Jpeg, Median, ResizeAndPad
from robustseg.networks.smooth_jpeg import smooth_jpeg, smooth_round
from robustseg.networks.weights import load, save
from robustseg.results.record import read_records
from robustseg.testing import PixelNetwork, SmallNetwork, check_network, gray_space

GENERATOR = torch.Generator().manual_seed(3)
IMAGES = torch.rand((2, 3, 16, 24), generator=GENERATOR, dtype=torch.float64)
ALL = ("jpeg", "bit_depth", "gaussian_blur", "median", "resize_and_pad")


class Seen(Network):
    """Answers what it sees."""

    def __init__(self):
        super().__init__(gray_space(3), "seen")

    def forward(self, images):
        return images * 1


@functools.cache
def street():
    """As smooth as a photograph: 8-bit values, odd parts of blocks at two borders."""
    image = api.data("streets(scenes=1, frames=1, size='50x70')")[0].image[None]
    return (gaussian_blur(image, [5, 5]) * 255).round() / 255


def through_pillow(image, quality):
    file = io.BytesIO()
    levels = (image[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(levels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None].float(), Image.open(file).quantization


@pytest.mark.parametrize("quality", [20, 75, 95])
def test_jpeg_is_that_of_libjpeg_and_the_smooth_coding_is_within_a_gray_level_of_it(quality):
    image = street()
    expected, tables = through_pillow(image, quality)
    assert torch.equal((Jpeg(Seen(), quality=quality)(image) * 255).round(), expected)
    luma, chroma = (torch.tensor(tables[i], dtype=torch.float32).view(8, 8) for i in (0, 1))
    ours = smooth_jpeg(image, luma, chroma, exact=True) * 255
    assert (ours - expected).abs().mean() < 1
    lost = (image * 255 - expected).abs().mean()
    assert (ours - expected).abs().mean() < 0.5 * lost
    smooth = Jpeg(Seen(), quality=quality).soft()(image) * 255
    assert (smooth - expected).abs().mean() < lost


def test_what_rounds_has_no_gradient_and_its_stand_in_lets_it_through():
    labels = torch.zeros(2, 16, 24, dtype=torch.int64)
    for front in (Jpeg(SmallNetwork(), gradient="straight_through"), BitDepth(SmallNetwork(), bits=3)):
        leaf = IMAGES.clone().requires_grad_()
        logits = front.soft()(leaf)
        torch.testing.assert_close(logits, front(IMAGES))
        (straight,) = torch.autograd.grad(logits.square().sum(), leaf)
        seen = front.rounded(IMAGES).requires_grad_()
        (expected,) = torch.autograd.grad(front.network(seen).square().sum(), seen)
        torch.testing.assert_close(straight, expected)
        assert gradient_of(front, IMAGES, labels) is None
        assert look(front, Batch(IMAGES[:1], labels[:1], ("a",))).zero == 0
        assert front.soft().soft().softly
        assert not front.softly


def test_the_smooth_gradient_is_that_of_finite_differences():
    front = Jpeg(SmallNetwork(), quality=60).soft()
    leaf = (0.2 + 0.6 * IMAGES).requires_grad_()
    (gradient,) = torch.autograd.grad(front(leaf).square().sum(), leaf)
    step = 1e-8 * torch.randn(leaf.shape, generator=GENERATOR, dtype=torch.float64)
    with torch.no_grad():
        ahead, behind = (front(leaf + sign * step).square().sum() for sign in (1, -1))
    assert float((gradient * step).sum()) == pytest.approx(float(ahead - behind) / 2, rel=1e-4)


def test_the_cubic_stays_near_the_integer():
    x = torch.linspace(-3, 3, 1001, dtype=torch.float64).requires_grad_()
    y = smooth_round(x)
    assert (y - x.round()).abs().max() <= 0.125
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope, 3 * (x - x.round()).detach() ** 2)


@pytest.mark.parametrize("front", [GaussianBlur(Seen(), sigma=0.6), Median(Seen()), ResizeAndPad(Seen(), grow=0.3)])
def test_exact_fronts_have_the_exact_gradient(front):
    fixed = front.draw(ImageRng(0, ["a"]))
    assert torch.autograd.gradcheck(fixed, IMAGES[:1, :, :5, :6].clone().requires_grad_())


def test_blur_and_median_have_known_answers():
    flat, dot = torch.full((1, 3, 9, 9), 0.25), torch.zeros(1, 3, 9, 9)
    dot[..., 4, 4] = 1
    torch.testing.assert_close(GaussianBlur(Seen())(flat), flat)
    blurred = GaussianBlur(Seen(), sigma=1.0)(dot)
    assert float(blurred[0, 0, 4, 5] / blurred[0, 0, 4, 4]) == pytest.approx(np.exp(-0.5), rel=1e-4)
    assert torch.equal(Median(Seen())(dot), torch.zeros_like(dot))
    assert torch.equal(Median(Seen(), side=1)(dot), dot)
    assert BitDepth(Seen(), bits=1)(flat).eq(0).all()
    assert torch.equal(BitDepth(Seen(), bits=8)(street()), street())


def test_each_image_has_its_own_draw_and_the_same_one_twice():
    front = ResizeAndPad(SmallNetwork(), grow=0.5)
    once = front(IMAGES)
    assert torch.equal(front(IMAGES), once)
    torch.testing.assert_close(front(IMAGES[1:]), once[1:])
    moved = front(IMAGES + 1e-9)
    assert (moved - once).abs().max() > 1e-3
    first, again, other = (front.draw(ImageRng(seed, ("a", "b")))(IMAGES) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 1e-3
    with pytest.raises(ShapeError, match="expected the 2 images of the draw, got 1"):
        front.draw(ImageRng(0, ("a", "b")))(IMAGES[:1])
    assert torch.equal(ResizeAndPad(SmallNetwork(), grow=0.0)(IMAGES), SmallNetwork()(IMAGES))


def test_the_whole_image_lies_on_the_canvas():
    """A network of single pixels answers each pixel alone, so that only resizing moves its logits."""
    inside = PixelNetwork()
    flat = torch.full((2, 3, 12, 20), 0.5, dtype=torch.float64)
    for seed in range(5):
        drawn = ResizeAndPad(inside, grow=0.4).draw(ImageRng(seed, ("a", "b")))
        torch.testing.assert_close(drawn(flat), inside(flat))


@pytest.mark.parametrize("name", ALL)
def test_fronts_keep_the_contract_and_are_saved(name, tmp_path):
    network = api.network(f"{name}(erfnet(classes='camvid', width=0.25))")
    check_network(network, sizes=((24, 32), (25, 35)))
    images = IMAGES.float()
    torch.testing.assert_close(fast(network)(images), network(images), rtol=1e-3, atol=1e-4)
    save(network, tmp_path / "front.safetensors")
    again = load(tmp_path / "front.safetensors")
    assert again.architecture == network.architecture
    assert torch.equal(again(images), network(images))


@pytest.mark.parametrize(
    "spec",
    ["jpeg(INSIDE, quality=96)", "bit_depth(INSIDE, bits=9)", "gaussian_blur(INSIDE, sigma=0)", "median(INSIDE, side=2)",
     "resize_and_pad(INSIDE, grow=-0.1)"],
)  # fmt: skip
def test_arguments_out_of_range_are_refused(spec):
    with pytest.raises(SpecError, match=r"expected .* got .*; try"):
        api.network(spec.replace("INSIDE", "erfnet(width=0.25)"))


def test_a_vote_behind_a_front_shows_its_members_and_stand_in():
    triplet = Triplet(*(SmallNetwork(seed=seed) for seed in range(3)))
    front = Median(triplet)
    for ours, theirs in zip(front.members(IMAGES), triplet.members(front.transform(IMAGES)), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(front.soft()(IMAGES), triplet.soft()(front.transform(IMAGES)))
    assert isinstance(front.soft(), Front)


def test_a_front_helps_against_who_does_not_know_it_only_and_the_audit_says_so(tmp_path):
    data, attack = api.data("streets(scenes=1, frames=1, size='48x96')"), "pgd(budget='linf:2/255', steps=5)"
    inside, front = (api.network(spec) for spec in ("zoo:erfnet-streets", "gaussian_blur(zoo:erfnet-streets)"))
    evaluate(front, data, api.perturbation(attack), inside, folder=tmp_path, panels=0)
    assert [cost.perturbation for cost in costs(tmp_path)] == ["", attack]
    (said,) = [f for f in audit(tmp_path) if f.check == "adaptive"]
    assert said.status == "suspicious"
    assert said.numbers["control"] < 0.8 * said.numbers["attack"]
    assert "made on the network itself" in said.text
    assert "--source" in said.advice
    assert not said.masking
    evaluate(front, data, api.perturbation(attack), folder=tmp_path, panels=0)
    (subject,) = subjects(read_records(tmp_path))
    assert not subject.borrowed


@pytest.mark.parametrize(
    "front",
    [
        Jpeg(SmallNetwork()),
        Jpeg(SmallNetwork(), gradient="straight_through"),
        BitDepth(SmallNetwork()),
        ResizeAndPad(SmallNetwork()),
    ],
)
def test_adaptive_attacks_climb_what_rounds_and_what_draws(front):
    labels = front.predict(IMAGES)
    attack = api.perturbation("pgd(budget='linf:8/255', steps=4, draws=2)")
    rng = ImageRng(0, ("a", "b"))
    moved = attack(front, IMAGES, labels, rng=rng)
    assert torch.equal(moved, attack(front, IMAGES, labels, rng=ImageRng(0, ("a", "b"))))
    with torch.no_grad():
        before, after = (cross_entropy(front, images, labels) for images in (IMAGES, moved))
    assert (after > before).all()
