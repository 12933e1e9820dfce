"""The memory that one attack step needs, judged on a small crop, so that a run that cannot fit is refused before it starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from robustseg.core.errors import RobustsegError
from robustseg.core.types import Images, Network, device_of, frozen

LARGE = 2_000_000
"""Pixels in a batch above which memory is judged; smaller batches need no more than a few GiB."""

REDUCTION = 8
"""The crop is this many times smaller than the image along each side."""

IN_FLIGHT = 1.35
"""What a pass holds at its peak over what it keeps for the gradient; 1.28 (ERFNet) to 1.37 (DeepLab v3) were measured."""


def attack_memory(network: Network, images: Images) -> int:
    """The bytes that a forward and a backward pass over a batch hold at once.

    Counts what a pass over a crop of the first image keeps for the gradient, and scales it by the number of pixels. What
    a network keeps whatever the size of its images makes the figure a little too large.

    Args:
        network: on its device.
        images: `[b, 3, h, w]`; only a crop is looked at.
    """
    height, width = (max(64, side // REDUCTION) for side in images.shape[-2:])
    crop = images[:1, :, :height, :width].detach().clone().requires_grad_()
    kept: dict[tuple[int, int], int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr(), storage.nbytes()] = storage.nbytes()
        return x

    with frozen(network), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        logits = network(crop)
        loss = logits.log_softmax(1).sum()
    gradients = 2 * logits.numel() * logits.element_size()  # of logits and loss, on the way back
    total = sum(kept.values()) + gradients
    del loss
    return round(IN_FLIGHT * total * images[:, 0].numel() / crop[:, 0].numel())


def free_memory(device: torch.device) -> int | None:
    """The bytes that a device can still give, None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


@contextmanager
def memory_checked(network: Network) -> Iterator[None]:
    """Within: a pass that needs a gradient is refused before it starts where it does not fit in memory.

    Batches of fewer than `LARGE` pixels are not looked at.

    Raises:
        RobustsegError: it does not fit, or the device ran out of memory all the same.
    """

    def check(_module: Any, inputs: tuple[Images]) -> None:
        images = inputs[0]
        if images.requires_grad and images[:, 0].numel() > LARGE:
            _require(network, images)

    handle = network.register_forward_pre_hook(check)
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RobustsegError(
            f"expected enough memory on {device_of(network)}, got '{str(error).splitlines()[0]}'; "
            "try --batch-size 1, or a smaller --size"
        ) from error
    finally:
        handle.remove()


def _require(network: Network, images: Images) -> None:
    free = free_memory(images.device)
    if free is None:
        return
    try:
        needed = attack_memory(network, images)
    except RobustsegError:  # a module that takes one size only, and no crop
        return
    if needed > free:
        height, width = images.shape[-2:]
        raise RobustsegError(
            f"expected {needed / 2**30:.1f} GiB of free memory for an attack step on a batch of {len(images)} at "
            f"{height}x{width}, got {free / 2**30:.1f} GiB; try --batch-size 1, or a smaller --size"
        )
