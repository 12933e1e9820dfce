"""Streams: alarm and all-clear, what is written, what a stopped stream goes on with, and members or frames that fail."""

import math
import time
import weakref
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from robustseg import api
from robustseg.cli import app
from robustseg.core.errors import RobustsegError
from robustseg.core.files import json_line, read_lines
from robustseg.core.spaces import label_space
from robustseg.core.types import Network
from robustseg.datasets.video import Frame
from robustseg.monitor import stream
from robustseg.monitor.adapt import Schedule
from robustseg.monitor.cusum import Limits
from robustseg.monitor.guard import Guard
from robustseg.monitor.overlay import ALARM, QUIET, Canvas, OverlayFrame
from robustseg.monitor.stream import Injection, watch_stream
from robustseg.monitor.triplet import Triplet
from robustseg.report.timeline import COLUMNS, outcome, read_timeline, write_timeline
from robustseg.testing import gray_space

HEIGHT, WIDTH = 24, 40


class Channel(Network):
    """Two classes by the brightness of one colour: on grey images all three colours tell the same."""

    def __init__(self, channel: int):
        super().__init__(gray_space(2), f"channel({channel})")
        self.channel = channel

    def forward(self, images: Tensor) -> Tensor:
        seen = images[:, self.channel] - 0.5
        return torch.stack([-seen, seen], 1)


class Troubled(Channel):
    """Fails as told on some calls, counted from 0."""

    def __init__(self, channel: int, trouble: dict[int, str]):
        super().__init__(channel)
        self.trouble, self.calls = trouble, 0

    def forward(self, images: Tensor) -> Tensor:
        kind, self.calls = self.trouble.get(self.calls, ""), self.calls + 1
        if kind == "raise":
            raise RuntimeError("out of memory")
        if kind == "hang":
            time.sleep(0.4)
        logits = super().forward(images)
        return logits * math.nan if kind == "nan" else logits[..., 1:] if kind == "shape" else logits


def triplet(**members: Network) -> Triplet:
    known = {"teacher": Channel(0), "student": Channel(1), "adaptive": Channel(2)}
    return Triplet(**(known | members)).eval()


def frames(count: int, *, broken: tuple[int, ...] = ()) -> Iterator[Frame]:
    """Grey noise; a few pixels of one colour differ, so that scores are not all 0."""
    for number in range(count):
        rng = np.random.default_rng(number)
        image = np.repeat(rng.choice([0.3, 0.7], (1, HEIGHT, WIDTH)), 3, 0)
        image[0, 0, : rng.integers(0, WIDTH)] = 0.5
        fine = number not in broken
        yield Frame(number, torch.from_numpy(image).float() if fine else None, "" if fine else "torn")


ATTACK = "fgsm(budget='linf:100/255')"


def attack(first: int = 60, end: int = 70, target: str = "teacher") -> Injection:
    return Injection(api.perturbation(ATTACK), target, first, end)


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    return list(read_lines(folder / name))


SEEN = {
    "attacked": "none",
    "failed": [],
    "alarm": "",
    "up": 0,
    "down": 0,
    "injected": False,
    "latency": 0.1,
    "seconds": 0.2,
}


def write(
    folder: Path, about: dict[str, Any], frames: list[dict[str, Any]], told: Sequence[dict[str, Any]] = ()
) -> None:
    """The files of a stream that was watched."""
    for name, lines in (("stream.json", [{"format": 2, **about}]), ("frames.jsonl", frames), ("events.jsonl", told)):
        (folder / name).write_text("".join(map(json_line, lines)))


def events(folder: Path) -> list[tuple[Any, ...]]:
    return [(e["kind"], e["frame"], *([e["member"]] if "member" in e else [])) for e in read(folder, "events.jsonl")]


def test_an_attack_is_noticed_at_once_and_cleared_soon_after(tmp_path: Path) -> None:
    watch_stream(triplet(), frames(100), source="noise", folder=tmp_path, quiet=30, injection=attack(), video=False)
    told = events(tmp_path)
    assert told[:2] == [("quiet", 30), ("alarm", 60, "teacher")]
    assert told[2][0] == "clear"
    assert 70 <= told[2][1] <= 80
    assert told[3:] == [("end", 100)]
    lines = read(tmp_path, "frames.jsonl")
    assert [line["frame"] for line in lines] == list(range(100))
    assert [line["injected"] for line in lines] == [60 <= i < 70 for i in range(100)]
    assert all(line["attacked"] == ("teacher" if line["injected"] else "none") for line in lines)
    assert all(0 < line["latency"] <= line["seconds"] for line in lines)
    assert [line["frame"] for line in lines if "bare" in line] == list(range(9, 100, 10))


def test_an_attack_on_the_student_is_blamed_on_the_student(tmp_path: Path) -> None:
    injection = attack(target="student")
    watch_stream(triplet(), frames(90), source="noise", folder=tmp_path, quiet=30, injection=injection, video=False)
    assert ("alarm", 60, "student") in events(tmp_path)
    assert not any(kind == "alarm" and who == "teacher" for kind, _, *rest in events(tmp_path) for who in rest)


def test_own_thresholds_in_place_of_a_quiet_prefix(tmp_path: Path) -> None:
    fitted = Triplet(Channel(0), Channel(1), Channel(2), threshold=(-0.2, 0.2))
    watch_stream(fitted, frames(20), source="noise", folder=tmp_path, quiet=0, injection=attack(5, 10), video=False)
    assert ("alarm", 5, "teacher") in events(tmp_path)
    with pytest.raises(RobustsegError, match="two thresholds"):
        watch_stream(triplet(), frames(20), source="noise", folder=tmp_path / "other", quiet=0)


def stopped(count: int) -> Iterator[Frame]:
    yield from frames(count)
    raise KeyboardInterrupt


def timeless(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in ("latency", "seconds", "bare")} for line in lines]


@pytest.mark.parametrize("stop", [20, 37])
def test_a_stopped_stream_goes_on_to_the_same_end(tmp_path: Path, stop: int) -> None:
    av = pytest.importorskip("av")
    common: dict[str, Any] = {"source": "noise", "quiet": 20, "injection": attack(34, 40)}
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    watch_stream(triplet(), frames(50), folder=whole, video=False, **common)
    with pytest.raises(KeyboardInterrupt):
        watch_stream(triplet(), stopped(stop), folder=parted, **common)
    # as a kill leaves it: a torn line, and an event of a frame that has no line
    with open(parted / "frames.jsonl", "ab") as file:
        file.write(b'{"frame": ')
    with open(parted / "events.jsonl", "ab") as file:
        file.write(json_line({"frame": stop, "kind": "alarm", "member": "student"}).encode())
    watch_stream(triplet(), frames(50), folder=parted, **common)
    for name in ("frames.jsonl", "events.jsonl"):
        assert timeless(read(parted, name)) == timeless(read(whole, name))
    for name, count in (("overlay.mp4", stop), (f"overlay-from-{stop}.mp4", 50 - stop)):
        with av.open(str(parted / name)) as container:
            assert sum(1 for _ in container.decode(video=0)) == count
    # and once more: nothing is left to do
    watch_stream(triplet(), frames(50), folder=parted, **common)
    assert timeless(read(parted, "events.jsonl")) == timeless(read(whole, "events.jsonl"))
    assert ("alarm", 34, "teacher") in events(whole)


def test_a_folder_of_another_stream_is_refused(tmp_path: Path) -> None:
    watch_stream(triplet(), frames(3), source="noise", folder=tmp_path, quiet=2, video=False)
    with pytest.raises(RobustsegError, match="got another quiet: 5 in place of 2"):
        watch_stream(triplet(), frames(3), source="noise", folder=tmp_path, quiet=5, video=False)


def changed(count: int, *numbers: int, problem: str = "") -> Iterator[Frame]:
    for frame in frames(count):
        assert frame.image is not None
        fine = frame.number not in numbers
        yield (
            frame if fine else Frame(frame.number, None, problem) if problem else frame._replace(image=frame.image / 2)
        )


@pytest.mark.parametrize("problem", ["", "torn"])
def test_a_stream_of_other_frames_is_not_gone_on_with(tmp_path: Path, problem: str) -> None:
    common: dict[str, Any] = {"source": "noise", "folder": tmp_path, "quiet": 5, "video": False}
    with pytest.raises(KeyboardInterrupt):
        watch_stream(triplet(), stopped(9), **common)
    before = (tmp_path / "frames.jsonl").read_bytes()
    with pytest.raises(RobustsegError, match=r"expected frame 7 as .* knows it, got another image"):
        watch_stream(triplet(), changed(12, 7, problem=problem), **common)
    with pytest.raises(RobustsegError, match="expected the 9 frames that were watched and those after them, got 8"):
        watch_stream(triplet(), frames(8), **common)
    assert (tmp_path / "frames.jsonl").read_bytes() == before
    watch_stream(triplet(), frames(12), **common)
    assert len(read(tmp_path, "frames.jsonl")) == 12


def test_a_stream_of_other_code_or_thresholds_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common: dict[str, Any] = {"source": "noise", "quiet": 5, "video": False}
    watch_stream(triplet(), frames(9), folder=tmp_path / "code", **common)
    monkeypatch.setattr(stream, "code_of", lambda *things: "other")
    with pytest.raises(RobustsegError, match="got another code: other in place of"):
        watch_stream(triplet(), frames(9), folder=tmp_path / "code", **common)
    fitted = Triplet(Channel(0), Channel(1), Channel(2), threshold=(-0.2, 0.2))
    common = common | {"quiet": 0, "folder": tmp_path / "thresholds"}
    watch_stream(fitted, frames(9), **common)
    other = fitted.with_(threshold=(-0.3, 0.3))
    other.spec = fitted.spec
    with pytest.raises(RobustsegError, match="got another threshold"):
        watch_stream(other, frames(9), **common)


@pytest.mark.parametrize("total", [None, 8])
def test_a_stream_shorter_than_its_quiet_frames_is_refused_and_leaves_nothing(
    tmp_path: Path, total: int | None
) -> None:
    common: dict[str, Any] = {"source": "noise", "folder": tmp_path / "out", "total": total}
    with pytest.raises(RobustsegError, match="more than the 8 quiet frames at the start, got a stream of 8"):
        watch_stream(triplet(), frames(8), quiet=8, **common)
    assert not list(tmp_path.glob("out/*"))
    watch_stream(triplet(), frames(8), quiet=4, video=False, **common)
    assert read_timeline(tmp_path / "out").frames == 8


@pytest.mark.parametrize("total", [None, 8])
def test_an_attack_after_the_end_is_refused(tmp_path: Path, total: int | None) -> None:
    with pytest.raises(RobustsegError, match="within the 8 frames of the stream, got one from frame 60"):
        watch_stream(
            triplet(), frames(8), source="n", folder=tmp_path, quiet=4, injection=attack(), video=False, total=total
        )
    assert len(read(tmp_path, "frames.jsonl")) == 8 if total is None else not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["raise", "shape"])
def test_a_member_that_cannot_take_the_first_frame_is_named(tmp_path: Path, kind: str) -> None:
    why = {"raise": "RuntimeError: out of memory", "shape": "an answer "}[kind]
    with pytest.raises(RobustsegError, match=rf"answer of the student, channel\(1\), for frames of 24x40, got {why}"):
        watch_stream(triplet(student=Troubled(1, {0: kind})), frames(9), source="n", folder=tmp_path, quiet=4)
    assert not list(tmp_path.iterdir())
    watch_stream(triplet(student=Troubled(1, {0: "nan"})), frames(9), source="n", folder=tmp_path, quiet=4, video=False)
    assert "A member failed 1 time, the last time the student at frame 0: an answer that is not finite." in outcome(
        read_timeline(tmp_path)
    )


@pytest.mark.parametrize("name", ["frames.jsonl", "events.jsonl", "overlay.mp4", "adaptive.safetensors"])
def test_files_of_something_else_are_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RobustsegError, match=rf"one with stream\.json, got '{name}' of something else"):
        watch_stream(triplet(), frames(3), source="noise", folder=tmp_path, schedule=Schedule(), video=False)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_an_unreadable_frame_is_an_event_and_the_stream_goes_on(tmp_path: Path) -> None:
    watch_stream(triplet(), frames(40, broken=(7, 35)), source="noise", folder=tmp_path, quiet=20, video=False)
    assert events(tmp_path) == [("unreadable", 7), ("quiet", 20), ("unreadable", 35), ("end", 40)]
    assert read(tmp_path, "frames.jsonl")[7] == {"frame": 7, "problem": "torn"}
    assert "2 frames without a verdict." in outcome(read_timeline(tmp_path))


@pytest.mark.parametrize("kind", ["raise", "nan", "shape"])
def test_a_member_that_fails_is_told_and_the_others_go_on(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("av")
    broken = triplet(teacher=Troubled(0, dict.fromkeys(range(25, 28), kind)))
    watch_stream(broken, islice(frames(40), 29), source="noise", folder=tmp_path, quiet=20)
    assert events(tmp_path)[1:] == [("failed", 23, "teacher"), ("recovered", 26, "teacher"), ("end", 29)]
    line = read(tmp_path, "frames.jsonl")[24]
    assert line["failed"] == ["teacher"]
    assert line["attacked"] == "unknown"
    assert line["score"] is None


def test_when_all_members_fail_the_stream_still_goes_on(tmp_path: Path) -> None:
    members = {name: Troubled(i, {4: "raise"}) for i, name in enumerate(("teacher", "student", "adaptive"))}
    watch_stream(triplet(**members), frames(8), source="noise", folder=tmp_path, quiet=5, video=False)
    assert read(tmp_path, "frames.jsonl")[4] == {"frame": 4, "problem": "no member answered"}
    assert len(read(tmp_path, "frames.jsonl")) == 8


def test_a_member_that_hangs_is_left_out_until_it_is_back() -> None:
    images = torch.rand(1, 3, 4, 4)
    guard = Guard(Troubled(0, {1: "hang"}), timeout=0.1)
    assert guard(images) is not None
    assert guard(images) is None
    assert guard.problem == "no answer within 0.1 s"
    begin = time.monotonic()
    assert guard(images) is None
    assert time.monotonic() - begin < 0.1, "nobody waits for what hangs already"
    time.sleep(0.5)
    answer = guard(images)
    assert answer is not None
    assert torch.equal(answer, Channel(0)(images))


def test_memory_does_not_grow_with_the_stream(tmp_path: Path) -> None:
    alive: set[int] = set()
    most = 0

    def watched() -> Iterator[Frame]:
        for frame in frames(120):
            alive.add(frame.number)
            weakref.finalize(frame.image, alive.discard, frame.number)
            yield frame
            nonlocal most
            most = max(most, len(alive))

    watch_stream(triplet(), watched(), source="noise", folder=tmp_path, video=False)
    assert most <= 3


def test_what_makes_no_sense_is_said(tmp_path: Path) -> None:
    with pytest.raises(RobustsegError, match="after the 50 quiet frames"):
        watch_stream(triplet(), frames(1), source="noise", folder=tmp_path, injection=attack(10, 20))
    with pytest.raises(RobustsegError, match="to a later one"):
        attack(10, 10)
    with pytest.raises(RobustsegError, match="a target of"):
        attack(target="T")


def shown(size: tuple[int, int], **more: Any) -> OverlayFrame:
    labels = np.zeros(size, np.uint8)
    parts: dict[str, Any] = {
        "number": 0,
        "image": np.full((*size, 3), 120, np.uint8),
        "member": "teacher",
        "own": labels + 3,
        "repaired": labels,
        "answered": "the teacher answers",
        "disagreement": labels,
        "score": 0.1,
        "limits": Limits(-0.1, 0.3, 0.1),
        "learnt": "learning",
        "alarm": "",
        "failed": (),
        "injected": "",
    }
    return OverlayFrame(**(parts | more))


@pytest.mark.parametrize("size", [(375, 1242), (360, 480), (180, 240), (1024, 2048)])
def test_the_overlay_has_the_proportions_of_the_frames(size: tuple[int, int]) -> None:
    space = label_space("camvid")
    canvas = Canvas(size, space)
    width, height = canvas.panel
    assert width / height == pytest.approx(size[1] / size[0], rel=0.01)
    quiet, alarm = canvas.draw(shown(size)), canvas.draw(shown(size, alarm="teacher", injected="teacher"))
    assert quiet.shape[0] % 2 == quiet.shape[1] % 2 == 0
    assert 600 < quiet.shape[1] < 1400
    assert tuple(quiet[2, quiet.shape[1] // 2]) == QUIET
    assert tuple(alarm[2, quiet.shape[1] // 2]) == ALARM
    # the panel of the member is where its labels show: the colour of road, over a grey picture
    other = canvas.draw(shown(size, alarm="teacher", injected="teacher", own=np.zeros(size, np.uint8)))
    changed = np.argwhere((other != alarm).any(2))
    rows, columns = changed[changed[:, 0] < alarm.shape[0] // 2].T
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (height, width)
    found = alarm[rows.min() + height // 2, columns.min() + width // 2].astype(int)
    wanted = 0.62 * np.array(space.palette[3]) + 0.38 * 120
    assert np.abs(found - wanted).max() < 4


def test_the_strip_remembers_no_more_than_it_shows() -> None:
    canvas = Canvas((HEIGHT, WIDTH), gray_space(2))
    for number in range(3):
        canvas.draw(shown((HEIGHT, WIDTH), number=number, score=math.nan if number == 1 else 0.1))
    assert canvas.past.maxlen is not None
    assert canvas.past.maxlen < 500


def test_the_timeline_says_what_happened_and_stands_alone(tmp_path: Path) -> None:
    common: dict[str, Any] = {"source": "<noise>", "quiet": 30, "injection": attack(), "video": False}
    watch_stream(triplet(), frames(100), folder=tmp_path, **common)
    noticed, cleared, quiet = outcome(read_timeline(tmp_path))
    assert noticed == "The attack on the teacher was noticed in its first frame."
    assert cleared.startswith("All clear ")
    assert quiet == "No alarm outside the attack in 100 frames."
    text = write_timeline(tmp_path).read_text()
    assert "&lt;noise&gt;" in text
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("tl-hover") > 100
    speed = read_timeline(tmp_path).speed
    assert speed.rate > 0
    assert 0 < speed.median <= speed.slowest
    assert 0 < speed.ratio < 1.5


def test_an_attack_that_nobody_notices_is_said(tmp_path: Path) -> None:
    weak = Injection(api.perturbation("fgsm(budget='linf:1/255')"), "teacher", 60, 70)
    watch_stream(triplet(), frames(80), source="noise", folder=tmp_path, quiet=30, injection=weak, video=False)
    assert outcome(read_timeline(tmp_path))[0] == "The attack on the teacher was not noticed."


@pytest.mark.parametrize(
    ("told", "sentences"),
    [
        ([("alarm", 6), ("clear", 8)], ["noticed 1 frame after it began", "ended 2 frames before the attack did"]),
        ([("alarm", 5)], ["noticed in its first frame", "did not clear"]),
        ([("alarm", 5), ("clear", 7), ("alarm", 8), ("clear", 12)], ["in its first frame", "All clear 3 frames after"]),
        ([("alarm", 1), ("clear", 2)], ["was not noticed", "1 alarm outside the attack in 20 frames"]),
    ],
)
def test_the_timeline_words_what_became_of_an_attack(tmp_path: Path, told: Any, sentences: list[str]) -> None:
    about = {"source": "x", "quiet": 0, "attack": {"target": "teacher", "first": 5, "end": 10}}
    lines = [{"frame": i, "score": 0, **SEEN} for i in range(20)]
    write(tmp_path, about, lines, [{"kind": kind, "frame": frame, "member": "teacher"} for kind, frame in told])
    said = outcome(read_timeline(tmp_path))
    for sentence, got in zip(sentences, said, strict=False):
        assert sentence in got


def test_a_long_timeline_is_thinned_and_keeps_its_peaks(tmp_path: Path) -> None:
    rows = [{"frame": i, "score": 0.9 if i == 5555 else 0.1, **SEEN} for i in range(10_000)]
    write(tmp_path, {"source": "long", "quiet": 0, "attack": None}, rows)
    timeline = read_timeline(tmp_path)
    assert len(timeline.columns) <= COLUMNS
    assert max(column.high for column in timeline.columns) == 0.9
    assert timeline.speed.rate == pytest.approx(5)
    write_timeline(tmp_path)


MEMBER = "erfnet(classes='camvid', width=0.25)"
DATA = "streets(scenes=1, frames=3, size='16x32')"


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["monitor", *arguments])
    text = " ".join((result.stdout + result.stderr).split())
    assert result.exit_code == code, text
    assert "Traceback" not in text
    return text


def test_the_command_watches_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("av")
    spec = f"triplet(teacher={MEMBER}, student={MEMBER}, adaptive={MEMBER})"
    images = tmp_path / "images"
    images.mkdir()
    for frame in frames(12):
        assert frame.image is not None
        pixels = (frame.image * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(images / f"{frame.number:02}.png")
    given = ("--triplet", spec, "--quiet", "6", "--target", "s", "--attack", "fgsm(budget='linf:8/255')")
    given += ("--from", "8", "--to", "10", "--out", str(tmp_path / "out"))
    text = run(*given, "--input", str(images))
    assert "frames/s" in text
    assert "timeline:" in text
    written = {p.name for p in (tmp_path / "out").iterdir()}
    assert written == {"stream.json", "frames.jsonl", "events.jsonl", "overlay.mp4", "timeline.html"}
    assert [line["injected"] for line in read(tmp_path / "out", "frames.jsonl")] == [i in (8, 9) for i in range(12)]


def test_the_command_watches_a_data_set(tmp_path: Path) -> None:
    spec = f"triplet(teacher={MEMBER}, student={MEMBER}, adaptive={MEMBER})"
    run("--triplet", spec, "--input", DATA, "--quiet", "2", "--no-video", "--out", str(tmp_path / "out"))
    assert len(read(tmp_path / "out", "frames.jsonl")) == 3


def test_a_mistyped_input_leaves_the_folder_usable(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--triplet", f"triplet({MEMBER}, {MEMBER}, {MEMBER})", "--quiet", "2", "--no-video", "--out", "out")
    for mistyped in ("./drvie", "drive.mp4", "steets(scenes=1)", "drvie"):
        run(*words, "--input", mistyped, code=2)
        assert not Path("out").exists()
    run(*words, "--input", DATA)


def test_a_long_spec_is_no_file_name(tmp_path: Path) -> None:
    member = f"jpeg(jpeg(jpeg({MEMBER}, quality=75), quality=75), quality=75)"
    spec = f"triplet(teacher={member}, student={member}, adaptive={member})"
    data = f"joined({', '.join([DATA] * 12)})"
    assert min(len(spec), len(data)) > 255
    run("--triplet", spec, "--input", data, "--quiet", "2", "--no-video", "--out", str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--triplet", MEMBER, "--input", DATA), "expected a triplet, got"),
        (("--triplet", ".", "--input", DATA), "got no teacher.safetensors"),
        (("--triplet", MEMBER, "--input", "none/there.mp4"), "expected a triplet"),
        (("--triplet", MEMBER, "--input", DATA, "--attack", ATTACK, "--target", "X"), "a target T, S or A"),
        (("--triplet", MEMBER, "--input", DATA, "--attack", ATTACK, "--from", "9", "--to", "3"), "to a later one"),
    ],
)
def test_the_command_says_what_to_mend(tmp_path: Path, monkeypatch: Any, arguments: Any, sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in run(*arguments, "--out", str(tmp_path / "out"), code=2)
    assert not (tmp_path / "out").exists()
