"""Images without labels: a folder, a pattern of files, or the frames of a video. Every pixel is void (255).

For what needs images alone: finetuning an adaptive student, watching a stream.
"""

from pathlib import Path

import torch

from robustseg.core.errors import SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.registry import dataset
from robustseg.core.spaces import Classes, classes_text, label_space
from robustseg.core.types import Dataset, Sample
from robustseg.datasets.files import IMAGE_SUFFIXES
from robustseg.datasets.sequence import Images, images_at
from robustseg.datasets.video import Video
from robustseg.datasets.views import resize_image


@dataset("frames")
class Frames(Dataset):
    """Images without labels: `frames('FOLDER')`, `frames('FOLDER/left_*.png')` or `frames('drive.mp4', every=5)`.

    Args:
        path: a folder of images, a pattern of image files, or a video (needs the extra `video`). Images come in the
            natural order of their names, `2.png` before `10.png`; for how a video is read see `Video`.
        every: take the first and then each so-many-th.
        height: resize to this height, the width in proportion, so that frames of several cameras compare; None: as
            they are.
        classes: the label space to stand beside labelled data and networks; no pixel has a label of it.

    Raises:
        DatasetNotFound: there is nothing there. SpecError: `every` or `height` is not positive. MissingExtra: a video,
            without PyAV. RobustsegError: the file is not a video, or is damaged; later, an image cannot be read.
    """

    def __init__(self, path: str, *, every: int = 1, height: int | None = None, classes: Classes = "camvid"):
        if every < 1 or (height is not None and height < 1):
            raise SpecError(
                f"expected every and height of at least 1, got {every} and {height}; try every=5, height=360"
            )
        self.label_space = label_space(classes)
        given = {"every": every} if every > 1 else {}
        given |= {"height": height} if height is not None else {}
        named = "".join(f", {name}={value}" for name, value in given.items())
        space = classes_text(self.label_space)
        self.spec = f"frames(path={path!r}{named}{f', classes={space}' if classes != 'camvid' else ''})"
        self.height = height
        self._source = frames_at(path)
        self.files = (self._source.path,) if isinstance(self._source, Video) else ()
        self._indices = range(0, len(self._source), every)
        self.ids = tuple(self._source.name(i) for i in self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        image = self._source[self._indices[index]]
        if self.height is not None:
            image = resize_image(image, (self.height, max(1, round(image.shape[-1] * self.height / image.shape[-2]))))
        return Sample(image, torch.full(image.shape[-2:], IGNORE), self.ids[index])

    def fingerprint(self, index: int) -> str:
        """A digest of the image file, or of the video and the number of the frame."""
        return self._source.fingerprint(self._indices[index])


def frames_at(path: str) -> Images | Video:
    """The frames of a folder of images, of a pattern of image files or of a video, by number.

    Raises:
        DatasetNotFound: there is nothing there. MissingExtra: a video, without PyAV. RobustsegError: the file is not a
            video, or is damaged.
    """
    place = Path(path)
    video = place.is_file() and place.suffix.lower() not in IMAGE_SUFFIXES
    return Video(place) if video else images_at(place)
