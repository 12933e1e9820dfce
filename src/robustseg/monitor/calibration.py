"""What monitors are fitted to: the suspicion of clean images, and the condition under which a fitted rate holds."""

import numpy as np
import torch

from robustseg.core.errors import RobustsegError
from robustseg.core.types import Assessment, Dataset, Monitor, Network, device_of, dtype_of, frozen
from robustseg.datasets.views import batches


def suspicions(network: Network, data: Dataset, *, batch_size: int = 4) -> dict[str, np.ndarray]:
    """The suspicion of each image by name (`Assessment.suspicion`), float64 `[n]` each; larger is more suspicious.

    Args:
        network: a monitor; its device and precision are used. data: images of its label space; their labels are not used.
        batch_size: images at a time.

    Raises:
        LabelSpaceMismatch: network and data do not share one label space. RobustsegError: the network is no monitor, or
            a member failed on an image.
    """
    if not isinstance(network, Monitor):
        raise RobustsegError(f"expected a monitor, got {network.spec}; try triplet(…) or edges(…)")
    network.label_space.require_same(data.label_space, mine=network.spec, theirs=data.spec)
    parts: list[Assessment] = []
    with frozen(network), torch.inference_mode():
        for batch in batches(data, batch_size):
            part = network.watch(batch.images.to(device_of(network), dtype_of(network)))
            for key, failed in zip(batch.ids, part.failed, strict=True):
                if failed:
                    raise RobustsegError(
                        f"expected finite answers for '{key}', got none of the {', '.join(failed)} of {network.spec}; "
                        "try measuring that network alone"
                    )
            parts.append(part)
    names = parts[0].suspicion if parts else ()
    return {name: np.concatenate([p.suspicion[name].double().cpu().numpy() for p in parts]) for name in names}


def condition_of(data: Dataset) -> str:
    """The condition under which thresholds fitted on these images keep their rate, as a spec can carry it."""
    return f"images exchangeable with {len(data)} of {data.spec}".replace('"', "'")
