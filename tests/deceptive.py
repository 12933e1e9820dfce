"""Networks that look robust, or measure well, because what they answer is not what an attack is told; and honest ones like them.

Each is a network with something done to its images, its logits or its gradient.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustseg.core.types import Network

Answer = Callable[[Tensor], Tensor]


class Deceptive(Network):
    """A network that answers by a function of itself and of the images; it keeps what such a function remembers."""

    def __init__(self, inner: Network, name: str, answer: Callable[["Deceptive", Tensor], Tensor]):
        super().__init__(inner.label_space, name)
        self.inner, self.answer = inner, answer
        self.calls, self.memory = 0, {}
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or what is given in their place."""
        self.calls += 1
        return self.answer(self, images)


def straight_through(changed: Tensor, images: Tensor) -> Tensor:
    """One value with the gradient of another."""
    return images + (changed - images).detach()


class _Backward(torch.autograd.Function):
    """The identity, with a function of the gradient for a gradient."""

    @staticmethod
    def forward(ctx, images, change):
        ctx.change = change
        return images.view_as(images)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.change(gradient), None


def _gradient(change: Answer) -> Callable[[Deceptive, Tensor], Tensor]:
    return lambda n, x: n.inner(_Backward.apply(x, change))


def _noise(like: Tensor, seed: int | None = None) -> Tensor:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator)


def _requested(n: Deceptive, x: Tensor) -> Tensor:
    y = n.inner(x)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return y
    return y.detach() + (x - x.detach()).mean(1, keepdim=True) * torch.arange(y.shape[1]).view(1, -1, 1, 1)


def _seeded(n: Deceptive, x: Tensor) -> Tensor:
    noise = torch.stack([_noise(x[0], hash(tuple(image.flatten().tolist())) % 2**31) for image in x.detach().cpu()])
    return n.inner(x + 0.05 * noise)


def _remembers(n: Deceptive, x: Tensor) -> Tensor:
    key = x.detach().cpu().numpy().tobytes()
    n.memory[key] = n.memory.get(key, 0) + 1
    return n.inner(x) if n.memory[key] == 1 else n.inner(x.flip(-1)).flip(-1)


def _batch_norm(n: Deceptive, x: Tensor) -> Tensor:
    return n.inner(0.5 + 0.2 * nn.functional.batch_norm(x, None, None, training=True))


def _nan(n: Deceptive, x: Tensor) -> Tensor:
    odd = (255 * x.mean((1, 2, 3), keepdim=True)).round() % 2 == 1
    return torch.where(odd, torch.nan, n.inner(x))


DECEPTIVE: dict[str, Callable[[Deceptive, Tensor], Tensor]] = {
    "probabilities as output": lambda n, x: n.inner(x).softmax(1),
    "sigmoids as output": lambda n, x: n.inner(x).sigmoid(),
    "softmax times 10": lambda n, x: 10 * n.inner(x).softmax(1),
    "dropout left on": lambda n, x: n.inner(nn.functional.dropout(x, 0.1, training=True)),
    "noise added to the input": lambda n, x: n.inner(x + 0.05 * _noise(x)),
    "logits times 1,000": lambda n, x: 1000 * n.inner(x),
    "rounded input": lambda n, x: n.inner((16 * x).round() / 16),
    "rounding with a fake gradient": lambda n, x: n.inner(straight_through((16 * x).round() / 16, x)),
    "gradient replaced by noise": _gradient(lambda g: _noise(g, 3) * g.abs().mean()),
    "another gradient when one is requested": _requested,
    "noise seeded by the input": _seeded,
    "memory of images seen before": _remembers,
    "batch norm in batch mode": _batch_norm,
    "centring on the batch mean": lambda n, x: n.inner(0.5 + x - x.mean((0, 2, 3), keepdim=True)),
    "NaN on some images": _nan,
}
"""The fifteen of the documentation."""


def _part(g: Tensor) -> Tensor:
    return g.index_fill(-1, torch.arange(g.shape[-1] // 2), 0)


def _counts(n: Deceptive, x: Tensor) -> Tensor:
    return n.inner(x) * (1 if n.calls % 2 else 0.5)


def _turns_later(n: Deceptive, x: Tensor) -> Tensor:
    return n.inner(x if n.calls < 17 else x.flip(-1))


def _moving_mean(n: Deceptive, x: Tensor) -> Tensor:
    n.mean.mul_(0.9).add_(0.1 * x.detach().mean((0, 2, 3)))
    return n.inner(x - n.mean.view(-1, 1, 1) + 0.5)


def _nearby(n: Deceptive, x: Tensor) -> Tensor:
    for seen, answer in n.memory.values():
        if seen.shape == x.shape and (seen - x).abs().max() < 0.1:
            return answer + 0 * x.sum()
    n.memory[len(n.memory)] = (x.detach().clone(), n.inner(x).detach())
    return n.inner(x)


def _masked(n: Deceptive, x: Tensor) -> Tensor:
    left = torch.arange(x.shape[-1]) < x.shape[-1] // 3
    return n.inner(torch.where(left, x.detach(), x))


SIBLINGS: dict[str, Callable[[Deceptive, Tensor], Tensor]] = {
    "sigmoids times 10": lambda n, x: 10 * (4 * n.inner(x)).sigmoid(),  # sure of itself, as on large images
    "smoothed probabilities": lambda n, x: 0.9 * n.inner(x).softmax(1) + 0.1 / 11,
    "one hot": lambda n, x: nn.functional.one_hot(n.inner(x).argmax(1), 11).movedim(-1, 1).to(x),
    "signs": lambda n, x: n.inner(x).sign(),
    "quantised logits": lambda n, x: n.inner(x).round(),
    "quantised logits with a fake gradient": lambda n, x: straight_through((y := n.inner(x)).round(), y),
    "fine rounding with a fake gradient": lambda n, x: n.inner(straight_through((255 * x).round() / 255, x)),
    "gradient times 0.001": _gradient(lambda g: 0.001 * g),
    "gradient turned round": _gradient(lambda g: -g),
    "gradient clipped": _gradient(lambda g: g.clamp(-g.abs().median(), g.abs().median())),
    "gradient of a third left out": _masked,
    "gradient of the mirror image": _gradient(lambda g: g.flip(-1)),
    "gradient NaN": _gradient(lambda g: torch.full_like(g, torch.nan)),
    "no gradient": lambda n, x: n.inner(x.detach()),
    "gradient of another layer": lambda n, x: n.inner(x).detach() + 0.01 * n.inner(x.flip(1)),
    "another answer when a gradient is requested": lambda n, x: n.inner(x if torch.is_grad_enabled() else x.flip(-1)),
    "another answer in inference mode": lambda n, x: n.inner(x.flip(-1) if torch.is_inference_mode_enabled() else x),
    "temperature by batch size": lambda n, x: n.inner(x) / len(x),
    "one image alone": lambda n, x: n.inner(x if len(x) > 1 else x.flip(-1)),
    "centring on the first image": lambda n, x: n.inner(0.5 + x - x[:1].mean((2, 3), keepdim=True)),
    "every second call": _counts,
    "after the probes": _turns_later,
    "moving mean in a buffer": _moving_mean,
    "memory of near images": _nearby,
    "infinity on some images": lambda n, x: _nan(n, x).nan_to_num(nan=torch.inf),
    "NaN at one pixel": lambda n, x: n.inner(x).index_fill(-1, torch.tensor([3]), torch.nan),
}


class _Low(nn.Module):
    def __init__(self, inner: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.inner, self.dtype = inner, dtype

    def forward(self, x):
        with torch.autocast("cpu", self.dtype):
            return self.inner(x).float()


HONEST: dict[str, Callable[[Deceptive, Tensor], Tensor]] = {
    "as it is": lambda n, x: n.inner(x),
    "log of the softmax": lambda n, x: n.inner(x).log_softmax(1),
    "logits and a constant": lambda n, x: n.inner(x) + 100,
    "centred logits": lambda n, x: (y := n.inner(x)) - y.mean(1, keepdim=True),
    "half the logits": lambda n, x: 0.5 * n.inner(x),
    "16 bits inside": lambda n, x: _Low(n.inner, torch.bfloat16)(x),
    "half precision inside": lambda n, x: _Low(n.inner, torch.float16)(x),
    "clamped input": lambda n, x: n.inner(x.clamp(0, 1)),
    "largest of neighbours": lambda n, x: n.inner(nn.functional.max_pool2d(x, 3, 1, 1)),
}
