"""The data set `streets`: frames by index, and neighbours of frames.

Everything is drawn from (seed, scene, frame): frames do not depend on each other, on the call order or on how many
are asked for. The classes are CamVid's eleven.
"""

import functools
import hashlib
import re
from pathlib import Path

from robustseg.core.errors import SpecError
from robustseg.core.provenance import sha256
from robustseg.core.registry import dataset
from robustseg.core.spaces import CAMVID
from robustseg.core.types import Dataset, Sample
from robustseg.datasets.streets.frame import render
from robustseg.datasets.streets.scene import street
from robustseg.datasets.views import require_size

SPLITS = {"train": (0, 8000), "val": (8000, 1000), "test": (9000, 1000)}
"""Split -> first scene and how many there are."""


@dataset("streets")
class Streets(Dataset):
    """Procedural street video rendered by ourselves, with labels, depth, poses and moving objects.

    Frame t of a scene is 0.1 s after frame t - 1. Extras of every sample: `depth [h, w]` (metres along the optical
    axis, sky `SKY_DEPTH`), `intrinsics [3, 3]`, `pose_next` and `pose_previous [4, 4]` (points of this camera to the
    neighbour's camera), `moving [h, w]` (bool); with `neighbours` also the images `next` and `previous [3, h, w]`.

    Args:
        seed: of the whole world.
        scenes, frames: how many scenes, and frames of each; more of either never changes those before.
        size: `'HxW'` or (h, w).
        split: `train`, `val` or `test`: different scenes.
        neighbours: whether samples carry the images of the frames before and after.
        step: how many frames before and after the neighbours are, and their poses with them. A step of 1, about half a
            metre, is too near to tell depth in small images: at 64x128 what is 20 metres away moves by less than a pixel.

    Raises:
        SpecError: an argument makes no sense.
    """

    label_space = CAMVID

    size: tuple[int, int]

    def __init__(
        self,
        *,
        seed: int = 0,
        scenes: int = 10,
        frames: int = 10,
        size: str | tuple[int, int] = "256x512",
        split: str = "test",
        neighbours: bool = False,
        step: int = 1,
    ):
        if split not in SPLITS:
            raise SpecError(f"expected the split train, val or test, got '{split}'; try streets(split='train')")
        first, most = SPLITS[split]
        if not 1 <= scenes <= most:
            raise SpecError(f"expected 1 to {most} scenes in {split}, got {scenes}; try streets(scenes=10)")
        if frames < 1 or seed < 0 or step < 1:
            raise SpecError(
                f"expected frames >= 1, seed >= 0 and step >= 1, got {frames}, {seed} and {step}; "
                "try streets(frames=10, seed=0, step=1)"
            )
        self.seed, self.size, self.neighbours, self.step = seed, parse_size(size), neighbours, step
        self.frames = [(first + s, f) for s in range(scenes) for f in range(frames)]
        self.ids = tuple(f"streets-{s:04d}_{f:06d}" for s, f in self.frames)
        h, w = self.size
        given = f"{', neighbours=True' * neighbours}{f', step={step}' * (step > 1)}"
        self.spec = f"streets(seed={seed}, scenes={scenes}, frames={frames}, size='{h}x{w}', split='{split}'{given})"

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        scene, frame = self.frames[index]
        sample = self.frame(scene, frame)
        if self.neighbours:
            near = {"next": self.frame(scene, frame + self.step).image}
            near["previous"] = self.frame(scene, frame - self.step).image
            return Sample(sample.image, sample.labels, sample.id, {**sample.extras, **near})
        return sample

    def fingerprint(self, index: int) -> str:
        """What decides a made-up image: the code that draws it, its seed, scene, frame and size."""
        return f"{_renderer()}:{self.seed}:{self.frames[index]}:{self.size}:{self.step}"

    def frame(self, scene: int, frame: int) -> Sample:
        """Any frame of any scene, within the set or not (negative frames lie before the start)."""
        return _rendered(self.seed, scene, frame, *self.size, self.step)

    def neighbour(self, index: int, offset: int = 1) -> Sample:
        """The frame `offset` after the one at `index`, of the same scene."""
        scene, frame = self.frames[index]
        return self.frame(scene, frame + offset)


def parse_size(size: str | tuple[int, int]) -> tuple[int, int]:
    """`'256x512'` as (256, 512).

    Raises:
        SpecError: it is not two whole numbers of at least 16, or no memory holds such an image.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", size) if isinstance(size, str) else None
    numbers = tuple(int(n) for n in (match.groups() if match else () if isinstance(size, str) else size))
    if len(numbers) != 2 or min(numbers) < 16:
        raise SpecError(f"expected a size like '256x512', at least 16x16, got '{size}'; try size='256x512'")
    require_size(numbers)
    return numbers[0], numbers[1]


@functools.cache
def _renderer() -> str:
    """A digest of the code of this folder."""
    return hashlib.sha256("".join(map(sha256, sorted(Path(__file__).parent.glob("*.py")))).encode()).hexdigest()


@functools.lru_cache(maxsize=8)
def _rendered(seed: int, scene: int, frame: int, height: int, width: int, step: int) -> Sample:
    return render(street(seed, scene), frame, (height, width), step)
