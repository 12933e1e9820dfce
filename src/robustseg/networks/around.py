"""Networks made of networks: their spec names the parts, and a copy with a change keeps everything else.

Such a network is named by one spec, `multiscale(zoo:x)`, and attacked, measured, trained and saved like any other. To
attack only a part of it, name that part as the `source` of `evaluate`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from robustseg.core.random import ImageRng
from robustseg.core.types import Images, Network

AnyComposed = TypeVar("AnyComposed", bound="Composed")


class Composed(Network):
    """A network made of networks of one label space; it shares its parts and copies none of them.

    Args:
        name: the name that builds it in a spec. parts: the networks inside, by the names of its arguments.
        settings: the other arguments that its spec names, in order.

    Raises:
        LabelSpaceMismatch: the parts do not share one label space.
    """

    unspoken: ClassVar[Mapping[str, Any]] = {}
    """Settings that the spec leaves out where they have this value."""

    def __init__(self, name: str, parts: Mapping[str, Network], **settings: Any):
        super().__init__(next(iter(parts.values())).label_space)
        self.name, self.settings, self._inside = name, settings, tuple(parts)
        for part, network in parts.items():
            setattr(self, part, network)
        self._require_one_label_space()
        self.spec, self.architecture = self._text("spec"), self._text("architecture")
        self.files = tuple(dict.fromkeys(file for network in parts.values() for file in network.files))
        self.code = tuple(dict.fromkeys(name for network in parts.values() for name in network.code))

    @property
    def parts(self) -> dict[str, Network]:
        """The networks inside, by name."""
        return {name: getattr(self, name) for name in self._inside}

    def with_(self: AnyComposed, **changes: Any) -> AnyComposed:
        """See `Network.with_`; a change that the spec names is written into the spec."""
        other = super().with_(**changes)
        if other is self:
            return self
        other.settings = {name: changes.get(name, value) for name, value in self.settings.items()}
        other._require_one_label_space()
        for of in ("spec", "architecture"):
            text = other._text(of)
            if of not in changes and text != self._text(of):
                setattr(other, of, text)
        return other

    def draw(self, rng: ImageRng) -> Network:
        """The same network made of one draw of each part."""
        return self.with_(**{name: part.draw(rng) for name, part in self.parts.items()})

    def soft(self) -> Network:
        """The same network made of the differentiable stand-ins of its parts."""
        return self.with_(**{name: part.soft() for name, part in self.parts.items()})

    def _text(self, of: str) -> str:
        texts = [f"{name}={getattr(part, of)}" for name, part in self.parts.items()]
        for name, value in self.settings.items():
            if name not in self.unspoken or self.unspoken[name] != value:
                texts.append(f"{name}={value!r}")
        return f"{self.name}({', '.join(texts)})"

    def _require_one_label_space(self) -> None:
        for part in self.parts.values():
            self.label_space.require_same(part.label_space, mine=next(iter(self.parts.values())).spec, theirs=part.spec)


class Around(Composed):
    """A network around one other network.

    Args:
        network: the network inside. name, settings: see `Composed`.
    """

    network: Network

    def __init__(self, network: Network, name: str, **settings: Any):
        super().__init__(name, {"network": network}, **settings)

    def features(self, images: Images) -> dict[str, Tensor]:
        """The features that the network inside computes for these images, unchanged."""
        return self.network.features(images)
