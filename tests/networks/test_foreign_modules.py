"""Modules of users: what can work works, and whatever one raises is one sentence with its own message."""

import sys
import warnings

import pytest
import torch
from torch import nn

from robustseg.core.errors import RobustsegError
from robustseg.core.random import ImageRng
from robustseg.core.registry import build
from robustseg.core.spaces import label_space
from robustseg.core.types import Dataset, Sample, gradient_in
from robustseg.evaluation.run import evaluate
from robustseg.networks.adapters import adapt
from robustseg.networks.fast import fast
from robustseg.testing import gray_space

COLOURS = label_space(("red", "green", "blue"))


def brightest(classes=3, channels=3):
    c = nn.Conv2d(channels, classes, 1, bias=False)
    with torch.no_grad():
        c.weight.zero_()
        for i in range(min(classes, channels)):
            c.weight[i, i] = 10.0
    return c


class Doing(nn.Module):
    """A module that does what a test says with its images."""

    def __init__(self, does, classes=3):
        super().__init__()
        self.layer, self.does = brightest(classes), does

    def forward(self, x):
        return self.does(self.layer, x)


@pytest.fixture
def images():
    return torch.rand((2, 3, 12, 16), generator=torch.Generator().manual_seed(0))


def raising(error):
    def does(layer, x):
        raise error

    return does


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (raising(AssertionError("need 64x128")), "AssertionError: need 64x128; try a module that takes float32 RGB"),
        (raising(KeyError("missing")), "KeyError: 'missing'"),
        (raising(StopIteration()), "StopIteration; try"),
        (raising(MemoryError("no")), "MemoryError: no; try a smaller --size or --batch-size"),
        (raising(ValueError("a\nTraceback (most recent call last):\n  x\nboom")), "ValueError: boom; try"),
        (raising(SystemExit(3)), "SystemExit: 3"),
        (lambda layer, x: layer(x.double()), "expected scalar type"),
        (lambda layer, x: layer(x[:, :1]), "expected input.* to have 3 channels, but got 1 channels"),
        (lambda layer, x: layer(x, 3), "takes 2 positional arguments but 3 were given"),
        (lambda layer, x: layer(x)[0], r"float logits \[b, k, h, w\]"),
        (lambda layer, x: layer(x)[:, :, :0], r"float logits \[b, k, h, w\]"),
        (lambda layer, x: layer(x).permute(0, 2, 3, 1), r"expected logits \[2, 3, h, w\]"),
        (lambda layer, x: layer(x)[:1], r"expected logits \[2, 3, h, w\]"),
        (lambda layer, x: x.new_zeros(1) + torch.zeros(1, device="meta") + layer(x), "RuntimeError: .*device"),
    ],
)
def test_what_a_module_raises_or_gives_wrong_is_one_sentence(does, said, images):
    for network in (adapt(Doing(does), label_space=COLOURS), fast(adapt(Doing(does), label_space=COLOURS))):
        with pytest.raises(RobustsegError, match=said) as caught:
            network(images)
        assert "\n" not in str(caught.value)
        assert "Traceback" not in str(caught.value)


def test_an_interrupt_is_no_fault_of_the_module(images):
    with pytest.raises(KeyboardInterrupt):
        adapt(Doing(raising(KeyboardInterrupt())), label_space=COLOURS)(images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_the_users_module_stays(dtype, images):
    module = brightest().to(dtype)
    network = adapt(module, label_space=COLOURS)
    assert torch.equal(network(images), adapt(brightest(), label_space=COLOURS)(images))
    assert module.weight.dtype == dtype
    given = adapt(Doing(lambda layer, x: layer(x).to(dtype)), label_space=COLOURS)(images)
    assert given.dtype == torch.float32


def test_one_logit_of_two_classes_is_that_of_the_second(images):
    module = nn.Conv2d(3, 1, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([10.0, -10.0, 0.0]).view(1, 3, 1, 1))
    network = adapt(module, label_space=label_space(("background", "object")))
    logits = network(images)
    assert torch.equal(logits[:, :1], torch.zeros_like(logits[:, :1]))
    torch.testing.assert_close(logits.softmax(1)[:, 1:], module(images).sigmoid())
    labels = (module(images)[:, 0] > 0).long()
    assert torch.equal(network.predict(images), labels)
    attacked = build("perturbation", "pgd(budget='linf:64/255', steps=5)")(
        network, images, labels, rng=ImageRng(0, ("a", "b"))
    )
    assert (network.predict(attacked) == labels).float().mean() < 0.7
    with pytest.raises(RobustsegError, match=r"expected logits \[2, 3, h, w\]"):
        adapt(module, label_space=COLOURS)(images)
    with pytest.raises(RobustsegError, match=r"expected logits \[2, 3, h, w\]"):
        adapt(module, label_space=label_space(("background", "object")), others=1)(images)


def test_a_module_that_writes_into_its_input_leaves_the_images(images):
    before = images.clone()
    adapt(Doing(lambda layer, x: layer(x.sub_(0.5))), label_space=COLOURS)(images)
    assert torch.equal(images, before)


class Broken(torch.autograd.Function):
    """A function whose backward pass is not written."""

    @staticmethod
    def forward(_ctx, x):
        return x.clone()

    @staticmethod
    def backward(_ctx, _gradient):
        raise RuntimeError("no backward here")


def test_a_backward_pass_that_raises_is_one_sentence(images):
    network = adapt(Doing(lambda layer, x: layer(Broken.apply(x))), label_space=COLOURS)
    leaf = images.requires_grad_()
    with pytest.raises(RobustsegError, match="gradient in the images, got RuntimeError: no backward here; try"):
        gradient_in(network(leaf), leaf)


def test_clean_images_are_measured_without_a_backward_pass(tmp_path):
    network = adapt(Doing(lambda layer, x: layer(Broken.apply(x)), classes=4), label_space=gray_space(4))
    record = evaluate(network, Noise(), folder=tmp_path)
    assert record.flags["zero_gradients"] is True
    with pytest.raises(RobustsegError, match="no backward here"):
        evaluate(network, Noise(), build("perturbation", "fgsm(budget='linf:8/255')"))


def test_a_sigmoid_of_one_logit_is_flagged():
    two = label_space(("background", "object"))
    network = adapt(Doing(lambda layer, x: layer(x)[:, :1].sigmoid(), classes=1), label_space=two)
    assert evaluate(network, Noise(two)).flags["probabilities"]


class Noise(Dataset):
    """Two images of noise whose labels are all 0."""

    spec, ids = "noise", ("a", "b")

    def __init__(self, space=None):
        self.label_space = space or gray_space(4)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return Sample(torch.rand((3, 12, 16), generator=generator), torch.zeros(12, 16).long(), self.ids[index])


FACTORIES = """
import sys
import torch
from torch import nn

def make():
    layer = nn.Conv2d(3, 3, 1, bias=False)
    nn.init.dirac_(layer.weight)
    return layer
def needs(k): return make()
def raises(): raise ValueError("no config")
def leaves(): sys.exit(3)
def meta(): return make().to("meta")
def lazy(): return nn.LazyConv2d(3, 1)
def listed(): return [make()]
def half(): return make().half()
def scripted(): return torch.jit.script(make())
def compiled(): return torch.compile(make())
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "factories_for_test.py").write_text(FACTORIES)
    (tmp_path / "raises_for_test.py").write_text("raise NameError('nobody')")
    (tmp_path / "leaves_for_test.py").write_text("import sys\nsys.exit('usage: train.py')")
    (tmp_path / "torn_for_test.py").write_text("def x(:")
    monkeypatch.chdir(tmp_path)
    yield lambda source: build("network", f"module('{source}', classes=3)").eval()
    for name in ("factories_for_test", "raises_for_test", "leaves_for_test", "torn_for_test"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "factories_for_test:needs",
            r"TypeError: needs\(\) missing 1 required positional argument: 'k'; try a function",
        ),
        ("factories_for_test:raises", "ValueError: no config"),
        ("factories_for_test:leaves", "SystemExit: 3"),
        ("factories_for_test:meta", "'weight' without any; try"),
        ("factories_for_test:lazy", "'weight' without any; try"),
        ("factories_for_test:listed", "got a list; try returning the module"),
        ("raises_for_test:make", "that Python can import, got NameError: nobody"),
        ("leaves_for_test:make", "that Python can import, got SystemExit: usage: train.py"),
        ("torn_for_test:make", "that Python can import, got SyntaxError"),
        (".:make", "that Python can import, got TypeError"),
    ],
)
def test_factories_that_give_no_network_are_one_sentence(source, said, own):
    path = list(sys.path)
    with pytest.raises(RobustsegError, match=said):
        own(source)
    assert sys.path == path


@pytest.mark.parametrize("name", ["half", "scripted", "compiled"])
def test_modules_of_all_kinds_are_measured_and_attacked(name, own, images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = own(f"factories_for_test:{name}")
        labels = network.predict(images)
        attack = build("perturbation", "pgd(budget='linf:32/255', steps=3)")
        attacked = attack(fast(network), images, labels, rng=ImageRng(0, ("a", "b")))
    assert not torch.equal(network.predict(attacked), labels)
