"""Video as triplets: neighbours, intrinsics, poses and depth of every loader, and one sentence for what cannot be used."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trees
from robustseg.core import registry
from robustseg.core.errors import DatasetNotFound, RobustsegError, ShapeError, SpecError
from robustseg.core.spaces import CITYSCAPES
from robustseg.datasets.cityscapes_video import cityscapes_video
from robustseg.datasets.dgp import dgp
from robustseg.datasets.kitti import kitti_odometry, kitti_raw
from robustseg.datasets.triplets import Triplets, clip
from robustseg.datasets.video import Video
from robustseg.datasets.views import Resized
from robustseg.depth.geometry import warp
from robustseg.testing import check_dataset

CAMERA = (10.0, 12.0, 3.5, 2.5)
MATRIX = torch.tensor([[10, 0, 3.5], [0, 12, 2.5], [0, 0, 1]])


def frames(folder: Path, count: int, size: tuple[int, int] = (6, 8), *, grey: bool = False) -> Path:
    """Frame i is gray level 10 i."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        values = np.full(size if grey else (*size, 3), 10 * i, np.uint8)
        Image.fromarray(values).save(folder / f"{i:03d}.png")
    return folder


def level(image: torch.Tensor) -> int:
    return round(float(image.mean()) * 25.5)


def check(data: Triplets, kind: str = "data") -> None:
    """It conforms, and its spec gives it back."""
    check_dataset(data)
    again = registry.build(kind, data.spec)
    assert (again.spec, again.ids, again.label_space) == (data.spec, data.ids, data.label_space)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Nine frames; frame i is gray level 10 i."""
    av = pytest.importorskip("av")
    path = tmp_path / "drive.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10, options={"g": "4", "qmin": "1", "qmax": "1"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for i in range(9):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 48, 3), 10 * i, np.uint8), format="rgb24")))
        file.mux(stream.encode())
    return path


def test_a_folder_of_frames(tmp_path: Path) -> None:
    data = clip(str(frames(tmp_path / "drive", 5)), intrinsics=CAMERA)
    check(data)
    assert data.ids == ("drive_001", "drive_002", "drive_003")
    sample = data[1]
    assert (level(sample.image), level(sample.extras["previous"]), level(sample.extras["next"])) == (2, 1, 3)
    assert (sample.labels == 255).all()
    assert torch.equal(sample.extras["intrinsics"], MATRIX)
    assert set(sample.extras) == {"previous", "next", "intrinsics"}


def test_steps_and_label_spaces(tmp_path: Path) -> None:
    data = clip(str(frames(tmp_path / "drive", 6)), step=2, classes="cityscapes")
    check(data)
    assert data.label_space == CITYSCAPES
    assert [(level(s.extras["previous"]), level(s.image), level(s.extras["next"])) for s in (data[0], data[1])] == [
        (0, 2, 4),
        (1, 3, 5),
    ]


def test_without_intrinsics_there_are_none(tmp_path: Path) -> None:
    assert "intrinsics" not in clip(str(frames(tmp_path / "drive", 3)))[0].extras


def test_grey_frames_become_three_colours(tmp_path: Path) -> None:
    sample = clip(str(frames(tmp_path / "drive", 3, grey=True)))[0]
    for image in (sample.image, sample.extras["next"]):
        assert image.shape == (3, 6, 8)
        assert torch.equal(image[0], image[2])


def test_a_video_is_decoded_once_and_in_order(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = clip(str(video), intrinsics=(40, 40, 23.5, 15.5), size="16x24")
    reads = []
    monkeypatch.setattr(Video, "__getitem__", lambda self, i, real=Video.__getitem__: reads.append(i) or real(self, i))
    check_dataset(data)
    seen = {i: [level(x) for x in (data[i].extras["previous"], data[i].image, data[i].extras["next"])] for i in (5, 0)}
    assert seen == {5: [5, 6, 7], 0: [0, 1, 2]}
    assert reads == list(range(9))
    assert data.files == (video,)
    assert data[0].image.shape == (3, 16, 24)
    assert data[0].extras["intrinsics"].tolist() == [[20, 0, 11.5], [0, 20, 7.5], [0, 0, 1]]
    check(data)


def test_too_few_frames_are_told(tmp_path: Path) -> None:
    place = str(frames(tmp_path / "drive", 2))
    with pytest.raises(RobustsegError, match=r"expected a drive of at least 3 frames in clip.*got 2 at most; try"):
        clip(place)
    with pytest.raises(SpecError, match="expected a step of at least 1 frame, got 0"):
        clip(place, step=0)


@pytest.mark.parametrize("size", [None, "16x24"])
def test_frames_that_change_size_are_told(tmp_path: Path, size: str | None) -> None:
    place = frames(tmp_path / "drive", 4)
    Image.fromarray(np.zeros((6, 9, 3), np.uint8)).save(place / "003.png")
    data = clip(str(place), size=size)
    data[0]
    with pytest.raises(RobustsegError, match=r"expected frames of one size, 8x6, got 9x6 in 'drive_003'; try"):
        data[1]


def test_frames_of_a_tree_that_change_size_are_told(tmp_path: Path) -> None:
    place = trees.kitti_odometry(tmp_path, sequences=("00",))
    trees.write_image(place / "sequences" / "00" / "image_2" / "000002.png", (6, 9))
    with pytest.raises(RobustsegError, match=r"expected frames of one size, 8x6, got 9x6 in '00_000002'"):
        kitti_odometry(str(place))[0]


@pytest.mark.parametrize(
    "wrong",
    [
        (0, 12, 3.5, 2.5),
        (-10, 12, 3.5, 2.5),
        (10, float("nan"), 3.5, 2.5),
        (10, float("inf"), 3.5, 2.5),
        (10, 12, 80, 2.5),
        (10, 12, 3.5, -9),
        (10, 12, float("nan"), 2.5),
        (10, 12, 3.5),
    ],
)
def test_wrong_intrinsics_are_told(tmp_path: Path, wrong: tuple[float, ...]) -> None:
    with pytest.raises(SpecError, match=r"expected intrinsics \(fx, fy, cx, cy\).*8x6 pixels of .*drive'.*got .*; try"):
        clip(str(frames(tmp_path / "drive", 3)), intrinsics=wrong)


def test_the_odometry_tree(tmp_path: Path) -> None:
    data = kitti_odometry(str(trees.kitti_odometry(tmp_path)))
    check(data)
    assert data.ids == ("00_000001", "00_000002", "06_000001", "06_000002")
    extras = data[2].extras
    assert torch.equal(extras["intrinsics"], MATRIX)
    # driven forward by half a metre: what is seen comes nearer by as much
    forward = torch.eye(4)
    forward[2, 3] = -0.5
    assert torch.allclose(extras["pose_next"], forward)
    assert torch.allclose(extras["pose_previous"], torch.linalg.inv(forward))
    one = kitti_odometry(str(tmp_path), sequences=("06",), step=1)
    check(one)
    assert one.ids == data.ids[2:]
    with pytest.raises(SpecError, match="expected a sequence that is there, got '07'; try 00, 06"):
        kitti_odometry(str(tmp_path), sequences=("07",))


def test_poses_of_camera_0_are_moved_to_the_camera_beside_it(tmp_path: Path) -> None:
    """Turned by a right angle about camera 0, the camera beside it moves too."""
    place = trees.kitti_odometry(tmp_path, sequences=("00",), frames=3)
    quarter = "0 0 1 0 0 1 0 0 -1 0 0 0"  # looks to the right, x
    (place / "poses" / "00.txt").write_text("\n".join([trees.pose_line(0), trees.pose_line(0), quarter]))
    pose = kitti_odometry(str(place))[0].extras["pose_next"]
    # camera 2 is at x = -0.25 of camera 0. After the turn it is at z = +0.25 of where camera 0 was: -0.25 * (0, 0, -1).
    at = torch.linalg.inv(pose)[:3, 3]
    assert torch.allclose(at, torch.tensor([0.25, 0, 0.25]), atol=1e-6)


def test_one_sequence_alone_and_without_poses(tmp_path: Path) -> None:
    place = trees.kitti_odometry(tmp_path, sequences=("00",)) / "sequences" / "00"
    data = kitti_odometry(str(place))
    check(data)
    assert set(data[0].extras) == {"previous", "next", "intrinsics"}
    (place / "poses.txt").write_text(trees.pose_line(0))
    with pytest.raises(RobustsegError, match=r"expected 4 poses of 12 numbers .* got 1 of 12"):
        kitti_odometry(str(place))
    (place / "poses.txt").write_text("no numbers")
    with pytest.raises(RobustsegError, match="expected 12 numbers a line"):
        kitti_odometry(str(place))
    (place / "calib.txt").write_text("P0: 1 2 3")
    with pytest.raises(RobustsegError, match="expected 12 numbers after 'P2:'"):
        kitti_odometry(str(place))
    (place / "calib.txt").unlink()
    with pytest.raises(DatasetNotFound, match=r"got no calib.txt; try this tree"):
        kitti_odometry(str(place))


def test_the_raw_tree(tmp_path: Path) -> None:
    place = trees.kitti_raw(tmp_path)
    bare = kitti_raw(str(place / "raw"))
    check(bare)
    assert bare.ids == ("2011_09_26_drive_0001_sync_0000000001", "2011_09_26_drive_0001_sync_0000000002")
    assert set(bare[0].extras) == {"previous", "next", "intrinsics"}
    data = kitti_raw(str(place / "raw"), depth=str(place / "depth"), drives=("2011_09_26_drive_0001_sync",))
    check(data)
    assert torch.equal(data[0].extras["intrinsics"], MATRIX)
    assert (data[0].extras["depth"] == 7).all()
    assert (data[1].extras["depth"] == 0).all()  # no map: nothing known
    with pytest.raises(DatasetNotFound, match="expected drives in"):
        kitti_raw(str(place / "depth" / "train"))
    with pytest.raises(DatasetNotFound, match="expected depth maps in"):
        kitti_raw(str(place / "raw"), depth=str(tmp_path))


def test_cityscapes_snippets(tmp_path: Path) -> None:
    data = cityscapes_video(str(trees.cityscapes_video(tmp_path)))
    check(data)
    assert data.ids[:4] == tuple(f"aachen_00000{n}" for n in ("0_000001", "0_000002", "0_000003", "1_000011"))
    assert len(data) == 12  # no triplet over the border of two snippets
    assert torch.equal(data[5].extras["intrinsics"], MATRIX)
    assert len(cityscapes_video(str(tmp_path), step=2)) == 4
    check(cityscapes_video(str(tmp_path), classes="camvid"))
    with pytest.raises(DatasetNotFound, match=r"expected the folder .*val"):
        cityscapes_video(str(tmp_path), split="val")
    for file in (tmp_path / "camera").rglob("*.json"):
        file.write_text("{}")
    with pytest.raises(RobustsegError, match="expected fx, fy, u0, v0 under 'intrinsic'"):
        cityscapes_video(str(tmp_path))
    for file in (tmp_path / "camera").rglob("*.json"):
        file.unlink()
    with pytest.raises(DatasetNotFound, match="expected a calibration in"):
        cityscapes_video(str(tmp_path))


def scene(folder: Path, **changed: object) -> Path:
    entries = []
    for camera in ("A", "B"):
        for i in range(3):
            image = trees.write_image(folder / f"{camera}_{i}.png", seed=i)
            depth = trees.depth_map(folder / f"{camera}_{i}_depth.png", np.full((6, 8), 1.5 * i))
            world = np.eye(4)
            world[2, 3] = i
            camera_numbers = dict(zip(("fx", "fy", "cx", "cy"), CAMERA, strict=True))
            entry = {"image": image.name, "depth": depth.name, "camera": camera, "intrinsics": camera_numbers}
            entries.append({**entry, "pose_world_from_camera": world.tolist(), **changed})
    (folder / "meta.json").write_text(json.dumps(entries))
    return folder


def test_lidar_scenes(tmp_path: Path) -> None:
    place = scene(tmp_path / "scene")
    single, triplets = dgp(str(place)), dgp(str(place), neighbours=True)
    check(single)
    check(triplets)
    assert single.ids[:4] == ("scene-A_000000", "scene-A_000001", "scene-A_000002", "scene-B_000000")
    assert [float(single[i].extras["depth"].amax()) for i in range(3)] == [0, 1.5, 3]
    assert triplets.ids == ("scene-A_000001", "scene-B_000001")
    assert float(triplets[0].extras["pose_next"][2, 3]) == -1
    with pytest.raises(DatasetNotFound, match=r"expected meta.json"):
        dgp(str(tmp_path))
    with pytest.raises(SpecError, match="expected intrinsics"):
        dgp(str(scene(tmp_path / "blind", intrinsics={"fx": 0, "fy": 1, "cx": 1, "cy": 1})))
    with pytest.raises(RobustsegError, match=r"expected frames with image, depth, camera.*KeyError\('fx'\)"):
        dgp(str(scene(tmp_path / "bare", intrinsics={})))


def test_depth_of_another_size_or_kind_is_told(tmp_path: Path) -> None:
    place = scene(tmp_path / "scene")
    trees.depth_map(place / "A_0_depth.png", np.ones((5, 8)))
    with pytest.raises(ShapeError, match="expected depth of the image's size 8x6"):
        dgp(str(place))[0]
    trees.write_mask(place / "A_1_depth.png", [1])
    with pytest.raises(RobustsegError, match="expected 16 bits a pixel"):
        dgp(str(place))[1]
    (place / "A_2_depth.png").write_bytes(b"torn")
    with pytest.raises(RobustsegError, match="expected a readable depth map"):
        dgp(str(place))[2]
    (place / "B_0_depth.png").unlink()
    with pytest.raises(DatasetNotFound, match="expected a file at"):
        dgp(str(place))[3]


def test_real_kitti_poses_and_camera_turn_far_points_right(shared_data: Path) -> None:
    """With poses, calibration and a flat road before the camera, the warped neighbour is nearer to the frame than as it is."""
    data = Resized(kitti_odometry(str(shared_data / "video" / "kitti_odometry_06")), (96, 320))
    assert len(data) == 49
    sample = data[20]
    k = sample.extras["intrinsics"]
    rows = torch.arange(96.0) - float(k[1, 2])
    depth = (1.65 * k[1, 1] / rows.clamp_min(1e-3)).clamp(max=1000).view(1, 96, 1).expand(1, 96, 320)
    warped = warp(sample.extras["next"][None], depth, sample.extras["pose_next"][None], k[None])
    road = warped.valid[0] & (rows > 15).view(96, 1)
    road[:, :120] = road[:, 200:] = False  # the lane ahead
    after = (warped.images[0] - sample.image).abs().mean(0)[road].mean()
    before = (sample.extras["next"] - sample.image).abs().mean(0)[road].mean()
    assert after < 0.8 * before


def test_real_lidar_depth_warps_one_frame_onto_another(shared_data: Path) -> None:
    """Measured depth and poses bring the error of the grey values down, as the data's page says."""
    data = dgp(str(shared_data / "video" / "dgp_scene_02"), neighbours=True)
    sample = data[0]
    extras = {name: value[None] for name, value in sample.extras.items()}
    known = sample.extras["depth"] > 0
    warped = warp(extras["next"], extras["depth"].clamp_min(0.1), extras["pose_next"], extras["intrinsics"])
    known &= warped.valid[0]
    assert int(known.sum()) > 1000
    after = (warped.images[0] - sample.image).mean(0).abs()[known].mean()
    before = (sample.extras["next"] - sample.image).mean(0).abs()[known].mean()
    assert after < 0.6 * before
