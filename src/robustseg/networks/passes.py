"""How many images went through networks, forward and back: what an attack or a training costs on any machine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from robustseg.core.types import Network
from robustseg.networks.around import Composed


class Passes:
    """How many images went through the networks, forward and back."""

    def __init__(self) -> None:
        self.forwards = 0
        self.backwards = 0


@contextmanager
def counted(networks: Sequence[Network]) -> Iterator[Passes]:
    """Count the passes of each network within, one for each image; of one made of networks, the passes of these."""
    passes = Passes()

    def backward(gradient: Tensor) -> None:
        passes.backwards += len(gradient)

    def forward(module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
        passes.forwards += len(output)
        if output.requires_grad:
            output.register_hook(backward)

    parts = {id(part): part for network in networks for part in _parts(network)}
    handles = [part.register_forward_hook(forward) for part in parts.values()]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def _parts(network: Network) -> list[Network]:
    """The networks that a network is made of, which no pass leaves out; any other network is its own part."""
    if not isinstance(network, Composed):
        return [network]
    return [part for child in network.children() if isinstance(child, Network) for part in _parts(child)]
