"""Batch norm over the whole batch of several processes, on any device, so that two processes train like one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from robustseg.core.errors import RobustsegError


@contextmanager
def enough_values(images: int) -> Iterator[None]:
    """Within: a batch norm that sees one value a channel, and so no variance, is explained.

    Args:
        images: of the batch in this process.

    Raises:
        RobustsegError: a batch norm saw one value a channel.
    """
    try:
        yield
    except ValueError as error:  # torch's own, or that of a boundary around it
        if "more than 1 value per channel" not in str(error):
            raise
        raise RobustsegError(
            f"expected batches with several values a channel for batch norm, got {images} image a batch "
            f"({error.__cause__ or error}); try a batch size of at least 2"
        ) from error


class _Sum(torch.autograd.Function):
    """The sum over all processes; a gradient that reaches it in one process concerns the summand of each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` whose batch statistics are those of all processes.

    PyTorch's own `SyncBatchNorm` needs a GPU. This one sums `[count, sum, sum of squares]` over the processes, once
    forward and once back.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`[b, c, h, w]` to the same shape."""
        if not self.training:
            return super().forward(x)
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        count = torch.full((1,), x.numel() / x.shape[1], dtype=wide.dtype, device=x.device)
        sums = _Sum.apply(torch.cat([count, wide.sum((0, 2, 3)), (wide * wide).sum((0, 2, 3))]))
        total, squares = sums[1:].chunk(2)
        mean = total / sums[0]
        variance = (squares / sums[0] - mean * mean).clamp_min(0)
        self._remember(mean.detach(), variance.detach(), sums[0].detach())
        scale = self.weight * (variance + self.eps).rsqrt()
        return (wide * scale.view(1, -1, 1, 1) + (self.bias - mean * scale).view(1, -1, 1, 1)).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        tracked, running_mean, running_var = self.num_batches_tracked, self.running_mean, self.running_var
        if tracked is None or running_mean is None or running_var is None:
            return
        tracked += 1
        share = self.momentum if self.momentum is not None else 1 / float(tracked)
        running_mean.lerp_(mean.to(running_mean.dtype), share)
        unbiased = variance * count / (count - 1).clamp_min(1)
        running_var.lerp_(unbiased.to(running_var.dtype), share)


def sync_batch_norm(module: nn.Module) -> nn.Module:
    """Turn every `BatchNorm2d` inside, in place, into one that sees all processes; parameters stay the same ones."""
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = SyncedBatchNorm2d
    return module
