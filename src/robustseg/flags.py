"""What makes a number doubtful, looked at on one image of each network that is measured.

* `random_output`: the same images gave other logits the second time; a gradient then needs averaging over draws.
* `probabilities`: the outputs are probabilities instead of logits; their cross-entropy gradient vanishes early.
* `not_finite`: some logits are NaN or infinite.
* `zero_gradients`: the share of image values whose loss gradient is exactly 0, where above 5 %: an attack that follows
  gradients is then weaker than it looks. True where no gradient flows at all.

`robustseg.evaluation` adds `not_clipped` (the spec asks for a variant that leaves [0, 1]) and `no_labels` (no pixel of the
data is labelled). False is "looked at and fine".
"""

import torch
from torch import Tensor

from robustseg.losses import cross_entropy
from robustseg.records import IGNORE, ShapeError
from robustseg.types import Images, Labels, Network, frozen


def doubts(network: Network, images: Images, labels: Labels) -> dict[str, bool | float]:
    """Look at a network; three passes and one back.

    Args:
        network: left as it was. images: `[b, 3, h, w]` in [0, 1]. labels: `[b, h, w]`, void 255.

    Returns:
        Flag -> value, see the head of this file.

    Raises:
        ShapeError: the logits are not at the size of the images.
    """
    with frozen(network):
        with torch.no_grad():
            first, second = network(images), network(images)
        if first.shape[:1] + first.shape[2:] != labels.shape:
            raise ShapeError(
                f"expected logits of {network.spec} at the input size {tuple(labels.shape)}, got {tuple(first.shape)}; "
                "try robustseg.adapt, which brings logits to the input size"
            )
        sums = first.sum(1)
        bounded = bool(first.min() >= 0 and first.max() <= 1)
        change = (first - second).abs().amax()
        # void pixels take the prediction: that they have no label says nothing of the network
        known = labels.where(labels != IGNORE, first.argmax(1))
        return {
            "random_output": bool(change > 1e-4 * first.abs().amax().clamp_min(1e-12)),
            "probabilities": bounded and torch.allclose(sums, torch.ones_like(sums), atol=1e-3),
            "not_finite": not bool(torch.isfinite(first).all()),
            "zero_gradients": _zero_gradients(network, images, known),
        }


def _zero_gradients(network: Network, images: Tensor, labels: Tensor) -> float | bool:
    leaf = images.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        loss = cross_entropy(network, leaf, labels).sum()
    if not loss.requires_grad:
        return True
    (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True)
    if gradient is None:
        return True
    share = float((gradient == 0).double().mean())
    return share if share > 0.05 else False
