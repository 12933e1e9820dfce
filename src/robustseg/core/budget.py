"""The threat model as data: a norm, its epsilon, and the pixels that may change. No torch is loaded here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from robustseg.core.errors import SpecError, readable

if TYPE_CHECKING:
    from torch import Tensor
else:
    Tensor = Any


@dataclass(frozen=True)
class Budget:
    """How far a perturbation may go: a norm over one image, its size, and the pixels that may change.

    Args:
        norm: `linf` (largest change of a value) or `l2` (root of the summed squares over the image).
        eps: in units of images in [0, 1]; 0 is legal and changes nothing.
        region: bool `[h, w]` or `[b, h, w]`, True where pixels may change; None is everywhere.
    """

    norm: str
    eps: float
    region: Tensor | None = None

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise SpecError(f"expected the norm 'linf' or 'l2', got '{self.norm}'; try 'linf:8/255'")
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise SpecError(f"expected eps >= 0, got {self.eps}; try 'linf:8/255'")
        if self.norm == "linf" and self.eps > 1:
            raise SpecError(f"expected eps of 0 to 1, images being in [0, 1], got {self.eps:g}; try 'linf:8/255'")

    @classmethod
    def parse(cls, text: "str | Budget") -> "Budget":
        """`"linf:8/255"` or `"l2:2.5"`; a budget is returned as it is.

        Raises:
            SpecError: the text is not `norm:number` with a number or a fraction.
        """
        if isinstance(text, Budget):
            return text
        norm, colon, size = text.partition(":")
        if not colon:
            raise SpecError(f"expected 'norm:eps', got '{text}'; try 'linf:8/255'")
        return cls(norm.strip(), fraction(size))

    @property
    def spec(self) -> str:
        """The text that `parse` reads; eps is written n/255."""
        return f"{self.norm}:{as_255(self.eps)}"

    def project(self, images: Tensor, origin: Tensor) -> Tensor:
        """The nearest images `[b, 3, h, w]` within the budget around `origin` (not clipped to [0, 1])."""
        change = self.masked(images - origin)
        if self.norm == "linf":
            return origin + change.clamp(-self.eps, self.eps)
        size = change.flatten(1).norm(dim=1)
        shrink = (self.eps / size).nan_to_num(1.0).clamp_max(1)  # 0 / 0: nothing may change, and nothing did
        return origin + change * shrink.view(-1, 1, 1, 1)

    def masked(self, change: Tensor) -> Tensor:
        """A change `[b, 3, h, w]` with 0 at pixels outside the region."""
        if self.region is None:
            return change
        return change * self.region.to(change).expand(len(change), *change.shape[-2:]).unsqueeze(1)

    def select(self, indices: Sequence[int]) -> "Budget":
        """The budget of some images of a batch."""
        own = self.region is not None and self.region.ndim == 3 and len(self.region) > 1
        return replace(self, region=self.region[indices]) if self.region is not None and own else self

    def distance(self, images: Tensor, origin: Tensor) -> Tensor:
        """The size of the change of each image in this norm, `[b]`."""
        change = (images - origin).flatten(1)
        return change.abs().amax(1) if self.norm == "linf" else change.norm(dim=1)


def fraction(text: str | float) -> float:
    """`"8/255"`, `"0.5"` or a number, as a finite float.

    Raises:
        SpecError: it is neither.
    """
    try:
        top, _, bottom = text.partition("/") if isinstance(text, str) else (text, "", "")
        value = float(top) / float(bottom or 1)
        if not math.isfinite(value):
            raise ValueError("not finite")
        return value
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise SpecError(f"expected a number or a fraction, got '{readable(str(text), 80)}'; try '8/255'") from error


def as_255(value: float) -> str:
    """A size in [0, 1] written as n/255: 0.0313725 -> '8/255'."""
    return f"{value * 255:.6g}/255"
