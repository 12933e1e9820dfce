"""A network around another: images go in, the one inside labels some form of them, logits of its classes come out.

It is named by one spec, `multiscale(zoo:x)`, and attacked, measured, trained and saved like any other. An attack on the network
inside, or on a part of the whole, is the `source` of `evaluate`.
"""

import copy
from typing import Any

from torch import Tensor

from robustseg.core.random import ImageRng
from robustseg.core.types import Images, Network


class Around(Network):
    """What networks around a network share: they carry its classes, its files and, within their own, its spec.

    Args:
        network: the one inside; it is kept and not copied.
        name: by which a spec builds the outer one. settings: its other arguments.
    """

    def __init__(self, network: Network, name: str, **settings: Any):
        super().__init__(network.label_space)
        self.network = network
        told = "".join(f", {key}={value!r}" for key, value in settings.items())
        self.spec, self.architecture = (f"{name}(network={s}{told})" for s in (network.spec, network.architecture))
        self.files = network.files

    def around(self, network: Network, **changes: Any) -> "Around":
        """The same around another network, or with some attributes changed; all else is shared, parameters too."""
        if network is self.network and not changes:
            return self
        other = copy.copy(self)
        other._modules = {**self._modules, "network": network}
        other.__dict__.update(changes)
        return other

    def features(self, images: Images) -> dict[str, Tensor]:
        """What the network inside computes of these images as they are."""
        return self.network.features(images)

    def draw(self, rng: ImageRng) -> Network:
        """The same around one draw of the network inside."""
        return self.around(self.network.draw(rng))

    def soft(self) -> Network:
        """The same around the stand-in of the network inside."""
        return self.around(self.network.soft())
