"""Random numbers that do not depend on batch size, order or device: one stream an image."""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robustseg.core.errors import ShapeError


class ImageRng:
    """One stream of random numbers per image, keyed on (seed, purpose, image id) and never on strength.

    Draws are made on the CPU in float32, image by image, so they do not depend on batch size, order or device, and
    two strengths of one perturbation see the same draws (paired curves). A draw moves every stream on.

    Args:
        seed: of the whole run.
        ids: one key an image.
        purpose: keeps streams of different uses apart; see `fork`.
    """

    def __init__(self, seed: int, ids: Sequence[str], purpose: str = ""):
        self.seed, self.ids, self.purpose = seed, tuple(ids), purpose
        self._streams = [self._stream(key) for key in self.ids]

    def _stream(self, key: str) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed}|{self.purpose}|{key}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)

    def __len__(self) -> int:
        return len(self.ids)

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Uniform in [0, 1), `[b, *shape]` with dtype and device of `like`."""
        return self._draw(torch.rand, shape, like).to(like)

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Standard normal, `[b, *shape]` with dtype and device of `like`."""
        return self._draw(torch.randn, shape, like).to(like)

    def sign(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """-1 or +1, each half of the time, `[b, *shape]` with dtype and device of `like`."""
        return self._draw(torch.rand, shape, like).lt(0.5).to(like) * 2 - 1

    def _draw(self, draw: Callable[..., Tensor], shape: Sequence[int], like: Tensor) -> Tensor:
        if len(self) != len(like):
            raise ShapeError(f"expected one stream an image, got {len(self)} streams for {len(like)} images")
        draws = [draw(tuple(shape), generator=stream) for stream in self._streams]
        return torch.stack(draws) if draws else draw((0, *shape))

    def fork(self, purpose: str) -> "ImageRng":
        """Fresh streams of the same images for another purpose; what was drawn so far does not matter."""
        return ImageRng(self.seed, self.ids, f"{self.purpose}/{purpose}")

    def select(self, indices: Sequence[int]) -> "ImageRng":
        """The streams of some images, shared with this one: a draw there is a draw here."""
        chosen = ImageRng(self.seed, (), self.purpose)
        chosen.ids = tuple(self.ids[i] for i in indices)
        chosen._streams = [self._streams[i] for i in indices]
        return chosen

    def repeat(self, restarts: int) -> "ImageRng":
        """Fresh streams for each restart, restart-major: image i of restart r is entry `r * b + i`."""
        ids = [f"{key}#{r}" if r else key for r in range(restarts) for key in self.ids]
        return ImageRng(self.seed, ids, self.purpose)
