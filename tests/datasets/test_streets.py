"""The procedural street video: determinism, exact labels and depth, poses, files."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from robustseg.core import registry
from robustseg.core.errors import DatasetNotFound, RobustsegError, SpecError
from robustseg.core.spaces import CAMVID
from robustseg.core.types import Batch, Dataset
from robustseg.datasets.camvid import CamVid
from robustseg.datasets.streets import SKY_DEPTH, SPLITS, Streets, export, parse_size, read_export
from robustseg.datasets.streets.frame import intrinsics_of
from robustseg.datasets.streets.render import street_coordinates
from robustseg.datasets.streets.scene import street
from robustseg.depth.geometry import back_project, invert_pose, warp

SIZE = "64x128"


@pytest.fixture(scope="module")
def data():
    return Streets(scenes=3, frames=2, size=SIZE)


@pytest.fixture(scope="module")
def sample(data):
    return data[0]


def test_keeps_the_contract(data, sample):
    assert isinstance(data, Dataset)
    assert data.label_space == CAMVID
    assert len(data) == len(data.ids) == len(set(data.ids)) == 6
    assert data.ids[3] == sample.id.replace("9000_000000", "9001_000001") == "streets-9001_000001"
    assert sample.image.shape == (3, 64, 128)
    assert sample.image.dtype == torch.float32
    assert 0 <= sample.image.min() < sample.image.max() <= 1
    assert sample.labels.dtype == torch.int64
    assert set(sample.labels.unique().tolist()) <= {*range(11), 255}
    assert {n: tuple(t.shape) for n, t in sample.extras.items()} == {
        "depth": (64, 128), "intrinsics": (3, 3), "pose_next": (4, 4), "pose_previous": (4, 4), "moving": (64, 128),
    }  # fmt: skip
    assert Batch.of([data[0], data[1]]).extras["moving"].dtype == torch.bool


def test_builds_from_a_spec():
    built = registry.build("data", "streets(scenes=1, frames=3, size='32x64', split='val')")
    assert len(built) == 3
    assert built.ids[0] == "streets-8000_000000"


def test_same_numbers_same_frame_whatever_came_before(sample):
    from robustseg.datasets.streets import dataset, scene

    for cache in (dataset._rendered, scene.street, scene._block, scene._walker, scene._rider, scene._vehicle):
        cache.cache_clear()
    other = Streets(scenes=5, frames=7, size=SIZE)
    for index in (20, 3, 0):
        again = other[index]
    assert torch.equal(again.image, sample.image)
    assert torch.equal(again.labels, sample.labels)
    assert all(torch.equal(again.extras[name], value) for name, value in sample.extras.items())


def test_seed_scene_and_frame_each_change_the_picture(data, sample):
    for other in (Streets(seed=1, size=SIZE)[0], data.frame(9001, 0), data.frame(9000, 1)):
        assert (other.image - sample.image).abs().mean() > 0.01


def test_splits_have_scenes_of_their_own():
    spans = [range(first, first + most) for first, most in SPLITS.values()]
    assert all(not set(a) & set(b) for i, a in enumerate(spans) for b in spans[:i])


def test_labels_and_depth_do_not_depend_on_the_size():
    """At three times the size every third pixel centre is an old one: labels and depth are those of the centre."""
    small, large = (Streets(size=size).frame(9001, 3) for size in ("50x90", "150x270"))
    middle = large.labels[1::3, 1::3]
    assert (small.labels == middle).float().mean() > 0.99
    ratio = small.extras["depth"] / large.extras["depth"][1::3, 1::3]
    assert ((ratio - 1).abs() < 1e-3).float().mean() > 0.98


def test_many_frames_show_all_classes():
    data = Streets(scenes=6, frames=1, size=SIZE)
    seen = torch.cat([data[i].labels.flatten() for i in range(6)]).bincount(minlength=11)[:11]
    assert (seen > 0).all(), seen


def test_convention_sky_is_far_and_the_road_is_below(sample):
    sky, road = sample.labels == 0, sample.labels == 3
    assert (sample.extras["depth"][sky] == SKY_DEPTH).all()
    assert (sample.extras["depth"][~sky] < 1600).all()
    points = back_project(sample.extras["depth"][None], sample.extras["intrinsics"][None])[0]
    height = street(0, 9000).camera_height
    assert ((points[1][road] - height).abs() < 0.15 * height + 0.06 * points[2][road]).all()


def test_convention_driving_forward_brings_points_nearer(sample):
    assert sample.extras["pose_next"][2, 3] < -0.2
    assert sample.extras["pose_previous"][2, 3] > 0.2


def test_poses_of_neighbours_are_inverse(data):
    forth, back = data.frame(9000, 4).extras["pose_next"], data.frame(9000, 5).extras["pose_previous"]
    assert torch.allclose(invert_pose(forth), back, atol=1e-5)


@pytest.mark.parametrize("scene", [9000, 9003, 9007])
def test_convention_true_depth_and_pose_warp_the_next_frame_onto_this_one(scene):
    """Away from occlusions and moving things the warped neighbour is this frame, and much closer than unwarped."""
    data = Streets(size="128x256")
    this, following = data.frame(scene, 5), data.frame(scene, 6)
    extras = {name: value[None] for name, value in this.extras.items()}
    there = following.extras["depth"][None, None]
    warped = warp(following.image[None], extras["depth"], extras["pose_next"], extras["intrinsics"])
    seen = warp(there, extras["depth"], extras["pose_next"], extras["intrinsics"]).images[0, 0]
    moved = (extras["pose_next"] @ _homogeneous(extras)).view(4, 128, 256)[2]
    still = warp(
        following.extras["moving"][None, None].float(), extras["depth"], extras["pose_next"], extras["intrinsics"]
    )
    good = warped.valid[0] & ((seen / moved - 1).abs() < 0.02) & ~this.extras["moving"] & (still.images[0, 0] == 0)
    leaves = this.labels == 5
    assert good.float().mean() > 0.5
    error = (warped.images[0] - this.image).abs().mean(0)
    unwarped = (following.image - this.image).abs().mean(0)
    assert error[good & ~leaves].mean() < 0.025
    assert error[good].mean() < 0.6 * unwarped[good].mean()
    # the wrong direction of the pose does not do
    wrong = warp(following.image[None], extras["depth"], extras["pose_previous"], extras["intrinsics"]).images[0]
    assert (wrong - this.image).abs().mean(0)[good].mean() > 1.5 * error[good].mean()


def _homogeneous(extras):
    points = back_project(extras["depth"], extras["intrinsics"])
    return torch.cat([points, torch.ones_like(points[:, :1])], 1).flatten(2)


def test_moving_things_are_cars_and_people():
    data = Streets(scenes=3, frames=1, size=SIZE)
    labels = torch.cat([data[i].labels[data[i].extras["moving"]] for i in range(3)])
    assert len(labels)
    assert set(labels.tolist()) <= {8, 9, 10}


def test_bend_and_street_coordinates_are_inverse():
    scene = street(0, next(n for n in range(100) if abs(street(0, n).curvature) > 1e-3))
    for lateral, ahead in ((-8.0, 30.0), (3.0, 150.0), (20.0, -10.0)):
        x, z, _ = scene.bend(lateral, ahead)
        back = street_coordinates(scene, torch.tensor([x]), torch.tensor([z]))
        assert torch.allclose(torch.tensor([float(b) for b in back]), torch.tensor([lateral, ahead]), atol=2e-3)


def test_neighbours_come_along_when_asked_for():
    data = Streets(scenes=1, frames=1, size="32x64", neighbours=True)
    sample = data[0]
    assert torch.equal(sample.extras["next"], data.neighbour(0, 1).image)
    assert torch.equal(sample.extras["previous"], data.neighbour(0, -1).image)


def test_neighbours_a_step_away_come_with_their_poses():
    data = Streets(scenes=1, frames=4, size="32x64", neighbours=True, step=3)
    sample = data[3]
    assert torch.equal(sample.extras["next"], data.neighbour(3, 3).image)
    assert torch.equal(sample.extras["previous"], data[0].image)
    assert torch.equal(sample.image, Streets(scenes=1, frames=4, size="32x64")[3].image)
    single = Streets(scenes=1, frames=7, size="32x64")
    poses = [single[i].extras["pose_next"] for i in (3, 4, 5)]
    assert torch.allclose(sample.extras["pose_next"], poses[2] @ poses[1] @ poses[0], atol=1e-5)
    assert data.spec.endswith(", neighbours=True, step=3)")


def test_intrinsics_have_the_axis_in_the_middle():
    k = intrinsics_of(street(0, 0), (64, 128))
    assert k[0, 2] == 63.5
    assert k[1, 2] == 31.5
    assert k[0, 0] == k[1, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"split": "trial"},
        {"scenes": 0},
        {"scenes": 2000},
        {"frames": 0},
        {"size": "big"},
        {"size": "4x4"},
        {"seed": -1},
        {"step": 0},
    ],
)
def test_wrong_arguments_are_told(wrong):
    with pytest.raises(SpecError, match=r"expected .*, got .*; try "):
        Streets(**wrong)


def test_parse_size():
    assert parse_size("720x1280") == parse_size((720, 1280)) == (720, 1280)


def test_export_reads_back_equal(tmp_path):
    root = export(tmp_path / "out", frames=2, size="48x96")
    known, read = Streets(scenes=1, frames=2, size="48x96"), read_export(root)
    assert tuple(s.id for s in read) == known.ids
    for want, got in zip((known[0], known[1]), read, strict=True):
        assert (got.image - want.image).abs().max() <= 0.5 / 255 + 1e-6
        assert torch.equal(got.labels, want.labels)
        sky = want.extras["depth"] == SKY_DEPTH
        assert torch.equal(got.extras["depth"] == SKY_DEPTH, sky)
        assert ((got.extras["depth"] - want.extras["depth"].clamp_max(65.535)).abs()[~sky] <= 0.00051).all()
        for name in ("intrinsics", "pose_next", "pose_previous"):
            assert torch.equal(got.extras[name], want.extras[name])
    depth = np.array(Image.open(root / "testdepth" / f"{known.ids[0]}.png"))
    assert depth.dtype == np.uint16


def test_export_is_a_camvid_folder(tmp_path):
    root = export(tmp_path, frames=1, size="48x96", seed=3)
    data = CamVid(str(root), split="test")
    assert torch.equal(data[0].labels, Streets(seed=3, size="48x96")[0].labels)


def test_a_finished_or_foreign_export_is_left_as_it_is(tmp_path):
    root = export(tmp_path / "out", frames=1, size="32x64")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    export(root, frames=1, size="32x64")
    with pytest.raises(RobustsegError, match=r"expected data .streets.* of the run in .*; try another folder"):
        export(root, frames=1, size="32x64", seed=1)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    (tmp_path / "mine" / "test").mkdir(parents=True)
    (tmp_path / "mine" / "test" / "a.png").touch()
    with pytest.raises(RobustsegError, match=r"expected a new folder or one with streets\.json, got 'test/a\.png'"):
        export(tmp_path / "mine", frames=1, size="32x64")


def test_an_interrupted_export_is_completed(tmp_path):
    root = export(tmp_path, frames=1, size="32x64")
    (root / "poses.json").unlink()
    export(root, frames=1, size="32x64")
    assert len(read_export(root)) == 1


def test_export_tells_what_is_wrong(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RobustsegError, match="expected to make the folder"):
        export(tmp_path / "file" / "out", frames=1, size="32x32")
    with pytest.raises(DatasetNotFound, match=r"poses\.json"):
        read_export(tmp_path)
    for text in (
        "5",
        "{broken",
        '{"a": 5}',
        '{"a": {"intrinsics": [], "pose_next": [], "pose_previous": []}}',
        "[" * 100_000,
    ):
        (tmp_path / "poses.json").write_text(text)
        with pytest.raises(RobustsegError, match=r"expected .*poses\.json as it was written"):
            read_export(tmp_path)
    three, four = [[1.0] * 3] * 3, [[1.0] * 4] * 4
    entry = {"intrinsics": three, "pose_next": four, "pose_previous": four}
    (tmp_path / "poses.json").write_text(json.dumps({"a": entry}))
    with pytest.raises(DatasetNotFound, match="beside poses"):
        read_export(tmp_path)


def test_a_size_that_no_memory_holds_is_refused_before_it_is_rendered():
    with pytest.raises(SpecError, match=r"of which one needs 11,176 GiB"):
        Streets(size="1000000x1000000")
