"""The overlay video: camera, one member's answer, the repaired answer, where the members disagree, and the score. No torch.

Drawn at a fixed area whatever the size of the frames, and encoded as fast as it goes: watching is the work here.
"""

from collections import deque
from collections.abc import Iterable
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

from robustseg.core.film import Video
from robustseg.core.labels import LabelSpace
from robustseg.monitor.cusum import Limits

PANEL_AREA = 344 * 258
GAP, HEAD, CAPTION, STRIP, LEGEND_ROW = 10, 44, 22, 124, 20
FRAME_WIDTH = 3
"""Pixels of the score strip that one frame takes."""
BACKGROUND, RULE, DIM, INK = (18, 21, 25), (52, 58, 66), (150, 158, 168), (232, 236, 240)
LEARNING, QUIET, ALARM, FAILED = (58, 74, 96), (36, 92, 62), (176, 38, 34), (140, 90, 20)
INJECTED, BROKEN, SOUND = (240, 170, 60), (228, 70, 62), (92, 200, 130)
HEAT = ((0, 0, 0), (84, 15, 109), (187, 55, 84), (249, 142, 9), (252, 255, 164))
"""Anchors of the heat map, from agreement to disagreement."""


class OverlayFrame(NamedTuple):
    """What one frame of the overlay shows.

    Args:
        number: of the frame. image: uint8 `[h, w, 3]`.
        member: whose answer stands beside the repaired one. own, repaired: uint8 `[h, w]`, labels, 255 none.
        answered: who gave the repaired answer, in words. disagreement: uint8 `[h, w]`, 255 where all three differ.
        score: NaN where a member failed. limits: None while they are being learnt. learnt: in words, until then.
        alarm: who is under alarm, or ``. failed: members that failed. injected: the member that an attack hidden in this
            frame was made for, or ``.
    """

    number: int
    image: np.ndarray
    member: str
    own: np.ndarray
    repaired: np.ndarray
    answered: str
    disagreement: np.ndarray
    score: float
    limits: Limits | None
    learnt: str
    alarm: str
    failed: tuple[str, ...]
    injected: str


class Past(NamedTuple):
    """What the score strip remembers of a frame."""

    score: float
    alarm: str
    injected: bool


class Words(NamedTuple):
    """A line of text and its colour, or that of its ground."""

    text: str
    colour: tuple[int, int, int]


class Canvas:
    """Draws frames of one size; remembers the scores that the strip shows, no more.

    Args:
        size: (height, width) of the frames. label_space: names and colours of the classes.
    """

    def __init__(self, size: tuple[int, int], label_space: LabelSpace):
        scale = (PANEL_AREA / (size[0] * size[1])) ** 0.5
        self.panel = (round(size[1] * scale), round(size[0] * scale))  # width, height, as Pillow has them
        self.width = _even(2 * self.panel[0] + 3 * GAP)
        self.font, self.small, self.large = (ImageFont.load_default(points) for points in (14, 12, 20))
        palette = np.zeros((256, 3), np.float32)
        palette[: len(label_space)] = label_space.palette
        self.colours = (0.62 * palette).astype(np.uint8).ravel().tolist()
        anchors = np.linspace(0, 255, len(HEAT))
        heat = np.stack([np.interp(np.arange(256), anchors, channel) for channel in zip(*HEAT, strict=True)], 1)
        self.heat = (0.75 * heat).astype(np.uint8).ravel().tolist()
        self.strip_top = HEAD + 2 * (CAPTION + self.panel[1]) + 2 * GAP
        self.past: deque[Past] = deque(maxlen=(self.width - 2 * GAP - 34) // FRAME_WIDTH)
        self.background = self._background(label_space)
        self._dressed: tuple[object, Image.Image] = (None, self.background)

    def draw(self, frame: OverlayFrame) -> np.ndarray:
        """The picture of a frame, uint8 `[height, width, 3]`, both even."""
        self.past.append(Past(frame.score, frame.alarm, bool(frame.injected)))
        page = self._words(_head(frame), _captions(frame)).copy()
        pen = ImageDraw.Draw(page)
        number = f"frame {frame.number}"
        pen.text((self.width - GAP - self.font.getlength(number), 10), number, fill=INK, font=self.font)
        camera = Image.fromarray(frame.image).resize(self.panel, Image.Resampling.BILINEAR)
        grey = camera.convert("L")
        light, dim = (grey.point([int(share * v) for v in range(256)]).convert("RGB") for share in (0.38, 0.25))
        pictures = (
            camera,
            self._coloured(frame.own, self.colours, light),
            self._coloured(frame.repaired, self.colours, light),
            self._coloured(frame.disagreement, self.heat, dim),
        )
        for place, picture in enumerate(pictures):
            page.paste(picture, self._corner(place))
        self._strip(pen, frame)
        return np.asarray(page)

    def _coloured(self, values: np.ndarray, colours: list[int], below: Image.Image) -> Image.Image:
        """A map at the size of a panel, each value in its colour, over a dark picture."""
        picture = Image.fromarray(values)
        picture.putpalette(colours)
        return ImageChops.add(picture.resize(self.panel, Image.Resampling.NEAREST).convert("RGB"), below)

    def _corner(self, place: int) -> tuple[int, int]:
        column, row = place % 2, place // 2
        return GAP + column * (self.panel[0] + GAP), HEAD + CAPTION + row * (self.panel[1] + CAPTION + GAP // 2)

    def _background(self, label_space: LabelSpace) -> Image.Image:
        """What stays: the legend of the classes, in as many rows as they need."""
        places, x, row = [], GAP, 0
        for name in label_space.names:
            length = 16 + int(self.small.getlength(name)) + 16
            if x + length > self.width and x > GAP:
                x, row = GAP, row + 1
            places.append((x, row))
            x += length
        top = self.strip_top + STRIP
        page = Image.new("RGB", (self.width, _even(top + (row + 1) * LEGEND_ROW + GAP // 2)), BACKGROUND)
        pen = ImageDraw.Draw(page)
        title = "suspicion: above the band it speaks against the teacher, below against the student"
        pen.text((GAP, self.strip_top), title, fill=DIM, font=self.small)
        for (x, row), name, colour in zip(places, label_space.names, label_space.palette, strict=True):
            y = top + row * LEGEND_ROW
            pen.rectangle((x, y + 3, x + 10, y + 13), fill=tuple(colour), outline=RULE)
            pen.text((x + 16, y), name, fill=DIM, font=self.small)
        return page

    def _words(self, head: Words, captions: list[Words]) -> Image.Image:
        """The page with its head and captions, which seldom change; drawn when they do."""
        key = (head, tuple(captions))
        if self._dressed[0] != key:
            page = self.background.copy()
            pen = ImageDraw.Draw(page)
            pen.rectangle((0, 0, self.width, HEAD - 8), fill=head.colour)
            pen.text((GAP, 6), head.text, fill=INK, font=self.large)
            for place, (text, colour) in enumerate(captions):
                x, y = self._corner(place)
                pen.text((x, y - CAPTION + 3), text, fill=colour, font=self.font)
                if colour != DIM:
                    pen.rectangle((x - 2, y - 2, x + self.panel[0] + 1, y + self.panel[1] + 1), outline=colour, width=2)
            self._dressed = (key, page)
        return self._dressed[1]

    def _strip(self, pen: ImageDraw.ImageDraw, frame: OverlayFrame) -> None:
        """The last scores, the band of quiet ones, the frames under alarm, and where an attack was injected."""
        left, right = GAP + 34, self.width - GAP
        top, bottom = self.strip_top + 20, self.strip_top + STRIP - 28
        known = [p.score for p in self.past if p.score == p.score]
        marks = [*known, *(frame.limits[:2] if frame.limits else ())]
        low, high = min([0.0, *marks]), max([0.5, *marks])

        def y(score: float) -> float:
            return bottom - (score - low) / (high - low) * (bottom - top)

        pen.rectangle((left, top, right, bottom), outline=RULE)
        if frame.limits:
            band = (left + 1, max(top, y(frame.limits.upper)), right - 1, min(bottom, y(frame.limits.lower)))
            pen.rectangle(band, fill=(30, 40, 50))
        places = list(enumerate(self.past))
        for alarm, span in groupby(places, key=lambda place: place[1].alarm):
            if alarm:
                x0, x1 = _span(left, span)
                pen.rectangle((x0, top + 1, x1, bottom - 1), fill=(110, 30, 30))
        for injected, span in groupby(places, key=lambda place: place[1].injected):
            if injected:
                x0, x1 = _span(left, span)
                pen.rectangle((x0, bottom + 3, x1, bottom + 7), fill=INJECTED)
                pen.text((min(x0, right - 90), bottom + 7), "attack injected", fill=INJECTED, font=self.small)
        for score in (0.0, high):
            pen.text((GAP, y(score) - 7), f"{score:.1f}", fill=DIM, font=self.small)
        line = [(left + i * FRAME_WIDTH, y(p.score)) for i, p in places if p.score == p.score]
        if len(line) > 1:
            pen.line(line, fill=INK, width=2)


def _span(left: int, places: Iterable[tuple[int, Past]]) -> tuple[int, int]:
    """From the first to the last of these frames, in pixels."""
    positions = [i for i, _ in places]
    return left + positions[0] * FRAME_WIDTH, left + (positions[-1] + 1) * FRAME_WIDTH - 1


def _head(frame: OverlayFrame) -> Words:
    text, colour = "no attack noticed", QUIET
    if frame.alarm:
        text, colour = f"ATTACK on the {frame.alarm} noticed", ALARM
    elif frame.limits is None:
        text, colour = frame.learnt, LEARNING
    if frame.failed:
        text, colour = f"{text}; failed: {', '.join(frame.failed)}", ALARM if frame.alarm else FAILED
    return Words(text, colour)


def _captions(frame: OverlayFrame) -> list[Words]:
    attacked = frame.injected or frame.alarm == frame.member
    camera = f"camera, with a hidden attack on the {frame.injected}" if frame.injected else "camera"
    return [
        Words(camera, INJECTED if frame.injected else DIM),
        Words(f"what the {frame.member} alone sees", BROKEN if attacked else DIM),
        Words(f"repaired: {frame.answered}", SOUND if frame.alarm else DIM),
        Words("where the three disagree", DIM),
    ]


class Overlay:
    """An overlay video being written.

    Args:
        path: of the MP4 file. canvas: draws it. rate: frames a second that it plays at.

    Raises:
        RobustsegError: it cannot be written.
    """

    def __init__(self, path: Path, canvas: Canvas, *, rate: Fraction):
        self.canvas = canvas
        self._video = Video(path, (canvas.background.height, canvas.background.width), rate=rate)

    def add(self, frame: OverlayFrame) -> None:
        """Draw and encode one frame."""
        self._video.add(self.canvas.draw(frame))

    def close(self) -> None:
        """Finish the file."""
        self._video.close()


def _even(value: int) -> int:
    return value + value % 2
