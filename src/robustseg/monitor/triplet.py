"""Three networks as one: teacher, student, and an adaptive student that watches both; the unattacked one answers.

A `Triplet` is a network like any other: it is attacked, measured and saved by the same code. Its answer is a hard
decision; attacks take their gradient through `soft()` and are judged on the hard one.

What each vote answers, for an image or, with `tile`, for each tile of it (then the verdict also says where):

* `ts`: the teacher, and the student where the teacher is judged attacked (the paper's T/S vote);
* `ta`: the teacher, and the adaptive network where the teacher is judged attacked (the paper's T/A vote);
* `soft`: the mean of the posteriors of all three, whatever the verdict.

So a judgement against the student changes no answer: the teacher gives it. If a member fails, the first that works of
T, S, A (`ts`) or T, A, S (`ta`) answers, or the mean of those that work (`soft`); the attack cannot be told then.

Source: Baer et al., CVPRW 2020, section 3.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robustseg.core.errors import RobustsegError, ShapeError, SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.registry import network
from robustseg.core.types import Assessment, Dataset, Images, Labels, Logits, Network, PerImage, most_likely
from robustseg.monitor import conformal
from robustseg.monitor.calibration import condition_of, suspicions
from robustseg.monitor.detector import (
    MEMBERS,
    blamed,
    bounds,
    difference,
    excess,
    finite,
    label_difference,
    tiled,
    untiled,
)
from robustseg.networks.around import Composed

log = logging.getLogger(__name__)

SOFTNESS = 0.1
"""How gradually the stand-in of the vote goes over from T to the other: the logistic width in units of d. Of 0.03, 0.1 and
0.3, PGD on it broke most of the hard vote with 0.1 (three CamVid frames, 4/255, 12 steps: 75, 79, 73 % wrong)."""

AnyTriplet = TypeVar("AnyTriplet", bound="Triplet")


class Members(NamedTuple):
    """The logits `[b, k, h, w]` of each member."""

    teacher: Tensor
    student: Tensor
    adaptive: Tensor


@network("triplet")
class Triplet(Composed):
    """A teacher, a student and an adaptive student that watch each other; the one that is not attacked answers.

    Args:
        teacher, student, adaptive: networks of one label space.
        threshold: one number or `(low, high)`, see `detector.Threshold`; `fit` finds it on clean images.
        vote: `ta`, `ts` or `soft`, see the head of this file.
        tile: decide for each tile of so many pixels a side; None decides for the whole image.
        distance: `hamming`, `kl` or `cosine`, see `detector.DISTANCES`.
        rate, condition: the false-alarm rate that the thresholds promise and on what they were fitted, as `fit` wrote
            them.

    Raises:
        LabelSpaceMismatch: the members do not speak of the same classes. SpecError: an argument outside its range.
    """

    teacher: Network
    student: Network
    adaptive: Network
    unspoken: ClassVar[Mapping[str, Any]] = {"tile": None, "distance": "hamming", "rate": None, "condition": ""}
    softly = False

    def __init__(
        self,
        teacher: Network,
        student: Network,
        adaptive: Network,
        *,
        threshold: float | tuple[float | None, float | None] = 0.1,
        vote: Literal["ta", "ts", "soft"] = "ta",
        tile: int | None = None,
        distance: Literal["hamming", "kl", "cosine"] = "hamming",
        rate: float | None = None,
        condition: str = "",
    ):
        super().__init__(
            "triplet",
            {"teacher": teacher, "student": student, "adaptive": adaptive},
            threshold=threshold,
            vote=vote,
            tile=tile,
            distance=distance,
            rate=rate,
            condition=condition,
        )
        self.threshold, self.vote, self.tile, self.distance = threshold, vote, tile, distance
        self.rate, self.condition = rate, condition
        self._require_settings()

    def with_(self: AnyTriplet, **changes: Any) -> AnyTriplet:
        """See `Network.with_`. A copy with other thresholds keeps `rate` and `condition` unless they are changed too."""
        other = super().with_(**changes)
        other._require_settings()
        return other

    def _require_settings(self) -> None:
        bounds(self.threshold)
        if self.tile is not None and self.tile < 1:
            raise SpecError(f"expected a tile of at least 1 pixel, got {self.tile}; try tile=60")

    def members(self, images: Images) -> Members:
        """The logits of each member, with gradients.

        Raises:
            ShapeError: a member does not answer at the size of the images, or with other channels than the rest.
        """
        answers = [member(images) for member in self.parts.values()]
        for name, logits in zip(MEMBERS, answers, strict=True):
            wrong = _misfit(logits, images, len(self.label_space), answers[0].shape[1])
            if wrong:
                raise ShapeError(f"expected one answer of one shape from all members, got {wrong} from the {name}")
        return Members(*answers)

    def watch(self, images: Images) -> Assessment:
        """The corrected labels together with the assessment of each image, from one pass of each member.

        `attacked` is `teacher`, `student`, `none` or `unknown`; under one threshold, where S is blamed for all that does not
        speak against T, only `teacher` is an alarm. `suspicion` is `against_teacher` and `against_student`, the extreme d of
        the tiles; `disagreement` is the share of pairs of members that label a pixel differently; `tiles` is the d of each.
        """
        return self.judge(self._answers(images))

    def judge(self, answers: Sequence[Logits | None]) -> Assessment:
        """The assessment of what teacher, student and adaptive network answered, None for one that did not.

        Raises:
            RobustsegError: none of them answered.
        """
        return self._decide(answers)[1]

    def score(self, images: Images) -> PerImage:
        """How far d is beyond the thresholds at the most suspicious tile of each image, `[b]`: an alarm from 0 on."""
        return self.watch(images).scores

    def fit(self, data: Dataset, *, rate: float = 0.01, batch_size: int = 4, sides: int = 2) -> "Triplet":
        """The same members with thresholds that promise a false-alarm rate on images like these clean ones.

        Split conformal: the promise holds on average over calibration sets, for images exchangeable with these.

        Args:
            data: clean images that no member was trained or chosen on; their labels are not used.
            rate: of clean images with an alarm, at most, 0 to 1. batch_size: images at a time.
            sides: 2 gives `(low, high)`, half the rate for each; 1 gives `(None, high)`: all of the rate goes to the
                alarm that changes answers, and S is never blamed.

        Returns:
            A copy that shares the members and carries the rate and the condition in its spec.

        Raises:
            RobustsegError: too few images for the rate, or a member failed on one.
        """
        if sides not in (1, 2):
            raise SpecError(f"expected 1 or 2 sides, got {sides}; try sides=2")
        found = suspicions(self, data, batch_size=batch_size)
        high = conformal.threshold(found["against_teacher"], rate / sides)
        low = -conformal.threshold(found["against_student"], rate / sides) if sides == 2 else None
        return self.with_(threshold=(low, high), rate=rate, condition=condition_of(data))

    def forward(self, images: Images) -> Logits:
        """The corrected logits: of the member chosen for each image or tile, or the log of the mean posterior.

        In the stand-in that `soft` gives, the log of the mixed posteriors.
        """
        return self._mixed(images) if self.softly else self._decide(self._answers(images))[0]

    def predict(self, images: Images) -> Labels:
        """The corrected labels, `[b, h, w]`; 255 where no member gave numbers."""
        return most_likely(self(images)) if self.softly else self.watch(images).labels

    def soft(self) -> Network:
        """The same members behind a vote with a gradient, for attacks.

        The posteriors of T and of the network that would answer in its place are mixed, `w p + (1 - w) q`, with
        `w = sigmoid((high - d) / SOFTNESS)` of the soft d of the image or tile. So the gradient knows that breaking T moves
        the answer over to the other member, and how to hold d back. The soft vote is soft already.
        """
        return self.with_(softly=True, **{name: member.soft() for name, member in self.parts.items()})

    def beyond(self, members: Members) -> PerImage:
        """How far d is beyond the thresholds, summed over the tiles, `[b]`, 0 where nothing is noticed; differentiable.

        By the soft Hamming distance where the distance is Hamming's.
        """
        low, high = bounds(self.threshold)
        tiles = tiled(difference(*members, distance=self.distance, soft=True), self.tile)
        return ((tiles - high).clamp_min(0) + (low - tiles).clamp_min(0)).sum((1, 2))

    def _answers(self, images: Images) -> list[Tensor | None]:
        """What each member answers, None for one that raised or answered another shape."""
        answers: list[Tensor | None] = []
        for name, member in self.parts.items():
            try:
                logits = member(images)
                wrong = _misfit(logits, images, len(self.label_space))
            except Exception as error:  # whatever it is, the other two go on
                logits, wrong = None, f"{type(error).__name__}: {error}"
            if wrong:
                log.warning("the %s failed: %s", name, wrong)
            answers.append(None if wrong else logits)
        return answers

    def _decide(self, answers: Sequence[Logits | None]) -> tuple[Tensor, Assessment]:
        """The corrected logits and the assessment."""
        logits, working = _complete(answers)
        everybody = working.all(0)
        labels = [most_likely(one) for one in logits]
        if self.distance == "hamming":  # from labels that are there already: finding them takes its time
            pixels = label_difference(*labels, dtype=torch.promote_types(logits.teacher.dtype, torch.float32))
        else:
            pixels = difference(*logits, distance=self.distance).detach()
        tiles = tiled(pixels, self.tile)
        tiles = torch.where(everybody.view(-1, 1, 1), tiles, torch.nan)
        corrected = self._mean(logits, working) if self.vote == "soft" else self._chosen(logits, working, tiles)
        assessment = Assessment(
            labels=most_likely(corrected).where(working.any(0).view(-1, 1, 1), IGNORE),
            scores=excess(tiles, self.threshold),
            attacked=blamed(tiles, self.threshold),
            failed=[tuple(n for n, works in zip(MEMBERS, row, strict=True) if not works) for row in working.T.tolist()],
            disagreement=_disagreement(labels, working).to(tiles.dtype),
            suspicion={"against_teacher": tiles.amax((1, 2)), "against_student": -tiles.amin((1, 2))},
            tiles=tiles,
        )
        return corrected, assessment

    def _chosen(self, logits: Members, working: Tensor, tiles: Tensor) -> Tensor:
        order = [0, 1, 2] if self.vote == "ts" else [0, 2, 1]
        first, second, last = (logits[i] for i in order)
        works = [working[i].view(-1, 1, 1, 1) for i in order]
        _, high = bounds(self.threshold)
        speaks = (tiles.cpu().double() >= high).to(tiles.device)  # in float64, as in `blamed`; never where one failed
        against = untiled(speaks, self.tile, (first.shape[-2], first.shape[-1])).unsqueeze(1)
        rest = torch.where(works[1], second, last)
        return torch.where(works[0] & ~against, first, rest)

    def _mean(self, logits: Members, working: Tensor) -> Tensor:
        lost = ~working.view(3, -1, 1, 1, 1)
        posteriors = torch.stack([one.contiguous().log_softmax(1) for one in logits]).masked_fill(lost, -torch.inf)
        return posteriors.logsumexp(0) - working.sum(0).log().view(-1, 1, 1, 1)

    def _mixed(self, images: Images) -> Logits:
        members = self.members(images)
        if self.vote == "soft":
            return self._mean(members, torch.ones(3, len(images), dtype=torch.bool, device=images.device))
        _, high = bounds(self.threshold)
        tiles = tiled(difference(*members, distance=self.distance, soft=True), self.tile)
        lean = untiled((high - tiles) / SOFTNESS, self.tile, (images.shape[-2], images.shape[-1])).unsqueeze(1)
        other = members.student if self.vote == "ts" else members.adaptive
        first, second = (logits.contiguous().log_softmax(1) for logits in (members.teacher, other))
        return torch.logaddexp(F.logsigmoid(lean) + first, F.logsigmoid(-lean) + second)


def _misfit(logits: object, images: Tensor, classes: int, channels: int | None = None) -> str:
    """What is wrong with the shape of an answer; nothing if it fits. `channels`: how many it must have exactly."""
    if not isinstance(logits, Tensor):
        return f"a {type(logits).__name__}"
    b, _, h, w = images.shape
    fits = logits.ndim == 4 and (len(logits), *logits.shape[2:]) == (b, h, w) and logits.shape[1] >= classes
    if fits and channels in (None, logits.shape[1]):
        return ""
    return f"{tuple(logits.shape)} for images {tuple(images.shape)} and {channels or f'at least {classes}'} channels"


def _complete(answers: Sequence[Tensor | None]) -> tuple[Members, Tensor]:
    """Answers with NaN for what is missing, and which are all numbers, bool `[3, b]`."""
    known = [answer for answer in answers if answer is not None]
    if not known:
        raise RobustsegError("expected an answer of the teacher, the student or the adaptive network, got none")
    if len({answer.shape for answer in known}) > 1:
        raise ShapeError(
            f"expected one shape from all members, got {', '.join(str(tuple(answer.shape)) for answer in known)}; "
            "try members with the same channels"
        )
    logits = Members(*(torch.full_like(known[0], torch.nan) if answer is None else answer for answer in answers))
    return logits, torch.stack([finite(one) for one in logits])


def _disagreement(labels: Sequence[Labels], working: Tensor) -> Tensor:
    pairs = ((0, 1), (0, 2), (1, 2))
    differ = [(labels[i] != labels[j]) & (working[i] & working[j]).view(-1, 1, 1) for i, j in pairs]
    return torch.stack(differ).float().mean(0)


@network("member")
def member(triplet: Network, name: Literal["teacher", "student", "adaptive"]) -> Network:
    """One network of a triplet, to attack or to measure: `member(zoo:triplet-streets, 'teacher')`.

    Raises:
        SpecError: it is no triplet.
    """
    if not isinstance(triplet, Triplet):
        raise SpecError(f"expected a triplet, got {triplet.spec}; try member(zoo:triplet-streets, 'teacher')")
    found: Network = getattr(triplet, name)
    found.files = found.files or triplet.files
    return found
