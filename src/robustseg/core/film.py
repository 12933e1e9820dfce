"""Pictures in a row as a film: GIF by Pillow, or MP4 by PyAV (the extra `video`)."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from robustseg.core.errors import MissingExtra, RobustsegError
from robustseg.core.files import write_whole

FORMATS = ("gif", "mp4")


class Video:
    """An MP4 (H.264) being written; what was written before a crash plays.

    Args:
        target: a path, or a buffer. size: (height, width), both even. rate: frames a second.

    Raises:
        MissingExtra: PyAV is not installed. RobustsegError: it cannot be written.
    """

    def __init__(self, target: Path | io.BytesIO, size: tuple[int, int], *, rate: Fraction):
        self._av = load_av()
        flags = {"movflags": "+frag_keyframe+empty_moov+default_base_moof"}
        place = str(target) if isinstance(target, Path) else target
        try:
            self._container = self._av.open(place, "w", format="mp4", options=flags)
        except (self._av.FFmpegError, OSError) as error:
            raise RobustsegError(f"expected to write {target}, got '{error.strerror}'; try another --out") from error
        options = {"preset": "ultrafast", "crf": "28", "g": "50", "bf": "0"}
        self._stream = self._container.add_stream("libx264", rate=rate, options=options)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "yuv420p"

    def add(self, picture: np.ndarray) -> None:
        """Encode one frame, uint8 `[h, w, 3]`."""
        self._container.mux(self._stream.encode(self._av.VideoFrame.from_ndarray(picture, format="rgb24")))

    def close(self) -> None:
        """Finish the file."""
        self._container.mux(self._stream.encode())
        self._container.close()


def require_format(kind: str) -> None:
    """Raise unless a film of this kind can be written here."""
    if kind not in FORMATS:
        raise RobustsegError(f"expected a film of {' or '.join(FORMATS)}, got '{kind}'; try --film gif")
    if kind == "mp4":
        load_av()


def write_film(path: Path, pictures: Sequence[np.ndarray], *, rate: int = 12) -> None:
    """Write pictures as `NAME.gif` or `NAME.mp4`, whole or not at all; the last one stays for two seconds.

    Args:
        path: its suffix decides. pictures: uint8 `[h, w, 3]` of one size; MP4 cuts an odd last row or column.
        rate: pictures a second.

    Raises:
        RobustsegError: another suffix, or no picture. MissingExtra: MP4 without PyAV.
    """
    kind = path.suffix.removeprefix(".")
    require_format(kind)
    if not pictures:
        raise RobustsegError(f"expected pictures for {path}, got none; try a synthesis of at least one step")
    buffer, last = io.BytesIO(), 2 * rate
    if kind == "gif":
        first, *others = [Image.fromarray(picture) for picture in pictures]
        durations = [1000 // rate] * len(others) + [1000 * last // rate]
        first.save(buffer, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    else:
        height, width = (side - side % 2 for side in pictures[0].shape[:2])
        video = Video(buffer, (height, width), rate=Fraction(rate))
        for picture in [*pictures, *[pictures[-1]] * (last - 1)]:
            video.add(np.ascontiguousarray(picture[:height, :width]))
        video.close()
    write_whole(path, buffer.getvalue())


def load_av() -> Any:
    """PyAV.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtra("av", "video") from error
    return av
