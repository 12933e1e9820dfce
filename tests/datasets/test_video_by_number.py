"""A frame of a video by number is what decoding from the first frame on gives, in every container; else it is refused."""

import shutil
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustseg import api
from robustseg.core.errors import RobustsegError
from robustseg.datasets import video
from robustseg.datasets.frames import Frames
from robustseg.datasets.triplets import clip
from robustseg.datasets.video import Video, read_frames

av = pytest.importorskip("av")

COUNT, HEIGHT, WIDTH = 20, 48, 64
GOP = {"g": "6"}
H265 = {"x265-params": "keyint=6:log-level=none"}
TEXTURE = np.random.default_rng(0).integers(0, 100, (HEIGHT, WIDTH, 3)).astype(np.uint8)
SHOWN = [np.roll(TEXTURE, 3 * i, 1) + np.uint8(7 * i) for i in range(COUNT)]


def film(
    path: Path,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] = GOP,
    *,
    shown: Sequence[np.ndarray] = SHOWN,
    times: Sequence[int] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Pictures as a film at 25 frames a second, or at times in milliseconds."""
    with av.open(str(path), "w", options=container or {}) as file:
        try:
            stream = file.add_stream(codec, rate=25, options=options)
        except av.codec.codec.UnknownCodecError:
            pytest.skip(f"this PyAV has no encoder {codec}")
        stream.height, stream.width, stream.pix_fmt = *shown[0].shape[:2], pixels
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, picture in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def in_order(path: Path) -> list[np.ndarray]:
    """What PyAV decodes from the first frame on."""
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def array(image: torch.Tensor) -> np.ndarray:
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


def check_numbers(path: Path, count: int | None = COUNT) -> Video:
    """Shuffled, in order, backwards and by strides: every read is the frame of that number."""
    wanted, read = in_order(path), Video(path)
    assert len(read) == len(wanted)
    assert count is None or len(read) == count
    shuffled = np.random.default_rng(1).permutation(len(read)).tolist()
    for order in (shuffled, range(len(read)), range(0, len(read), 7), range(len(read) - 1, -1, -5)):
        assert [i for i in order if not np.array_equal(array(read[i]), wanted[i])] == []
    return read


FILMS: dict[str, tuple[str, str, dict[str, str]]] = {
    "a.mp4": ("libx264", "yuv420p", GOP),
    "open.mp4": ("libx264", "yuv420p", {**GOP, "x264-params": "open-gop=1"}),
    "refresh.mp4": ("libx264", "yuv420p", {**GOP, "x264-params": "intra-refresh=1"}),
    "a.mkv": ("libx264", "yuv420p", GOP),
    "a.avi": ("libx264", "yuv420p", GOP),
    "a.ts": ("libx264", "yuv420p", GOP),
    "a.h264": ("libx264", "yuv420p", GOP),
    "ten.mp4": ("libx264", "yuv420p10le", GOP),
    "hevc.mp4": ("libx265", "yuv420p", H265),
    "hevc.ts": ("libx265", "yuv420p", H265),
    "a.hevc": ("libx265", "yuv420p", H265),
    "b.avi": ("mpeg4", "yuv420p", {**GOP, "bf": "2"}),
    "b.m4v": ("mpeg4", "yuv420p", {**GOP, "bf": "2"}),
    "a.mpg": ("mpeg2video", "yuv420p", {**GOP, "bf": "2"}),
    "b.ts": ("mpeg2video", "yuv420p", {**GOP, "bf": "2"}),
    "a.m2v": ("mpeg2video", "yuv420p", {**GOP, "bf": "2"}),
    "a.webm": ("libvpx", "yuv420p", GOP),
    "b.webm": ("libvpx-vp9", "yuv420p", GOP),
    "alpha.webm": ("libvpx-vp9", "yuva420p", GOP),
    "av1.mp4": ("libsvtav1", "yuv420p", {"svtav1-params": "keyint=6"}),
    "c.avi": ("mjpeg", "yuvj420p", {}),
    "c.mjpeg": ("mjpeg", "yuvj420p", {}),
    "a.flv": ("flv", "yuv420p", GOP),
    "a.wmv": ("wmv2", "yuv420p", GOP),
    "a.gif": ("gif", "rgb8", {}),
    "grey.mkv": ("ffv1", "gray", {}),
    "alpha.mkv": ("ffv1", "bgra", {}),
    "a.mov": ("prores_ks", "yuv422p10le", {}),
}


@pytest.mark.parametrize("name", FILMS)
def test_every_container_gives_its_frames_by_number(tmp_path: Path, name: str) -> None:
    read = check_numbers(film(tmp_path / name, *FILMS[name]))
    assert [frame.number for frame in read_frames(tmp_path / name) if frame.image is not None] == list(range(COUNT))
    levels = [float(read[i].mean()) for i in range(COUNT)]
    assert levels == sorted(levels)  # as they were filmed


def test_the_frames_of_a_data_set_and_the_neighbours_of_a_clip_are_those(tmp_path: Path) -> None:
    path = film(tmp_path / "a.avi")
    wanted = in_order(path)
    data, triplets = Frames(str(path), every=3), clip(str(path))
    for i in (4, 1, 6):
        assert np.array_equal(array(data[i].image), wanted[3 * i])
        sample = triplets[i]
        seen = (sample.extras["previous"], sample.image, sample.extras["next"])
        assert all(np.array_equal(array(image), wanted[i + k]) for k, image in enumerate(seen))


def test_times_that_vary_and_that_start_late(tmp_path: Path) -> None:
    times = np.cumsum([3, 1, 2, 400, 5, 90, 1000, 1, 1, 1] * 2).tolist()
    check_numbers(film(tmp_path / "vary.mp4", times=times))
    check_numbers(film(tmp_path / "late.mkv", times=[t + 90_000 for t in times]))


def test_a_film_in_fragments(tmp_path: Path) -> None:
    flags = {"movflags": "+frag_keyframe+empty_moov+default_base_moof"}
    check_numbers(film(tmp_path / "a.mp4", container=flags))


def test_frames_outside_the_edit_list_are_not_shown(tmp_path: Path) -> None:
    whole = film(tmp_path / "whole.mp4")
    with av.open(str(whole)) as source, av.open(str(tmp_path / "late.mp4"), "w") as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - 5 * 512, packet.dts - 5 * 512, stream
                file.mux(packet)
    raw = bytearray(whole.read_bytes())
    at = raw.find(b"elst") + 12
    raw[at : at + 4] = struct.pack(">I", struct.unpack(">I", raw[at : at + 4])[0] // 2)
    (tmp_path / "early.mp4").write_bytes(raw)
    for path, count in ((tmp_path / "late.mp4", COUNT - 5), (tmp_path / "early.mp4", COUNT // 2)):
        check_numbers(path, count)
        assert all(frame.image is not None for frame in read_frames(path))


def test_two_recordings_in_one_file_whose_times_repeat(tmp_path: Path) -> None:
    raw = film(tmp_path / "a.ts").read_bytes()
    (tmp_path / "two.ts").write_bytes(raw + raw)
    check_numbers(tmp_path / "two.ts", 2 * COUNT)
    (tmp_path / "begins_later.ts").write_bytes(raw[: 188 * 3] + raw[188 * 9 :])
    check_numbers(tmp_path / "begins_later.ts", None)


def test_the_first_of_several_streams_is_read(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "two.mkv"), "w") as file:
        streams = [file.add_stream("libx264", rate=25, options=GOP) for _ in range(2)]
        for i, stream in enumerate(streams):
            stream.height, stream.width, stream.pix_fmt = HEIGHT << i, WIDTH, "yuv420p"
        for picture in SHOWN:
            for i, stream in enumerate(streams):
                shown = picture if i == 0 else np.full((2 * HEIGHT, WIDTH, 3), 200, np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        for stream in streams:
            file.mux(stream.encode())
    assert check_numbers(tmp_path / "two.mkv")[0].shape == (3, HEIGHT, WIDTH)


def test_a_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(film(tmp_path / "a.mp4"), tmp_path / "drive-12:30:00.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(Frames("drive-12:30:00.mp4")) == COUNT


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How reading begins: `rewind` at the first frame, `land` after a seek."""
    told: list[str] = []

    def spy(name: str) -> None:
        real: Callable[..., Any] = getattr(Video, name)
        monkeypatch.setattr(Video, name, lambda self, *args: (told.append(name[1:]), real(self, *args))[1])

    spy("_rewind")
    spy("_land")
    return told


def test_in_order_each_frame_is_decoded_once(tmp_path: Path, starts: list[str]) -> None:
    for name in ("a.mp4", "a.h264"):
        read = Video(film(tmp_path / name))
        starts.clear()
        assert len([read[i] for i in range(COUNT)]) == COUNT
        assert len(starts) == 1


def test_out_of_order_decoding_begins_at_a_key_frame(tmp_path: Path, starts: list[str]) -> None:
    for name in ("a.mp4", "a.avi", "a.mkv", "b.webm", "c.avi"):
        read = Video(film(tmp_path / name, *FILMS[name]))
        [read[i] for i in np.random.default_rng(1).permutation(COUNT).tolist()]
        assert "rewind" not in starts, name


def test_a_seek_that_leads_elsewhere_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "a.mp4")
    wanted = in_order(path)
    real = Video._land

    def astray(self: Video, time: int) -> int | None:
        place = real(self, time + 512 * 6)
        return None if place is None else place - 6

    monkeypatch.setattr(Video, "_land", astray)
    read = Video(path)
    assert all(np.array_equal(array(read[i]), wanted[i]) for i in (13, 2, 8, 19, 0))


def test_a_film_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    read = Video(film(tmp_path / "a.mp4"))
    film(tmp_path / "a.mp4", shown=SHOWN[::-1])
    with pytest.raises(RobustsegError, match=r"expected frame 3 of .*a.mp4.* as it was .*, got another; try"):
        read[3]


def test_a_fingerprint_is_of_the_file_and_the_number(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    data, triplets = Frames(str(path)), clip(str(path), intrinsics=(60, 60, 31.5, 23.5))
    known = {*map(data.fingerprint, range(COUNT)), *map(triplets.fingerprint, range(COUNT - 2))}
    assert len(known) == 2 * COUNT - 2
    assert clip(str(path), step=2).fingerprint(0) not in known
    assert clip(str(path), intrinsics=(70, 60, 31.5, 23.5)).fingerprint(0) not in known
    before = triplets.fingerprint(0)
    film(path, shown=SHOWN[:-1])
    assert clip(str(path), intrinsics=(60, 60, 31.5, 23.5)).fingerprint(0) != before


def torn(path: Path, number: int, seed: int) -> Path:
    """A film with a few other bytes in one packet."""
    with av.open(str(path)) as file:
        packet = [(p.pos, p.size) for p in file.demux(video=0) if p.size][number]
    raw, draw = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for at in draw.integers(packet[0] + packet[1] // 4, sum(packet), 3):
        raw[at] ^= int(draw.integers(1, 256))
    target = path.with_stem(f"torn-{seed}")
    target.write_bytes(raw)
    return target


def reported(path: Path) -> bool:
    """Whether PyAV, left to itself, reports damage."""
    with av.open(str(path)) as file:
        try:
            return any(frame.is_corrupt for frame in file.decode(video=0))
        except av.FFmpegError:
            return True


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts", "b.avi", "a.flv", "a.mov"])
def test_damage_that_the_decoder_reports_is_refused_with_the_frame(tmp_path: Path, name: str) -> None:
    codec, pixels, options = FILMS[name]
    path, damaged = film(tmp_path / name, codec, pixels, options), 0
    for seed in range(8):
        broken = torn(path, 3 + seed, seed)
        if not reported(broken):
            continue
        damaged += 1
        with pytest.raises(RobustsegError, match=r"expected a whole video in .*, got damage at frame \d+: .*; try"):
            api.data(f"frames({str(broken)!r})")
        assert any(frame.problem for frame in read_frames(broken))
    assert damaged


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "b.avi", "open.mp4"])
def test_after_damage_frames_keep_their_numbers_and_are_whole(tmp_path: Path, name: str) -> None:
    path = film(tmp_path / name, *FILMS[name])
    wanted = in_order(path)
    with av.open(str(path)) as file:
        packets = [(p.pos, p.size, p.pts) for p in file.demux(video=0) if p.size]
    for number in (3, 8, 9):
        at, size, time = packets[number]
        raw = bytearray(path.read_bytes())
        raw[at : at + size] = bytes(size)
        (tmp_path / f"torn-{name}").write_bytes(raw)
        frames = list(read_frames(tmp_path / f"torn-{name}"))
        good = {f.number: array(f.image) for f in frames if f.image is not None}
        assert len(frames) == COUNT
        assert 0 in good
        assert COUNT - 1 in good
        if time is not None:
            assert sorted(p[2] for p in packets).index(time) not in good
        assert [i for i, pixels in good.items() if not np.array_equal(pixels, wanted[i])] == []


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "c.avi", "a.ts", "a.mkv", "a.h264"])
@pytest.mark.parametrize("part", [0.5, 0.8])
def test_a_cut_film_is_refused_or_gives_what_is_there(tmp_path: Path, name: str, part: float) -> None:
    codec, pixels, options = FILMS[name]
    raw = film(tmp_path / name, codec, pixels, options, container={"movflags": "faststart"}).read_bytes()
    cut = tmp_path / f"cut-{name}"
    cut.write_bytes(raw[: int(part * len(raw))])
    with av.open(str(cut)) as file:
        short = file.streams.video[0].frames > sum(packet.size > 0 for packet in file.demux(video=0))
    if short or reported(cut):
        with pytest.raises(RobustsegError, match=r"got damage at frame \d+"):
            Video(cut)
    else:
        check_numbers(cut, None)


def test_a_film_cut_between_two_frames_is_short_of_its_header(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", container={"movflags": "faststart"})
    with av.open(str(path)) as file:
        at = [p.pos for p in file.demux(video=0) if p.size][12]
    path.write_bytes(path.read_bytes()[:at])
    with pytest.raises(RobustsegError, match=r"got damage at frame \d+: (the video ends after 12 of its 20|.*)"):
        Video(path)


MATRICES: dict[str, tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]]] = {
    "as it is": ((1, 0, 0, 1), lambda p: p),
    "90 clockwise": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "180": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "90 anticlockwise": ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
    "left and right": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda p: p[::-1]),
    "transposed": ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
    "transversed": ((0, -1, -1, 0), lambda p: p[::-1, ::-1].swapaxes(0, 1)),
}


def with_matrix(path: Path, turn: Sequence[float]) -> None:
    """Write (a, b, c, d) of the display matrix of an MP4."""
    a, b, c, d = (round(x * 0x10000) for x in turn)
    raw = bytearray(path.read_bytes())
    at = raw.find(b"tkhd") + 44
    raw[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    path.write_bytes(raw)


@pytest.mark.parametrize("how", MATRICES)
def test_a_display_matrix_is_applied(tmp_path: Path, how: str) -> None:
    matrix, turned = MATRICES[how]
    path = film(tmp_path / "a.mp4", shown=SHOWN[:4])
    stored = in_order(path)
    with_matrix(path, matrix)
    read = Video(path)
    for i in (2, 0, 3):
        assert np.array_equal(array(read[i]), turned(stored[i]))
    assert np.array_equal(array(next(read_frames(path)).image), turned(stored[0]))
    assert np.array_equal(array(clip(str(path))[0].image), turned(stored[1]))


def test_a_rotation_that_is_not_by_quarters_is_refused(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", shown=SHOWN[:2])
    with_matrix(path, (0.7071, 0.7071, -0.7071, 0.7071))
    for read in (lambda: Video(path), lambda: next(read_frames(path))):
        with pytest.raises(RobustsegError, match="expected a rotation by quarters or a mirrored picture"):
            read()


def test_colours_are_those_that_the_file_names(tmp_path: Path) -> None:
    red = [np.full((HEIGHT, WIDTH, 3), (200, 40, 40), np.uint8)] * 2
    named = film(tmp_path / "709.mp4", options={"x264-params": "colormatrix=bt709:transfer=bt709"}, shown=red)
    plain = film(tmp_path / "plain.mp4", shown=red)
    apart = (Video(named)[0] - Video(plain)[0]).abs().mean() * 255
    assert apart > 4  # the same values mean other colours
    ten = Video(film(tmp_path / "ten.mp4", pixels="yuv420p10le", shown=red))[0]
    assert (ten - Video(plain)[0]).abs().max() * 255 < 4


@pytest.mark.parametrize(("transfer", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
def test_hdr_is_refused(tmp_path: Path, transfer: str, name: str) -> None:
    options = {"x264-params": f"colormatrix=bt2020nc:colorprim=bt2020:transfer={transfer}"}
    path = film(tmp_path / "hdr.mp4", pixels="yuv420p10le", options=options, shown=SHOWN[:2])
    for read in (lambda: Video(path), lambda: next(read_frames(path))):
        with pytest.raises(RobustsegError, match=rf"expected video of standard dynamic range.*got HDR \({name}\); try"):
            read()


def test_transparent_pixels_are_refused(tmp_path: Path) -> None:
    clear = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 4), 120, np.uint8), format="rgba")
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "bgra"
        file.mux(stream.encode(clear))
        file.mux(stream.encode())
    with pytest.raises(RobustsegError, match=r"expected opaque pixels in .*a.mkv', got transparent ones; try"):
        Video(tmp_path / "a.mkv")


def test_pixels_that_are_not_square_stay_as_they_are(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", options={"x264-params": "sar=2/1"}, shown=SHOWN[:2])
    assert Video(path)[0].shape == (3, HEIGHT, WIDTH)


def test_lists_of_other_files_and_sound_are_refused(tmp_path: Path) -> None:
    film(tmp_path / "a.ts")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile a.ts\n")
    for name in ("list.m3u8", "list.ffconcat"):
        with pytest.raises(RobustsegError, match="got a list of other files; try"):
            Video(tmp_path / name)
    with av.open(str(tmp_path / "a.wav"), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        file.mux(stream.encode(sound))
    with pytest.raises(RobustsegError, match="got no video stream that can be decoded"):
        video.frame_rate(tmp_path / "a.wav")
