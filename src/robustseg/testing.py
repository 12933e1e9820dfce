"""The public conformance kit: what every perturbation, network and data set must do, checked and said in one sentence.

For packages that add their own: call the check of their kind in a test. A violation raises `ConformanceError`.

    check_perturbation("mine(budget='linf:8/255')", still="mine(budget='linf:0')")
    check_network(MyNetwork(...))
    check_monitor(MyNetwork(...))
    check_dataset(MyData(root))

The small networks here are what the checks run on; they are exact in float64 and useful in other tests.
"""

from collections.abc import Sequence, Sized
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robustseg.core import registry
from robustseg.core.budget import Budget
from robustseg.core.labels import IGNORE, LabelSpace
from robustseg.core.random import ImageRng
from robustseg.core.types import Dataset, Monitor, Network, Perturbation, device_of, dtype_of, frozen


class ConformanceError(AssertionError):
    """A contract of `robustseg.core.types` is not kept; the text says which and by how much."""


def _require(kept: bool, sentence: str) -> None:
    if not kept:
        raise ConformanceError(sentence)


def gray_space(classes: int = 4) -> LabelSpace:
    """Classes named a, b, c, ... in grays."""
    return LabelSpace(
        tuple("abcdefghijklmnopqrstuvwxyz"[:classes]), tuple((9 * i, 9 * i, 9 * i) for i in range(classes))
    )


class PixelNetwork(Network):
    """One 1x1 convolution: linear in each pixel, so the smallest change that flips a pixel is a formula."""

    def __init__(self, classes: int = 4, seed: int = 0):
        super().__init__(gray_space(classes), f"pixel({classes}, {seed})")
        self.convolution = nn.Conv2d(3, classes, 1)
        _draw_parameters(self, seed)
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[b, k, h, w]`."""
        return self.convolution(images)


class SmallNetwork(Network):
    """Two convolutions with batch normalisation, dropout and a stride: all that modes and neighbours can spoil."""

    def __init__(self, classes: int = 4, seed: int = 0):
        super().__init__(gray_space(classes), f"small({classes}, {seed})")
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.ConvTranspose2d(8, classes, 2, stride=2),
        )
        _draw_parameters(self, seed)
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[b, k, h, w]`; an odd size is padded and cut again."""
        height, width = images.shape[-2:]
        return self.layers(images)[..., :height, :width]


def _draw_parameters(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (1.0 if parameter.ndim > 1 else 0.3))


class _Scene(NamedTuple):
    """What a perturbation is tried on."""

    images: Tensor
    labels: Tensor
    ids: tuple[str, ...]


def _scene(network: Network, dtype: torch.dtype, size: tuple[int, int] = (10, 14), count: int = 3) -> _Scene:
    # Values within 0.2 .. 0.8, right half brighter, a band of void, and one image of void only.
    generator = torch.Generator().manual_seed(7)
    images = 0.2 + 0.6 * torch.rand((count, 3, *size), generator=generator, dtype=torch.float64)
    labels = torch.randint(len(network.label_space), (count, *size), generator=generator)
    labels[:, :2] = IGNORE
    labels[-1] = IGNORE
    return _Scene(images.to(dtype), labels, tuple(f"frame_{i}" for i in range(count)))


def check_perturbation(
    perturbation: Perturbation | str,
    *,
    still: Perturbation | str | None = None,
    budget: Budget | str | None = None,
    network: Network | None = None,
) -> None:
    """Check the contract of `types.Perturbation`.

    The same shape, dtype and device; finite, within [0, 1] and the budget; network, images and labels untouched in
    value, gradient and mode, also when the caller forbids gradients; the same rng, the same result; the result of an
    image does not depend on its batch (exactly, in float64); what lies under void changes nothing elsewhere on a
    network that sees single pixels; an empty batch stays empty; at strength zero the input comes back bit for bit.

    Args:
        perturbation: or its spec.
        still: the same perturbation at strength zero; None leaves that check out.
        budget: to hold it to; None takes the perturbation's own, if it states one.
        network: float64, to run against in place of `SmallNetwork()`.

    Raises:
        ConformanceError: a check failed.
    """
    perturbation = _built(perturbation)
    _require(bool(getattr(perturbation, "spec", "")), f"expected a spec that rebuilds {perturbation!r}, got none")
    if budget is None:
        budget = getattr(perturbation, "arguments", {}).get("budget")
    network = network or SmallNetwork()
    budget = None if budget is None else Budget.parse(budget)
    scene = _scene(network, torch.float64)
    _check_result(perturbation, network, scene, budget)
    _check_float32(perturbation, budget)
    _check_untouched(perturbation, network, scene)
    _check_repeatable(perturbation, network, scene)
    _check_void(perturbation)
    _check_empty(perturbation, network)
    if still is not None:
        result = _run(_built(still), network, scene)
        _require(torch.equal(result, scene.images), f"expected {_name(still)} to return the input, got a change")


def _built(perturbation: Perturbation | str) -> Perturbation:
    return registry.build("perturbation", perturbation) if isinstance(perturbation, str) else perturbation


def _name(perturbation: Perturbation | str) -> str:
    return perturbation if isinstance(perturbation, str) else perturbation.spec


def _run(perturbation: Perturbation, network: Network, scene: _Scene, seed: int = 3) -> Tensor:
    return perturbation(network, scene.images, scene.labels, rng=ImageRng(seed, scene.ids))


def _check_result(perturbation: Perturbation, network: Network, scene: _Scene, budget: Budget | None) -> None:
    name, images = perturbation.spec, scene.images
    result = _run(perturbation, network, scene)
    for what in ("shape", "dtype", "device"):
        before, after = getattr(images, what), getattr(result, what)
        _require(before == after, f"expected {name} to keep the {what} {before}, got {after}")
    _require(not result.requires_grad, f"expected {name} to return images without a graph, got requires_grad")
    _require(bool(result.isfinite().all()), f"expected {name} to return finite images, got NaN or infinity")
    low, high = float(result.min()), float(result.max())
    _require(low >= 0 and high <= 1, f"expected {name} to stay within [0, 1], got {low} to {high}")
    if budget is not None:
        most = float(budget.distance(result, images).max())
        _require(
            most <= budget.eps * (1 + 1e-5) + 1e-6, f"expected {name} within {budget.spec}, got {most * 255:g}/255"
        )


def _check_float32(perturbation: Perturbation, budget: Budget | None) -> None:
    network = SmallNetwork().float()
    _check_result(perturbation, network, _scene(network, torch.float32), budget)


def _check_untouched(perturbation: Perturbation, network: Network, scene: _Scene) -> None:
    name = perturbation.spec
    state = {key: value.clone() for key, value in network.state_dict().items()}
    images, labels = scene.images.clone(), scene.labels.clone()
    flags = [p.requires_grad for p in network.parameters()]
    modes = [m.training for m in network.modules()]
    for training in (True, False):
        network.train(training)
        result = _run(perturbation, network, scene)
        _require(
            all(m.training == training for m in network.modules()), f"expected {name} to leave the mode, got a switch"
        )
        with torch.inference_mode():
            within = _run(perturbation, network, scene)
        _require(
            torch.equal(result, within), f"expected {name} to ignore the caller's gradient mode, got another result"
        )
    for module, mode in zip(network.modules(), modes, strict=True):
        module.training = mode
    _require(torch.equal(images, scene.images), f"expected {name} to leave the images, got them changed")
    _require(torch.equal(labels, scene.labels), f"expected {name} to leave the labels, got them changed")
    for key, value in network.state_dict().items():
        _require(torch.equal(state[key], value), f"expected {name} to leave the network, got '{key}' changed")
    for (key, parameter), flag in zip(network.named_parameters(), flags, strict=True):
        _require(parameter.grad is None, f"expected {name} to leave no gradient, got one in '{key}'")
        _require(parameter.requires_grad == flag, f"expected {name} to leave requires_grad, got '{key}' switched")
    _require(
        scene.images.grad is None and not scene.images.requires_grad,
        f"expected {name} to leave no gradient, got one in the images",
    )


def _check_repeatable(perturbation: Perturbation, network: Network, scene: _Scene) -> None:
    name = perturbation.spec
    result = _run(perturbation, network, scene)
    _require(
        torch.equal(result, _run(perturbation, network, scene)), f"expected {name} to repeat itself, got two results"
    )
    for i in range(len(scene.ids)):
        one = _Scene(scene.images[i : i + 1], scene.labels[i : i + 1], scene.ids[i : i + 1])
        alone = _run(perturbation, network, one)
        _require(
            torch.equal(alone, result[i : i + 1]),
            f"expected {name} to treat each image alone, got another result in a batch of one "
            f"(largest difference {float((alone - result[i : i + 1]).abs().max()):g})",
        )


def _check_void(perturbation: Perturbation) -> None:
    network = PixelNetwork()
    scene = _scene(network, torch.float64)
    void = (scene.labels == IGNORE).unsqueeze(1)
    other = scene._replace(images=torch.where(void, 1 - scene.images, scene.images))
    # What a perturbation does by a statistic of the whole image (a matched share, say) may differ; which way it moves
    # a labelled pixel may not, and an attack may not differ at all.
    first, second = (_run(perturbation, network, s) for s in (scene, other))
    if getattr(perturbation, "sees_network", True):
        _require(
            bool(torch.where(void, 0, first - second).abs().max() < 1e-9),
            f"expected {perturbation.spec} to ignore what lies under void, got other changes at labelled pixels",
        )


def _check_empty(perturbation: Perturbation, network: Network) -> None:
    scene = _scene(network, torch.float64)
    empty = _Scene(scene.images[:0], scene.labels[:0], ())
    result = _run(perturbation, network, empty)
    _require(
        result.shape == empty.images.shape,
        f"expected {perturbation.spec} to return an empty batch, got {tuple(result.shape)}",
    )


def check_network(
    network: Network, *, sizes: Sequence[tuple[int, int]] = ((64, 96), (65, 97)), tolerance: float = 1e-4
) -> None:
    """Check the contract of `types.Network`, in evaluation mode and float32 or float64 as its parameters are.

    Logits `[b, k, h, w]`, or more channels after the k classes, at the size and dtype of the images, one tensor, finite; images and state untouched; the same
    twice; an image's logits do not depend on its batch (to `tolerance`); `predict` is the argmax; a gradient reaches
    the images, that of `soft()` where the network decides hard.

    Args:
        network: left in the mode it came in.
        sizes: heights and widths to try.
        tolerance: on logits between batch sizes, relative to their largest.

    Raises:
        ConformanceError: a check failed.
    """
    name, classes = network.spec, len(network.label_space)
    dtype, device = dtype_of(network), device_of(network)
    modes = [m.training for m in network.modules()]
    network.eval()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    try:
        for size in sizes:
            images = torch.rand((2, 3, *size), generator=_generator(), dtype=dtype).to(device)
            _check_forward(network, name, classes, images, tolerance)
    finally:
        for module, mode in zip(network.modules(), modes, strict=True):
            module.training = mode
    for key, value in network.state_dict().items():
        _require(
            torch.equal(state[key], value), f"expected {name} to keep its state in evaluation, got '{key}' changed"
        )


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def _check_forward(network: Network, name: str, classes: int, images: Tensor, tolerance: float) -> None:
    before = images.clone()
    leaf = images.clone().requires_grad_()
    logits = network(leaf)
    _require(isinstance(logits, Tensor), f"expected one tensor of logits from {name}, got {type(logits).__name__}")
    b, _, h, w = images.shape
    _require(
        logits.ndim == 4 and logits.shape[1] >= classes and (len(logits), *logits.shape[2:]) == (b, h, w),
        f"expected logits [{b}, {classes} or more, {h}, {w}] from {name}, got {tuple(logits.shape)}",
    )
    _require(logits.dtype == images.dtype, f"expected {images.dtype} logits from {name}, got {logits.dtype}")
    _require(bool(logits.isfinite().all()), f"expected finite logits from {name}, got NaN or infinity")
    guide = network.soft()
    felt = logits if guide is network else guide(leaf)
    if felt.requires_grad:
        (gradient,) = torch.autograd.grad(felt.square().mean(), leaf)
        _require(bool(gradient.isfinite().all()), f"expected a finite gradient through {name}, got NaN or infinity")
        _require(bool((gradient != 0).any()), f"expected a gradient through {name}, got zero")
    logits = logits.detach()
    with torch.no_grad():
        again, alone = network(images), network(images[:1])
        _require(
            torch.equal(network.predict(images), again.argmax(1)),
            f"expected predict of {name} to be the argmax of its logits",
        )
    _require(torch.equal(images, before), f"expected {name} to leave the images, got them changed")
    scale = float(again.abs().max()) or 1.0
    _require(
        bool((again - logits).abs().max() <= tolerance * scale), f"expected {name} to repeat itself, got other logits"
    )
    apart = float((again[:1] - alone).abs().max())
    _require(
        apart <= tolerance * scale, f"expected {name} to label each image alone, got logits {apart:g} apart in a batch"
    )


def check_monitor(network: Network, *, size: tuple[int, int] = (64, 96)) -> None:
    """Check the contract of `types.Monitor`, beside `check_network`.

    An `Assessment` has one entry an image; its labels are those of `predict`; its scores are those of `score`; suspicion
    is finite and does not depend on the batch of an image; disagreement lies within [0, 1]. Of several members, one that
    gives NaN or raises is named, and the others go on.

    Args:
        network: left in the mode it came in. size: of the images to try.

    Raises:
        ConformanceError: a check failed.
    """
    check_network(network, sizes=(size,))
    name, count = network.spec, 3
    images = torch.rand((count, 3, *size), generator=_generator(), dtype=dtype_of(network)).to(device_of(network))
    with frozen(network), torch.no_grad():
        if not isinstance(network, Monitor):
            raise ConformanceError(
                f"expected watch(images), score(images) and fit(data) of {name}, got not all of them"
            )
        found = network.watch(images)
        entries: dict[str, Sized] = {
            "attacked": found.attacked,
            "scores": found.scores,
            "failed": found.failed,
            **found.suspicion,
        }
        for entry, each in entries.items():
            _require(len(each) == count, f"expected {count} entries of {entry} from {name}, got {len(each)}")
        _require(
            torch.equal(found.labels, network.predict(images)),
            f"expected the labels of {name}'s assessment to be those that it predicts, got others",
        )
        _require(
            torch.equal(found.scores, network.score(images)),
            f"expected score of {name} to give the scores of its assessment, got others",
        )
        low, high = float(found.disagreement.min()), float(found.disagreement.max())
        _require(low >= 0 and high <= 1, f"expected disagreement of {name} within [0, 1], got {low:g} to {high:g}")
        _require(not any(found.failed), f"expected no failed member of {name}, got {found.failed}")
        for entry, values in found.suspicion.items():
            _require(
                bool(values.isfinite().all()), f"expected finite suspicion of {name}, got {entry} {values.tolist()}"
            )
            alone = torch.cat([network.watch(images[i : i + 1]).suspicion[entry] for i in range(count)])
            apart = float((alone - values).abs().max())
            _require(apart <= 1e-4, f"expected {name} to judge each image alone, got {entry} {apart:g} apart")
        members = {member: part for member, part in network.named_children() if isinstance(part, Network)}
        for member, part in members.items() if len(members) > 1 else ():
            _check_failing(network, images, member, part, name)


def _check_failing(monitor: Monitor, images: Tensor, member: str, part: Network, name: str) -> None:
    def lost(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return torch.full_like(output, torch.nan)

    def raising(module: nn.Module, inputs: Any, output: Tensor) -> None:
        raise RuntimeError("a member that fails")

    for fault, hook in (("gives NaN", lost), ("raises", raising)):
        handle = part.register_forward_hook(hook)
        try:
            found = monitor.watch(images)
        finally:
            handle.remove()
        _require(
            all(tuple(failed) == (member,) for failed in found.failed),
            f"expected {name} to say that its {member} {fault}, got {found.failed}",
        )
        _require(not found.alarm.any(), f"expected no alarm of {name} where its {member} {fault}, got one")
        _require(
            bool((found.labels != IGNORE).all()), f"expected labels of {name} though its {member} {fault}, got void"
        )


def check_dataset(dataset: Dataset, *, samples: int = 3) -> None:
    """Check the contract of `core.types.Dataset` on a few samples spread over the set.

    Ids are unique, one a sample; images float32 `[3, h, w]` in [0, 1]; labels int64 `[h, w]`, train ids or 255; read
    twice a sample is the same, and so is its fingerprint; extras are tensors of the image's size where they are maps.

    Args:
        dataset: to check. samples: how many to read, first and last among them.

    Raises:
        ConformanceError: a check failed.
    """
    name, count = dataset.spec, len(dataset)
    _require(bool(name), f"expected a spec that rebuilds {dataset!r}, got none")
    _require(count > 0, f"expected samples in {name}, got none")
    _require(
        len(dataset.ids) == count, f"expected one id a sample in {name}, got {len(dataset.ids)} for {count} samples"
    )
    _require(
        len(set(dataset.ids)) == count, f"expected unique ids in {name}, got {count - len(set(dataset.ids))} twice"
    )
    for index in sorted({round(i * (count - 1) / max(1, samples - 1)) for i in range(samples)}):
        sample, again = dataset[index], dataset[index]
        _require(
            sample.id == dataset.ids[index],
            f"expected sample {index} of {name} to be '{dataset.ids[index]}', got '{sample.id}'",
        )
        _check_sample(sample, len(dataset.label_space), f"'{sample.id}' of {name}")
        same = torch.equal(sample.image, again.image) and torch.equal(sample.labels, again.labels)
        _require(same, f"expected the same sample twice, got two versions of '{sample.id}' of {name}")
        marks = dataset.fingerprint(index), dataset.fingerprint(index)
        _require(
            marks[0] == marks[1], f"expected one fingerprint of '{sample.id}' of {name}, got {marks[0]}, {marks[1]}"
        )


def _check_sample(sample: Any, classes: int, name: str) -> None:
    image, labels = sample.image, sample.labels
    _require(
        image.dtype == torch.float32 and image.ndim == 3 and image.shape[0] == 3,
        f"expected a float32 image [3, h, w] in {name}, got {image.dtype} {tuple(image.shape)}",
    )
    low, high = float(image.min()), float(image.max())
    _require(low >= 0 and high <= 1, f"expected an image in [0, 1] in {name}, got {low} to {high}")
    _require(
        labels.dtype == torch.int64 and labels.shape == image.shape[1:],
        f"expected int64 labels {tuple(image.shape[1:])} in {name}, got {labels.dtype} {tuple(labels.shape)}",
    )
    foreign = labels[((labels < 0) | (labels >= classes)) & (labels != IGNORE)]
    _require(
        foreign.numel() == 0,
        f"expected labels 0 to {classes - 1} or {IGNORE} in {name}, got {int(foreign[0]) if foreign.numel() else ''}",
    )
    for key, value in sample.extras.items():
        _require(
            isinstance(value, Tensor), f"expected tensors as extras in {name}, got {type(value).__name__} as '{key}'"
        )
