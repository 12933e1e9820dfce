"""Anybody's module as a network: colour order, value range, normalisation and sizes inside, one tensor of logits out.

`adapt` wraps an `nn.Module`, `module` does it for a spec, `check_against` compares with the owner's own pipeline and
`guess_input` finds out by labels which input a module was trained on.
"""

import copy
import importlib
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from robustseg.core.code import keep_sources, note
from robustseg.core.errors import LabelSpaceMismatch, RobustsegError, ShapeError, SpecError, users_code
from robustseg.core.labels import IGNORE, LabelSpace
from robustseg.core.levels import to_8bit
from robustseg.core.registry import network
from robustseg.core.spaces import Classes, classes_text, label_space
from robustseg.core.types import Images, Logits, Network, Sample, device_of, dtype_of, frozen
from robustseg.datasets.views import require_size, resize_images
from robustseg.networks.checkpoints import load_state
from robustseg.results.metrics import count, miou
from robustseg.results.record import Counts

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of RGB images in [0, 1], as most pretrained encoders expect them."""


@dataclass(frozen=True)
class Input:
    """What a module expects, and where its logits are; applied in this order: size, colour order, range, mean, std.

    Args:
        mean, std: three numbers each, in the module's colour order and value range; None is 0 and 1.
        bgr: the module wants blue first.
        scale: the module's white; 1 for [0, 1], 255 for 0..255.
        input_size: (height, width) that images are resized to (`datasets.views.resize_images`); logits are resized
            back.
        antialias: images are smoothed where `input_size` makes them smaller, as `--size` and Pillow do; False is
            plain bilinear, as `F.interpolate` and OpenCV do.
        divisor: images are padded at the right and bottom, by repeating the border, to a multiple of it.
        others: outputs after those of the classes, for void or anything else.
        output: the key or index of the logits where the module gives several tensors; None finds them.
    """

    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    bgr: bool = False
    scale: float = 1.0
    input_size: Sequence[int] | None = None
    antialias: bool = True
    divisor: int | None = None
    others: int = 0
    output: str | int | None = None

    def __post_init__(self) -> None:
        for name, length in (("mean", 3), ("std", 3), ("input_size", 2)):
            values = getattr(self, name)
            if values is None:
                continue
            if not isinstance(values, Sequence) or len(values) != length or not all(map(_finite, values)):
                example = (512, 1024) if length == 2 else IMAGENET_MEAN
                raise SpecError(f"expected {length} numbers as {name}, got {values!r}; try {name}={example}")
            object.__setattr__(self, name, tuple(values))
        if self.std is not None and min(self.std) <= 0:
            raise SpecError(f"expected std above 0, got {self.std}; try std={IMAGENET_STD}")
        if not 0 < self.scale < math.inf:
            raise SpecError(f"expected a scale above 0, got {self.scale}; try 1 for [0, 1] or 255 for 0..255")
        if self.input_size is not None:
            require_size(self.input_size)
        if (self.divisor is not None and not 1 <= self.divisor <= 4096) or not 0 <= self.others <= 255:
            raise SpecError(
                f"expected divisor from 1 to 4096 and others from 0 to 255, got {self.divisor} and {self.others}; "
                "try divisor=32"
            )

    @property
    def text(self) -> str:
        """The arguments that are not the default, as a spec or a call says them."""
        mine = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default]
        return ", ".join(f"{name}={value!r}" for name, value in mine)


FITTING = (
    "a module that takes float32 RGB images [b, 3, h, w] on its own device, with input_size=(height, width) where it "
    "takes one size only, or divisor=32 where its strides must divide the size"
)
"""What to try where a module does not take the images."""


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


class Adapted(Network):
    """A module behind the contract of `Network`; see `adapt`.

    Args:
        module: images in its own form in, logits of any size out.
        label_space: the classes of its outputs. expects: the form. spec: the text that rebuilds it.
    """

    def __init__(self, module: nn.Module, label_space: LabelSpace, expects: Input, spec: str = "adapt"):
        super().__init__(label_space, spec)
        self.module = module
        self.expects = expects

    def forward(self, images: Images) -> Logits:
        """Logits `[b, k + others, h, w]` at the size of the images."""
        prepared = self.prepare(images)
        with users_code(
            f"logits from {type(self.module).__name__} for {str(prepared.dtype).removeprefix('torch.')} images "
            f"{list(prepared.shape)} on {prepared.device}",
            FITTING,
        ):
            output = self.module(prepared)
        logits = logits_of(output, key=self.expects.output).to(images.dtype)
        channels = len(self.label_space) + self.expects.others
        if logits.shape[1] == 1 and channels == 2 and not self.expects.others:
            # A binary network: the softmax of (0, x) is the sigmoid of x.
            logits = torch.cat([torch.zeros_like(logits), logits], 1)
        if logits.shape[:2] != (len(images), channels):
            raise LabelSpaceMismatch(
                f"expected logits [{len(images)}, {channels}, h, w] for {len(self.label_space)} classes and "
                f"{self.expects.others} other outputs, got {tuple(logits.shape)}; "
                "try the classes that the module was trained on, or others=N for outputs such as void"
            )
        if self.expects.input_size is not None:
            return resized(logits, images.shape[-2:])
        return resized(logits, prepared.shape[-2:])[..., : images.shape[-2], : images.shape[-1]]

    def prepare(self, images: Images) -> Tensor:
        """The images in the form that the module expects, `[b, 3, h', w']`."""
        form, x = self.expects, images.clone()  # a module may write into its input
        if form.input_size is not None:
            x = resize_images(x, form.input_size, antialias=form.antialias)
        if form.divisor is not None:
            x = F.pad(x, (0, -x.shape[-1] % form.divisor, 0, -x.shape[-2] % form.divisor), mode="replicate")
        if form.bgr:
            x = x.flip(1)
        if form.scale != 1:
            x = x * form.scale
        if form.mean is not None:
            x = x - x.new_tensor(form.mean).view(3, 1, 1)
        if form.std is not None:
            x = x / x.new_tensor(form.std).view(3, 1, 1)
        return x

    def features(self, images: Images) -> dict[str, Tensor]:
        """What the direct children of the module give, by their names (`encoder.3` where one gives several)."""
        found: dict[str, Tensor] = {}
        handles = [
            child.register_forward_hook(lambda _module, _inputs, output, name=name: found.update(_maps(name, output)))
            for name, child in self.module.named_children()
        ]
        try:
            self.module(self.prepare(images))
        finally:
            for handle in handles:
                handle.remove()
        return found


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Logits or other maps `[b, c, h, w]` at another (height, width), bilinear; themselves where it is theirs.

    Images are resized by `datasets.views.resize_images`; what a network does to images as a part of its definition
    (a pyramid of scales, a random resize) is plain bilinear like this.
    """
    return resize_images(x, size, antialias=False)


def _maps(name: str, output: Any) -> dict[str, Tensor]:
    if isinstance(output, Tensor):
        return {name: output} if output.ndim == 4 else {}
    pairs = (
        output.items()
        if isinstance(output, Mapping)
        else enumerate(output)
        if isinstance(output, (list, tuple))
        else ()
    )
    return {full: x for key, value in pairs for full, x in _maps(f"{name}.{key}", value).items()}


def logits_of(output: Any, *, key: str | int | None = None) -> Tensor:
    """The logits in what a module gives back.

    Args:
        output: a tensor, a mapping with "out" or "logits", an object with `.logits`, or a tuple whose first is meant.
        key: the key or index of the logits, where it is another.

    Returns:
        Float logits `[b, k, h, w]`.

    Raises:
        RobustsegError: there are none.
    """
    found = output
    if key is not None:
        try:
            found = output[key]
        except (KeyError, IndexError, TypeError) as error:
            raise RobustsegError(
                f"expected an output {key!r}, got {_what(output)}; try the key of the logits"
            ) from error
    elif isinstance(output, Mapping):
        found = next((output[name] for name in ("out", "logits") if name in output), None)
    elif not isinstance(output, Tensor) and hasattr(output, "logits"):
        found = output.logits
    elif isinstance(output, (tuple, list)) and output:
        found = output[0]
    if not isinstance(found, Tensor) or found.ndim != 4 or not found.numel() or not found.is_floating_point():
        raise RobustsegError(
            "expected float logits [b, k, h, w] as a tensor, a dict with 'out' or 'logits', an object with .logits or "
            f"the first of a tuple, got {_what(output)}; try output='KEY', or a module that returns its logits"
        )
    return found


def _what(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a {output.dtype} tensor {tuple(output.shape)}"
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with {', '.join(map(repr, output)) or 'nothing'}"
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {len(output)} ({', '.join(_what(o) for o in output[:1])}, …)"
    return f"a {type(output).__name__}"


def adapt(
    module: nn.Module,
    *,
    label_space: LabelSpace,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    bgr: bool = False,
    scale: float = 1.0,
    input_size: Sequence[int] | None = None,
    antialias: bool = True,
    divisor: int | None = None,
    others: int = 0,
    output: str | int | None = None,
    reference: Callable[[np.ndarray], Any] | None = None,
    images: Images | None = None,
) -> Adapted:
    """A network from any module: `images in [0, 1] -> logits at their size`.

    Args:
        module: gives logits as a tensor, a dict with "out" or "logits", a tuple (the first) or an object with
            `.logits`; smaller logits are resized, bilinear, to the size of the images. One output for two classes is
            the logit of the second. A module in half precision is copied to float32.
        label_space: the classes of the outputs, in their order.
        mean, std, bgr, scale, input_size, antialias, divisor, others, output: see `Input`.
        reference, images: the owner's own pipeline and images in [0, 1] to hold the result against; see
            `check_against`.

    Raises:
        SpecError: an argument makes no sense. RobustsegError: the result is not what `reference` gives.
    """
    expects = Input(mean, std, bgr, scale, input_size, antialias, divisor, others, output)
    adapted = Adapted(_in_float32(module), label_space, expects, f"adapt({expects.text})" if expects.text else "adapt")
    if (reference is None) != (images is None):
        raise RobustsegError("expected both or neither of reference and images, got one; try images=batch.images")
    if reference is not None and images is not None:
        check_against(adapted, reference, images)
    return adapted


@network("module")
def module(
    source: str,
    *,
    classes: Classes,
    weights: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    bgr: bool = False,
    scale: float = 1.0,
    input_size: Sequence[int] | None = None,
    antialias: bool = True,
    divisor: int | None = None,
    others: int = 0,
    output: str | int | None = None,
) -> Adapted:
    """Your own module: `module('my_net:build', classes='camvid', mean=(…), std=(…))` imports and runs `my_net.py`.

    Args:
        source: `'package.module:function'`, imported from here or from what is installed; the function takes nothing
            and gives an `nn.Module` (a class of modules does too).
        classes: the name of a label space, class names or their number.
        weights: a state dict for the module, `.safetensors` or what `torch.save` wrote.
        mean, std, bgr, scale, input_size, antialias, divisor, others, output: see `Input`.

    Raises:
        SpecError: there is no such function, or it gives no module. RobustsegError: the weights do not fit.
    """
    expects = Input(mean, std, bgr, scale, input_size, antialias, divisor, others, output)
    space = label_space(classes)
    built, file = _imported(source)
    spec = f"module({', '.join(filter(None, (repr(source), f'classes={classes_text(space)}', expects.text)))})"
    adapted = Adapted(built, space, expects, spec)
    if file is not None:
        adapted.files, adapted.code = (file,), (source.partition(":")[0],)
    if weights is not None:
        load_state(built, weights)
        adapted.files = (*adapted.files, Path(weights))
    return adapted


def _in_float32(module: nn.Module) -> nn.Module:
    """The module, as a float32 copy where parts of it are in half precision: gradients need the digits."""
    halves = (torch.float16, torch.bfloat16)
    half = any(tensor.dtype in halves for tensor in (*module.parameters(), *module.buffers()))
    with torch.no_grad():  # so that a copy of a TorchScript module has parameters of its own
        return copy.deepcopy(module).float() if half else module


def _require_values(module: nn.Module, source: str) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta or isinstance(tensor, (UninitializedBuffer, UninitializedParameter)):
            raise RobustsegError(
                f"expected a module with all its values from '{source}', got '{name}' without any; try running lazy "
                "modules once, and moving them from the meta device, in that function"
            )


def _imported(source: str) -> tuple[nn.Module, Path | None]:
    name, colon, function = source.partition(":")
    if not (colon and name and function):
        raise SpecError(f"expected 'package.module:function', got '{source}'; try module('my_net:build', classes=…)")
    here = os.getcwd()
    sys.path.insert(0, here)  # what the user names lies where the user stands
    keep_sources()
    try:
        with users_code(f"a module '{name}' that Python can import", "from the folder that holds it", SpecError):
            found = importlib.import_module(name)
    finally:
        if here in sys.path:
            sys.path.remove(here)
    factory = getattr(found, function, None)
    if not callable(factory):
        known = [n for n, thing in vars(found).items() if callable(thing) and not n.startswith("_")]
        raise SpecError(f"expected a function '{function}' in '{name}', got none; try {', '.join(known) or 'another'}")
    with users_code(f"an nn.Module from '{source}'", "a function that takes no arguments and builds on the CPU"):
        built = factory()
        if isinstance(built, nn.Module):
            built = _in_float32(getattr(built, "_orig_mod", built))  # a compiled module computes what it was made of
    note(name)
    if not isinstance(built, nn.Module):
        raise SpecError(
            f"expected an nn.Module from '{source}', got a {type(built).__name__}; try returning the module"
        )
    _require_values(built, source)
    file = getattr(found, "__file__", None)
    return built, Path(file) if file else None


def check_against(
    network: Network, reference: Callable[[np.ndarray], Any], images: Images, *, share: float = 0.999
) -> float:
    """Hold a network against the owner's own pipeline.

    Args:
        network: what was adapted. images: `[b, 3, h, w]` in [0, 1]; both see them rounded to n/255.
        reference: uint8 RGB image `[h, w, 3]` -> label map `[h, w]` of integers.
        share: of pixels that must agree, over all images.

    Returns:
        The share of pixels on which both say the same.

    Raises:
        RobustsegError: fewer agree. ShapeError: the reference gives another size.
    """
    levels = to_8bit(images.to(device_of(network), dtype_of(network)))
    with torch.no_grad(), frozen(network):
        ours = torch.cat([network.predict(image[None].to(dtype_of(network)) / 255) for image in levels]).cpu().numpy()
    pixels = levels.permute(0, 2, 3, 1).cpu().numpy()
    theirs = [np.asarray(reference(image)) for image in pixels]
    if any(t.shape != ours.shape[1:] for t in theirs):
        raise ShapeError(
            f"expected label maps {ours.shape[1:]} from the reference, got {theirs[0].shape}; "
            "try resizing them to the size of the image by nearest"
        )
    agreement = float(np.mean((ours == np.stack(theirs)) & (ours != IGNORE)))  # no prediction agrees with nothing
    if agreement < share:
        raise RobustsegError(
            f"expected the same label as the reference on {share:.1%} of pixels, got {agreement:.1%}; "
            "try bgr, scale, mean and std (guess_input finds them by labels), and the order of the classes"
        )
    return agreement


class Guess(NamedTuple):
    """One input that a module may have been trained on, and what it gives on labelled images."""

    miou: float
    expects: Input
    name: str


def guess_input(network: Adapted, samples: Iterable[Sample]) -> list[Guess]:
    """Try colour orders and value ranges on labelled samples, best mIoU first.

    Sizes, other outputs and the place of the logits stay those of `network`.

    Args:
        network: what `adapt` gave; its own colour order and range do not matter.
        samples: a few labelled images of the module's own domain; three to ten are enough.

    Raises:
        RobustsegError: there are no samples.
    """
    counts: dict[tuple[str, Input], Counts] = {}
    forms = _forms(network.expects)
    classes = len(network.label_space)
    device, dtype = device_of(network), dtype_of(network)
    for sample in samples:
        for form in forms:
            tried = Adapted(network.module, network.label_space, form[1])
            with torch.no_grad(), frozen(tried):
                guess = tried.predict(sample.image[None].to(device, dtype)).cpu().numpy()
            more = count(sample.labels[None].cpu().numpy(), guess, [sample.id], classes)
            counts[form] = counts[form] + more if form in counts else more
    if not counts:
        raise RobustsegError("expected labelled samples, got none; try a data set with labels")
    guesses = [Guess(miou(c), form, name) for (name, form), c in counts.items()]
    return sorted(guesses, key=lambda guess: -1 if math.isnan(guess.miou) else guess.miou, reverse=True)


def _forms(like: Input) -> list[tuple[str, Input]]:
    half = (0.5, 0.5, 0.5)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    caffe = tuple(round(255 * m, 3) for m in mean)
    ranges: list[tuple[str, float, Sequence[float] | None, Sequence[float] | None]] = [
        ("in [0, 1]", 1.0, None, None),
        ("in [-1, 1]", 1.0, half, half),
        ("with ImageNet mean and std", 1.0, mean, std),
        ("in 0..255", 255.0, None, None),
        ("in 0..255 less ImageNet mean", 255.0, caffe, None),
    ]
    return [
        (
            f"{'BGR' if bgr else 'RGB'} {name}",
            replace(like, bgr=bgr, scale=scale, mean=_turned(m, bgr), std=_turned(s, bgr)),
        )
        for name, scale, m, s in ranges
        for bgr in (False, True)
    ]


def _turned(values: Sequence[float] | None, bgr: bool) -> Sequence[float] | None:
    return tuple(reversed(values)) if values is not None and bgr else values
