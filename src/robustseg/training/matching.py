"""What a network computes on its way, named; how far two networks are apart there, and how alike their answers are.

Source: Bär, Klingner, Varghese, Hüger, Schlicht, Fingscheidt, CVPR Workshops 2020, eq. 1 and 7.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustseg.core.errors import SpecError
from robustseg.core.types import Images, Logits, Network, PerImage, device_of, dtype_of, frozen
from robustseg.networks.layered import LayeredNetwork, Seen


def layers_of(student: Network, layers: Collection[str]) -> tuple[str, ...]:
    """The feature maps of a network that are meant, in its order, each once.

    Args:
        student: any network whose `features` are named.
        layers: `all`; `down` and `up` (all whose names are that and a number); `rest` (all others, the blocks of
            ERFNet); or names such as `down2`, `stage1.0`, and `stage1` for all blocks of that stage.

    Raises:
        SpecError: none is named, the network has no layer of a name, or none at all.
    """
    with frozen(student), torch.no_grad():
        there = list(student.features(torch.zeros(1, 3, 64, 64, dtype=dtype_of(student), device=device_of(student))))
    if not there:
        raise SpecError(f"expected a student with named features, got none in '{student.spec}'; try an erfnet or enet")
    resampling = {group: [n for n in there if _numbered(n, group)] for group in ("down", "up")}
    groups = {"all": there, **resampling, "rest": [n for n in there if not any(n in g for g in resampling.values())]}
    meant: set[str] = set()
    for layer in layers:
        found = groups.get(layer) or [n for n in there if n == layer or n.startswith(f"{layer}.")]
        if not found:
            raise SpecError(
                f"expected layers of '{student.spec}', got '{layer}'; try {', '.join(groups)}, or {', '.join(there)}"
            )
        meant.update(found)
    if not meant:
        raise SpecError("expected at least one layer, got none; try 'down2'")
    return tuple(n for n in there if n in meant)


def _numbered(name: str, group: str) -> bool:
    return name.startswith(group) and name[len(group) :].isdigit()


class Distances(NamedTuple):
    """Of each layer and image, `[layers, b]`: how far the features are apart, and how large the static ones are."""

    distance: Tensor
    size: Tensor


def feature_distances(adaptive: Mapping[str, Tensor], static: Mapping[str, Tensor], *, p: float = 1) -> Distances:
    """`||f_A - f_S||_p / (H W C)` and `||f_S||_p / (H W C)` of each layer of `static`, in its order, in float32."""
    apart = [_norm(adaptive[name].float() - f.float(), p) for name, f in static.items()]
    return Distances(torch.stack(apart), torch.stack([_norm(f.float(), p) for f in static.values()]))


def _norm(features: Tensor, p: float) -> PerImage:
    return torch.linalg.vector_norm(features.flatten(1), p, 1) / features[0].numel()


def inverse_feature_matching(distances: Tensor, *, beta: float = 0.5, gamma: float = 1) -> PerImage:
    """`(beta + mean over layers)^(-gamma)` of distances `[layers, b]`: beta^(-gamma) at the start, 0 far away.

    Source: Bär et al. 2020, eq. 7.
    """
    return (beta + distances.mean(0)) ** -gamma


def soft_cross_entropy(logits: Logits, teacher_logits: Tensor, *, classes: int) -> PerImage:
    """`-sum_s y_T log y_A`, mean over the pixels of each image; `y` are softmax outputs.

    The teacher's outputs after those of the classes are left out, and the student's are to vanish, so that the two
    networks need the same classes only.

    Args:
        logits: of the student, `[b, k, h, w]`. teacher_logits: `[b, k', h, w]`; k and k' may differ.
        classes: how many of the first outputs are classes.

    Source: Bär et al. 2020, eq. 1.
    """
    targets = F.pad(teacher_logits[:, :classes].softmax(1), (0, 0, 0, 0, 0, logits.shape[1] - classes))
    return F.cross_entropy(logits.contiguous(), targets.contiguous(), reduction="none").flatten(1).mean(1)


class Watched(nn.Module):
    """A network that gives logits and features at once, so that Fabric sees one forward."""

    def __init__(self, network: Network, names: tuple[str, ...]):
        super().__init__()
        self.network, self.names = network, names

    def forward(self, images: Images) -> Seen:
        """Logits, and the features of the names."""
        if isinstance(self.network, LayeredNetwork):
            return self.network.seen(images, self.names)
        return Seen(self.network(images), features_of(self.network, images, self.names))


def features_of(network: Network, images: Images, names: tuple[str, ...]) -> dict[str, Tensor]:
    """The features of these names, in this order; nothing after the last is computed where the network allows it."""
    if isinstance(network, LayeredNetwork):
        return network.features(images, names)
    found = network.features(images)
    return {name: found[name] for name in names}
