"""Frames in order through a triplet: a verdict for each, alarms and all-clears, an overlay video. Memory stays constant.

What is quiet is learnt from the first frames of the stream, which must be quiet; their scores set the thresholds of the
triplet and the limits of the CUSUM (`cusum.quiet_limits`). A stream writes into its folder, line by line,

* `stream.json`: what was watched with what;
* `frames.jsonl`: a line a frame: score, assessment, sums, seconds; or the problem of a frame without an assessment;
* `events.jsonl`: `quiet` (the limits), `alarm`, `clear`, `failed`, `recovered`, `unreadable`, `fallback`, `end`,
  with frame and latency;
* `overlay.mp4`, and `overlay-from-N.mp4` where a stopped stream went on: a video file cannot be continued.

With a `schedule` the adaptive network learns on the way (`adapt`), the limits follow the last quiet frames, and its last
good weights stand in `adaptive.safetensors`.

The same call goes on after the last line of `frames.jsonl`, with the same sums: verdicts and alarms are those of one run, but
where the adaptive network learns: there it goes on from its last good weights.
"""

import copy
import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from robustseg.core.code import code_of
from robustseg.core.errors import RobustsegError
from robustseg.core.files import append_line, json_line, make_folder, sole_writer, write_whole
from robustseg.core.folders import require_own
from robustseg.core.levels import to_8bit
from robustseg.core.provenance import digest
from robustseg.core.random import ImageRng
from robustseg.core.types import Assessment, Images, Network, Perturbation, device_of, dtype_of, frozen
from robustseg.datasets.video import Frame
from robustseg.datasets.views import resize_image
from robustseg.monitor import cusum
from robustseg.monitor.adapt import Adaptation, Schedule, agreement
from robustseg.monitor.detector import MEMBERS, bounds, extreme
from robustseg.monitor.guard import Guard
from robustseg.monitor.overlay import Canvas, Overlay, OverlayFrame
from robustseg.monitor.triplet import Triplet
from robustseg.networks.fast import fast
from robustseg.networks.weights import load, save
from robustseg.results.watched import FORMAT, about_of, events_of, frames_of

SILENT = "no member answered"
"""The problem of a frame that no member could take."""
BARE_EVERY = 10
"""Every so many frames the three forwards are timed alone, on the same frame, for the ratio."""


@dataclass(frozen=True)
class Injection:
    """An attack on some frames of a stream, to see it noticed.

    A stream has no labels, so the attack is given the prediction of its target on the clean frame.

    Args:
        perturbation: made against the target, frame by frame. target: `teacher`, `student` or `adaptive`.
        first: the first attacked frame. end: the first one after the attack.
        seed: of its random draws.
    """

    perturbation: Perturbation
    target: str
    first: int
    end: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.target not in MEMBERS:
            raise RobustsegError(f"expected a target of {', '.join(MEMBERS)}, got '{self.target}'")
        if not 0 <= self.first < self.end:
            raise RobustsegError(
                f"expected an attack from a frame to a later one, got {self.first} to {self.end}; try --from 100 --to 120"
            )

    def hits(self, number: int) -> bool:
        """Whether this frame is attacked."""
        return self.first <= number < self.end

    def attacked(self, network: Network, images: Images, number: int) -> Images:
        """The images of a frame, attacked through a network."""
        rng = ImageRng(self.seed, [str(number)])
        return self.perturbation(network, images, network.predict(images), rng=rng)


FILES = ("frames.jsonl", "events.jsonl", "overlay*.mp4", "timeline.html")


class FrameDone(NamedTuple):
    """One frame done: its number, who is under alarm, and the seconds that it took."""

    number: int
    alarm: str
    seconds: float


def watch_stream(
    triplet: Triplet,
    frames: Iterable[Frame],
    *,
    source: str,
    folder: str | Path,
    size: tuple[int, int] | None = None,
    quiet: int = 50,
    injection: Injection | None = None,
    timeout: float | None = None,
    schedule: Schedule | None = None,
    video: bool = True,
    rate: Fraction = Fraction(10),
    total: int | None = None,
    on_frame: Callable[[FrameDone], None] = lambda done: None,
) -> Path:
    """Watch a stream to its end; see the head of this file for what is written.

    Args:
        triplet: on its device, in its precision.
        frames: in order, from the first one also where the stream goes on.
        source: what the frames are, in words, for the log.
        folder: made, or gone on with.
        size: (height, width) that frames are resized to.
        quiet: how many frames at the start are known to be quiet; nobody is blamed in them. 0 takes the triplet's own
            thresholds from the first frame on.
        injection: an attack to inject.
        timeout: seconds after which a member that has not answered a frame counts as failed; None waits.
        schedule: let a copy of the adaptive network learn on the way; None leaves it as it is.
        video: whether to write the overlay. rate: frames a second that it plays at.
        total: how many frames there are, where that is known before they are read.
        on_frame: called after each frame.

    Returns:
        The folder.

    Raises:
        RobustsegError: the folder holds another stream, or one of other networks, code, frames or options; a member cannot
            take the first frame; the stream ends within the quiet frames (then nothing is kept) or before the attack; the
            quiet frames give no limits, or a file cannot be written.
    """
    if quiet and injection and injection.first < quiet:
        raise RobustsegError(
            f"expected an attack after the {quiet} quiet frames, got one from frame {injection.first}; try --from {quiet + 100}"
        )
    if schedule and not quiet:
        raise RobustsegError("expected quiet frames to judge what is learnt by, got none; try --quiet 50")
    if total is not None:
        _require_long(total, quiet, injection)
    waiting = iter(frames)
    first = next(waiting, None)  # a stream that cannot be opened leaves no folder
    if first is None:
        raise RobustsegError(f"expected frames in {source}, got none; try another --input")
    folder = make_folder(Path(folder))
    if schedule:
        triplet = triplet.with_(adaptive=copy.deepcopy(triplet.adaptive))
    with ExitStack() as stack:
        stack.enter_context(sole_writer(folder))
        require_own(folder / "stream.json", FILES + (("adaptive.safetensors",) if schedule else ()))
        stack.enter_context(frozen(triplet))
        run = _Run(triplet, folder, size=size, quiet=quiet, injection=injection, timeout=timeout, schedule=schedule)
        run.resume({"source": source, "rate": str(rate)})
        run.rate = rate if video else None
        stack.callback(run.close)
        for progress in run.through(chain([first], waiting)):
            on_frame(progress)
    return folder


def _require_long(total: int, quiet: int, injection: Injection | None) -> None:
    """Raise where a stream ends before anything is judged, or before the attack."""
    if total <= quiet:
        raise RobustsegError(
            f"expected more than the {quiet} quiet frames at the start, got a stream of {total}, of which none would be "
            f"judged; try a longer stream, or --quiet {total // 2}"
        )
    if injection and injection.first >= total:
        raise RobustsegError(
            f"expected an attack within the {total} frames of the stream, got one from frame {injection.first}, so that "
            f"none was made; try --from {(quiet + total) // 2}"
        )


class _Run:
    """The state of one stream."""

    def __init__(
        self,
        triplet: Triplet,
        folder: Path,
        *,
        size: tuple[int, int] | None,
        quiet: int,
        injection: Injection | None,
        timeout: float | None,
        schedule: Schedule | None,
    ):
        self.given, self.folder, self.size, self.quiet, self.injection = triplet, folder, size, quiet, injection
        self.timeout = timeout
        self.guards = [Guard(getattr(triplet, name), timeout) for name in MEMBERS]
        self.adaptation = Adaptation(triplet.student, triplet.adaptive, schedule) if schedule else None
        target = getattr(triplet, injection.target if injection else "teacher")
        self.target = target if schedule and target is triplet.adaptive else fast(target)  # a copy does not learn
        self.scores: deque[float] = deque(maxlen=quiet)  # of the first quiet frames, or the last ones where A learns
        self.limits = None if quiet else cusum.threshold_limits(*bounds(triplet.threshold))
        self.triplet = triplet if self.limits else triplet.with_(threshold=(None, None))
        self.sums, self.next, self.failed = cusum.Sums(), 0, frozenset[str]()
        self.rate: Fraction | None = None
        self.overlay: Overlay | None = None
        self.about: dict[str, Any] = {}
        self.lines: BinaryIO | None = None

    @property
    def path(self) -> Path:
        return self.folder / "frames.jsonl"

    @property
    def events(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def kept(self) -> Path:
        return self.folder / "adaptive.safetensors"

    def resume(self, about: dict[str, Any]) -> None:
        """Check that the folder holds this stream, if any, and go on after its last line."""
        about |= {"format": FORMAT, "triplet": self.given.spec, "weights": digest(self.given), "size": self.size}
        about |= {"quiet": self.quiet, "timeout": self.timeout, "attack": _about(self.injection)}
        about["schedule"] = asdict(self.adaptation.schedule) if self.adaptation else None
        about |= {} if self.quiet else {"threshold": self.given.threshold}
        code = code_of(self.given, *([self.injection.perturbation] if self.injection else []))
        about |= {"code": code} if code else {}
        self.about = json.loads(json.dumps(about))
        path = self.folder / "stream.json"
        if path.is_file():
            before = about_of(self.folder)
            apart = [name for name in {**self.about, **before} if before.get(name) != self.about.get(name)]
            if apart:
                raise RobustsegError(
                    f"expected the stream that {self.folder} holds, got another {apart[0]}: {self.about.get(apart[0])} "
                    f"in place of {before.get(apart[0])}; try another --out"
                )
        if self.path.is_file():
            self._replay()

    def _replay(self) -> None:
        """Go back to where the last line stands; a torn one is cut away."""
        with open(self.path, "r+b") as file:
            file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))
        for line in frames_of(self.folder, self.about):
            self.next = line["frame"] + 1
            if "problem" in line:
                continue
            if line["frame"] < self.quiet or (self.adaptation and not line["alarm"]):
                self.scores.append(math.nan if line["score"] is None else line["score"])
            if self.adaptation and line["frame"] < self.quiet and "agreement" in line:
                self.adaptation.prefix.append(line["agreement"])
            self.sums = cusum.Sums(line["up"], line["down"], line["alarm"])
            self.failed = frozenset(line["failed"])
        if self.events.is_file():
            known = events_of(self.folder, self.about, torn=True)
            told = [event for event in known if event["frame"] < self.next and event["kind"] != "end"]
            write_whole(self.events, "".join(map(json_line, told)))
        if self.adaptation and self.kept.is_file():
            self.adaptation.adaptive.load_state_dict(load(self.kept).state_dict())
            self.adaptation.remember(self.scores)
        if self.limits is None and self.next > self.quiet:
            self._learn()

    def through(self, frames: Iterable[Frame]) -> Iterator[FrameDone]:
        """Watch the frames that are not done yet, after a look at those that are."""
        waiting, done, count = iter(frames), self.next, 0
        known = frames_of(self.folder, self.about) if done else iter(())
        start = time.perf_counter()
        while (frame := next(waiting, None)) is not None:
            count = frame.number + 1
            if frame.number < done:
                self._require_same(frame, next(known))
            else:
                if self.limits is None and frame.number >= self.quiet:
                    limits = self._learn()
                    self._tell("quiet", frame.number, limits=limits._asdict())
                    if self.adaptation:
                        self.adaptation.remember(self.scores)
                line = self._watch(frame, start)
                self._write(line)
                self.next = frame.number + 1
                yield FrameDone(frame.number, self.sums.alarm, line.get("seconds", 0.0))
            start = time.perf_counter()
        if count < done:
            raise RobustsegError(
                f"expected the {done} frames that were watched and those after them, got {count}; try another --out"
            )
        if count <= self.quiet:
            self._discard()
        else:
            self._tell("end", self.next)
        _require_long(count, self.quiet, self.injection)

    def _require_same(self, frame: Frame, line: dict[str, Any]) -> None:
        """Raise unless a frame is the one that a line was written for."""
        now = {"problem": frame.problem} if frame.image is None else {"content": _mark(frame.image)}
        if any(name in line and line[name] not in (now.get(name), SILENT) for name in ("problem", "content")):
            raise RobustsegError(
                f"expected frame {frame.number} as {self.folder} knows it, got another image; try another --out"
            )

    def _discard(self) -> None:
        """Leave the folder as if nothing had been watched."""
        self.close()
        for path in (self.path, self.events, self.folder / "stream.json", *self.folder.glob("overlay*.mp4")):
            path.unlink(missing_ok=True)

    def _learn(self) -> cusum.Limits:
        """Limits and thresholds from the quiet scores."""
        self.limits = cusum.quiet_limits(self.scores)
        self.triplet = self.given.with_(threshold=(self.limits.lower, self.limits.upper))
        return self.limits

    def _watch(self, frame: Frame, start: float) -> dict[str, Any]:
        """One frame: the line that is kept of it."""
        if frame.image is None:
            self._tell("unreadable", frame.number, reason=frame.problem)
            return {"frame": frame.number, "problem": frame.problem}
        there = time.perf_counter()
        image = frame.image if self.size is None else resize_image(frame.image, self.size)
        images = image[None].to(device_of(self.given), dtype_of(self.given))
        ready = time.perf_counter()
        injected = self.injection is not None and self.injection.hits(frame.number)
        if self.injection and injected:
            images = self.injection.attacked(self.target, images, frame.number)
        begin = time.perf_counter()
        with torch.inference_mode():
            answers = [guard(images) for guard in self.guards]
            self._failures(frame.number, images, answers)
            if len(self.failed) == len(MEMBERS):
                return {"frame": frame.number, "problem": SILENT}
            assessment = self.triplet.judge(answers)
        score = float(extreme(assessment.tiles)[0])
        latency = ready - there + time.perf_counter() - begin
        before = self.sums.alarm
        self._decide(frame.number, score, latency)
        learnt = self._adapt(frame.number, images, answers, alarmed=self.sums.alarm != before)
        if self.rate:
            self._draw(frame.number, images, answers, assessment, injected)
        seconds = ready - start + time.perf_counter() - begin
        line = {
            "frame": frame.number,
            "content": _mark(frame.image),
            "score": score,
            "attacked": assessment.attacked[0],
            "failed": sorted(self.failed),
        }
        line |= {"alarm": self.sums.alarm, "up": self.sums.up, "down": self.sums.down, "injected": injected}
        line |= {"latency": latency, "seconds": seconds, **learnt}
        if frame.number % BARE_EVERY == BARE_EVERY - 1 and not self.failed:
            line["bare"] = self._bare(images)
        return line

    def _failures(self, number: int, images: Images, answers: list[Tensor | None]) -> None:
        """Tell who failed now and who is back; a network that cannot take the first frame is refused."""
        for name, guard in zip(MEMBERS, self.guards, strict=True):
            if self.lines is None and not self.next and guard.unfit:
                raise RobustsegError(
                    f"expected an answer of the {name}, {guard.member.spec}, for frames of {images.shape[-2]}x"
                    f"{images.shape[-1]}, got {guard.problem}; try --size HxW with a size that it takes"
                )
        now = frozenset(name for name, logits in zip(MEMBERS, answers, strict=True) if logits is None)
        for name, guard in zip(MEMBERS, self.guards, strict=True):
            if name in now - self.failed:
                self._tell("failed", number, member=name, reason=guard.problem)
            if name in self.failed - now:
                self._tell("recovered", number, member=name)
        self.failed = now

    def _decide(self, number: int, score: float, latency: float) -> None:
        if self.limits is None:
            self.scores.append(score)
            return
        before, self.sums = self.sums.alarm, cusum.step(self.sums, score, self.limits)
        if self.adaptation and not self.sums.alarm:
            self.scores.append(score)
        if before != self.sums.alarm:
            for kind, member in (("clear", before), ("alarm", self.sums.alarm)):
                if member:
                    self._tell(kind, number, member=member, score=score, latency=latency)

    def _adapt(
        self, number: int, images: Images, answers: list[Tensor | None], *, alarmed: bool
    ) -> dict[str, float | bool]:
        """Let A learn from a quiet frame, or send it back; what is to be kept of it in the line of the frame."""
        if self.adaptation is None:
            return {}
        teacher, _, adaptive = answers
        if adaptive is None and self.adaptation.updates:
            self._fall_back(number, "it failed")
        if teacher is None or adaptive is None or self.failed:
            return {}
        if self.sums.alarm:
            if alarmed:
                self._fall_back(number, "an alarm, and the adaptive network may be its cause")
            return {}
        agreed = agreement(teacher, adaptive)
        if self.limits is None:
            self.adaptation.prefix.append(agreed)
            return {"agreement": agreed}
        state = self.adaptation.see(agreed)
        if state == "sunk":
            self._fall_back(
                number, f"it agreed too little with the teacher on {self.adaptation.schedule.window} frames"
            )
        elif state == "held":
            self.adaptation.remember(self.scores)
            save(self.adaptation.adaptive, self.kept, frame=number)
        due = number % self.adaptation.schedule.every == 0
        if due:
            self.adaptation.update(images, teacher)
            self._learn()
        return {"agreement": agreed, "updated": due}

    def _fall_back(self, number: int, reason: str) -> None:
        assert self.adaptation is not None
        self.adaptation.fall_back()
        self.scores.extend(self.adaptation.good.scores)
        self._learn()
        self._tell("fallback", number, member="adaptive", reason=reason)

    def _draw(
        self, number: int, images: Images, answers: list[Tensor | None], assessment: Assessment, injected: bool
    ) -> None:
        member = self.injection.target if self.injection else self.sums.alarm or "teacher"
        own = answers[MEMBERS.index(member)]
        if self.overlay is None:
            height, width = images.shape[-2:]
            name = f"overlay-from-{number}.mp4" if number else "overlay.mp4"
            assert self.rate is not None
            canvas = Canvas((height, width), self.given.label_space)
            self.overlay = Overlay(self.folder / name, canvas, rate=self.rate)
        labels = assessment.labels[0].to(torch.uint8).cpu().numpy()
        shown = OverlayFrame(
            number=number,
            image=to_8bit(images[0]).permute(1, 2, 0).contiguous().cpu().numpy(),
            member=member,
            own=np.full_like(labels, 255) if own is None else own[0].max(0).indices.to(torch.uint8).cpu().numpy(),
            repaired=labels,
            answered=_answered(self.triplet, assessment.attacked[0], self.failed),
            disagreement=to_8bit(assessment.disagreement[0]).cpu().numpy(),
            score=float(extreme(assessment.tiles)[0]),
            limits=self.limits,
            learnt=f"learning what is quiet: frame {number + 1} of {self.quiet}",
            alarm=self.sums.alarm,
            failed=tuple(sorted(self.failed)),
            injected=self.injection.target if injected and self.injection else "",
        )
        self.overlay.add(shown)

    def _bare(self, images: Images) -> float:
        """Seconds of the three forwards alone."""
        with torch.inference_mode():
            begin = time.perf_counter()
            for guard in self.guards:
                guard.member(images)
            if images.is_cuda:
                torch.cuda.synchronize(images.device)
            return time.perf_counter() - begin

    def _begin(self) -> BinaryIO:
        """The open file of lines, with what this stream is beside it, as soon as there is something to tell."""
        if self.lines is None:
            write_whole(self.folder / "stream.json", json_line(self.about))
            self.lines = open(self.path, "ab")  # noqa: SIM115  # `close` closes it
        return self.lines

    def _tell(self, kind: str, number: int, **more: Any) -> None:
        self._begin()
        append_line(self.events, {"frame": number, "kind": kind, **more})

    def _write(self, line: dict[str, Any]) -> None:
        lines = self._begin()
        lines.write(json_line(line).encode())
        lines.flush()

    def close(self) -> None:
        """Finish the video; it is valid wherever the stream stopped."""
        for file in (self.overlay, self.lines):
            if file is not None:
                file.close()
        self.overlay = self.lines = None


def _mark(image: Tensor) -> str:
    """A digest of a frame as it was read."""
    return hashlib.sha256(image.contiguous().numpy().data).hexdigest()[:16]


def _about(injection: Injection | None) -> dict[str, Any] | None:
    if injection is None:
        return None
    about = {name: getattr(injection, name) for name in ("target", "first", "end", "seed")}
    return {"spec": injection.perturbation.spec, **about}


def _answered(triplet: Triplet, attacked: str, failed: frozenset[str]) -> str:
    """Who gave the corrected answer, in words."""
    if triplet.vote == "soft":
        return "the mean of all answers"
    if triplet.tile is not None:
        return "each tile by the member judged sound"
    order = ("teacher", "student", "adaptive") if triplet.vote == "ts" else ("teacher", "adaptive", "student")
    working = [name for name in order if name not in failed]
    who = order[1] if attacked == "teacher" else working[0]
    return f"the {who} network answers" if who == "adaptive" else f"the {who} answers"
