"""Depth from video beside the labels: it learns, resumes bit for bit, weighs gradients as asked, and says what is wrong."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from robustseg.core import registry
from robustseg.core.errors import MissingExtra, RobustsegError, SpecError
from robustseg.core.files import read_lines
from robustseg.core.types import Batch
from robustseg.datasets.triplets import Uncalibrated, frames_of
from robustseg.depth.geometry import depth_to_disparity, disparity_to_depth
from robustseg.depth.photometric import view_synthesis_loss
from robustseg.networks import weights
from robustseg.networks.depth import MultiTask
from robustseg.networks.erfnet import ERFNet
from robustseg.networks.motion import SHIFT_SCALE, MotionNetwork, Scene
from robustseg.training import Adversary, DepthTask, Recipe, Step, train
from robustseg.training import depth as depth_module
from robustseg.training.depth import ALIGNMENT_WEIGHT, UNMASKED, DepthFromVideo
from robustseg.training.fabric import fabric_on
from robustseg.training.run import task_of
from robustseg.training.task import Setup

LABELLED = "streets(scenes=2, frames=1, size='32x48', split='train')"
VIDEO = "streets(scenes=1, frames=4, size='32x48', split='train', neighbours=True)"
STILL = {"scale": (1.0, 1.0), "flip": False, "colour": 0.0}
QUICK = Recipe(epochs=3, batch_size=2, crop=(32, 48), check_every=1)


def small() -> MultiTask:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return MultiTask(encoder="erfnet", width=0.25)


def run(folder: Path, depth: DepthTask | None = None, **changed: Any) -> Path:
    labelled = registry.build("data", LABELLED)
    given = {"network": small(), "data": labelled, "holdout": labelled, "recipe": QUICK, **changed}
    return train(given.pop("network"), given.pop("data"), folder=folder, depth=depth or DepthTask(VIDEO), **given)


def task_with(depth: DepthTask, recipe: Recipe = QUICK) -> DepthFromVideo:
    labelled = registry.build("data", LABELLED)
    task = task_of(Setup(small(), labelled, labelled, recipe, fabric_on("cpu")), depth=depth)
    assert isinstance(task, DepthFromVideo)
    return task


def test_learns_two_images_and_their_depth(tmp_path: Path) -> None:
    recipe = dataclasses.replace(QUICK, epochs=24, check_every=24, ema=0.9, learning_rate=5e-3, balance=False, **STILL)
    steps: list[Step] = []
    run(tmp_path, DepthTask(VIDEO, 0.3), recipe=recipe, on_step=steps.append)
    depth = [s.figures["depth_loss"] for s in steps]
    labels = [s.loss - d for s, d in zip(steps, depth, strict=True)]
    assert labels[-1] < 0.7 * labels[0]
    begin = round(UNMASKED * 24)  # from here on with labels by search
    assert sum(depth[-4:]) < 0.9 * sum(depth[begin : begin + 4])
    assert all(0 < s.figures["masked"] < 1 for s in steps[-4:])
    assert {s.passes for s in steps} == {4}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    run(folder)
    return folder


def test_resumes_bit_for_bit(finished: Path, tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    def cut(step: Step) -> None:
        if step.step == 2:
            raise Cut

    with pytest.raises(Cut):
        run(tmp_path, on_step=cut)
    torch.rand(7)  # whatever happened in between
    best = run(tmp_path)
    assert best.read_bytes() == (finished / best.name).read_bytes()
    states = [torch.load(f / "last.ckpt", weights_only=True)["network"] for f in (finished, tmp_path)]
    assert any(name.startswith("motion.") for name in states[0])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert weights.notes_of(best)["recipe"]["depth"] == {
        "video": VIDEO,
        "weight": 0.1,
        "moving": [],
        "scale": [1.0, 1.0],
    }


def test_another_weight_or_video_is_refused(finished: Path) -> None:
    for other in (DepthTask(VIDEO, 0.2), DepthTask(VIDEO.replace("frames=4", "frames=3"))):
        with pytest.raises(RobustsegError, match=r"expected (depth|video) .*of the run in .* got .*another folder"):
            run(finished, other)


def test_video_has_a_scale_of_its_own() -> None:
    true = registry.build("data", VIDEO)[0].extras["intrinsics"][0, 0]
    for scale in (1.0, 1.5):
        task = task_with(DepthTask(VIDEO, scale=(scale, scale)), dataclasses.replace(QUICK, scale=(0.5, 0.5)))
        assert torch.allclose(task.video_batches[0].extras["intrinsics"][:, 0, 0], scale * true)


def test_auto_masking_begins_after_a_tenth(tmp_path: Path) -> None:
    """Every pixel of frames that stand still is masked, so that their loss is above 0 only without auto-masking."""
    task = task_with(DepthTask(standing_still(tmp_path)), dataclasses.replace(QUICK, epochs=20))
    task.trained.motion.layers[-1].bias.data.fill_(1.0)  # not at rest
    with torch.no_grad():
        lost = [task.loss(task.trained, task.batches[step], step).figures["depth_loss"] for step in (0, 1, 2, 19)]
    assert min(lost[:2]) > 0.01
    assert lost[2:] == [0, 0]


def standing_still(folder: Path) -> str:
    """A video of four equal frames."""
    frames = folder / "frames"
    frames.mkdir()
    for i in range(4):
        picture(registry.build("data", VIDEO)[0].image, frames / f"{i:06d}.png")
    return f"clip('{frames}', intrinsics=(50.0, 50.0, 23.5, 15.5))"


def test_video_smaller_than_the_crop_is_refused() -> None:
    with pytest.raises(
        RobustsegError, match="expected video at least as large as the crop, 32x48, got 29x43; try a larger"
    ):
        task_with(DepthTask(VIDEO, scale=(0.9, 1.0)))


def changed_by(folder: Path, depth: DepthTask | None, **how: Any) -> dict[str, bool]:
    """Which parts of the network a training of one step changes."""
    network, before = small(), small().state_dict()
    labelled = registry.build("data", LABELLED)
    data = {"data": labelled, "holdout": labelled, **how}
    recipe = dataclasses.replace(QUICK, epochs=1)
    train(network, data.pop("data"), folder=folder, recipe=recipe, depth=depth, **data)
    parts: dict[str, bool] = {}
    for name, tensor in network.state_dict().items():
        part = name.split(".")[1]
        parts[part] = parts.get(part, False) or not torch.equal(tensor, before[name])
    return parts


def test_one_number_makes_every_training_of_a_comparison(tmp_path: Path) -> None:
    video = registry.build("data", VIDEO)
    single, control, both, alone = (
        changed_by(tmp_path / str(i), depth, **how)
        for i, (depth, how) in enumerate(
            (
                (None, {}),
                (DepthTask(VIDEO, 0), {}),
                (DepthTask(VIDEO, 0.5), {}),
                (DepthTask(VIDEO, 1), {"data": video, "holdout": video}),
            )
        )
    )
    assert single == control == {"encoder": True, "segmentation": True, "depth": False}
    assert both == {"encoder": True, "segmentation": True, "depth": True}
    assert alone == {"encoder": True, "segmentation": False, "depth": True}
    (line,) = read_lines(tmp_path / "3" / "history.jsonl")
    assert line["miou"] is None
    assert weights.notes_of(tmp_path / "3" / "best.safetensors")["holdout_depth_loss"] == line["depth_loss"] > 0


def test_the_control_sees_the_video_in_batch_norm_alone(tmp_path: Path) -> None:
    recipe = dataclasses.replace(QUICK, epochs=1, **STILL)
    steps: list[Step] = []
    videos = (VIDEO, VIDEO.replace("scenes=1", "seed=5, scenes=1"))
    paths = [run(tmp_path / str(i), DepthTask(v, 0), recipe=recipe, on_step=steps.append) for i, v in enumerate(videos)]
    first, other = (weights.read_state(path) for path in paths)
    assert not torch.equal(
        first["module.encoder.down1.norm.running_mean"], other["module.encoder.down1.norm.running_mean"]
    )
    assert [s.figures for s in steps] == [{}, {}]


def test_an_unknown_focal_length_is_learned(tmp_path: Path) -> None:
    task = task_with(DepthTask(VIDEO))
    assert task.trained.focal is None
    video = Uncalibrated(registry.build("data", VIDEO))
    assert video[0].extras["intrinsics"].tolist() == [[48, 0, 23.5], [0, 48, 15.5], [0, 0, 1]]
    for i, pixels in enumerate(("48.0", None)):
        frames = tmp_path / str(i)
        frames.mkdir()
        for frame in range(4):
            picture(registry.build("data", VIDEO)[frame].image, frames / f"{frame:06d}.png")
        known = f", intrinsics=({pixels}, {pixels}, 23.5, 15.5)" if pixels else ""
        path = run(
            tmp_path / f"run{i}", DepthTask(f"clip('{frames}'{known})"), recipe=dataclasses.replace(QUICK, epochs=1)
        )
        assert path.is_file()
        state = torch.load(tmp_path / f"run{i}" / "last.ckpt", weights_only=True)["network"]
        assert ("focal" in state) == (pixels is None)
        assert pixels or float(state["focal"]) != 0


def picture(image: Tensor, path: Path) -> None:
    Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(path)


def test_motion_is_seen_in_the_order_of_time() -> None:
    task = task_with(DepthTask(VIDEO, 1.0), dataclasses.replace(QUICK, **STILL))
    batch = task.video_batches[0]
    frames, previous, following, intrinsics = frames_of(batch)
    scene = task.trained(frames, frames, previous, following, intrinsics).scene
    forth = task.trained.motion(previous, frames)
    torch.testing.assert_close(scene.pose_previous @ forth, torch.eye(4).expand(2, 4, 4))
    torch.testing.assert_close(scene.pose_next, task.trained.motion(frames, following))
    torch.testing.assert_close(scene.intrinsics, intrinsics)


LARGER = VIDEO.replace("32x48", "64x96")


def larger(**task: Any) -> DepthFromVideo:
    """A task on frames large enough to be aligned and searched."""
    return task_with(DepthTask(LARGER, 1.0, **task), dataclasses.replace(QUICK, crop=(64, 96), **STILL))


def true_scene(video: Batch) -> Scene:
    return Scene(
        depth_to_disparity(video.extras["depth"]).clamp_min(0),
        video.extras["pose_previous"],
        video.extras["pose_next"],
        video.extras["intrinsics"],
    )


@pytest.fixture(scope="module")
def street() -> Batch:
    video = registry.build("data", LARGER)
    return Batch.of([video[0], video[1]])


def test_once_motion_is_about_right_frames_are_aligned_and_it_learns_from_that(street: Batch) -> None:
    task, true, offset = larger(), true_scene(street), torch.tensor([0.1, -0.05, 0.1])
    network = task.setup.network
    shift = torch.eye(4).repeat(2, 1, 1)
    shift[:, :3, 3] = offset
    told = (shift @ true.pose_next).requires_grad_()
    wrong = true._replace(pose_previous=shift @ true.pose_previous, pose_next=told)
    with torch.no_grad():
        best, seen = (task.view(network, scene, street).loss for scene in (true, wrong))
        frames = (street.images, street.extras["previous"], street.extras["next"])
        unaligned = view_synthesis_loss(wrong.disparity, *frames, *wrong[1:]).loss
    assert (unaligned > 1.25 * best).all()
    assert (seen < 1.03 * best).all()
    # the answer of the motion network is pulled to what was found, each number as hard as any other
    pull = torch.autograd.grad(task.view(network, wrong, street).loss.sum(), told)[0]
    expected = offset.sign().expand(2, 3) * ALIGNMENT_WEIGHT / (3 * SHIFT_SCALE)
    torch.testing.assert_close(pull[:, :3, 3], expected)


def test_what_moves_tells_nothing_of_motion(street: Batch) -> None:
    task, true = larger(moving=("car",)), true_scene(street)
    task.trained.network.module.segmentation.head.bias.data.zero_()[8] = 1e4  # cars all over
    told = true.pose_next.clone().requires_grad_()
    for progress in (0.0, 1.0):
        view = task.view(task.trained.network, true._replace(pose_next=told), street, progress=progress)
        assert torch.autograd.grad(view.loss.sum(), told)[0].abs().max() == 0


@pytest.mark.parametrize("rows", [96, 32])  # as they are, and halved
def test_depth_learns_from_a_search(street: Batch, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one half is too near or too far, it is pulled the other way than the rest, and the loss grows."""
    monkeypatch.setattr(depth_module, "ROWS", rows)
    task, true = larger(), true_scene(street)
    lost: dict[float, Tensor] = {}
    for factor in (0.7, 1.0, 1.5):
        distance = disparity_to_depth(true.disparity)
        distance[:, :, :48] *= factor
        disparity = depth_to_disparity(distance).clamp_min(0).requires_grad_()
        scene = true._replace(disparity=disparity)
        with torch.no_grad():
            unsearched = task.view(task.setup.network, scene, street).loss
        searched = task.view(task.setup.network, scene, street).loss
        lost[factor] = (searched - unsearched).detach()
        left, right = torch.autograd.grad(searched.sum(), disparity)[0].chunk(2, 2)
        if factor != 1:
            assert (left.sum() - right.sum()).sign() == math.copysign(1, 1 - factor)
    assert (lost[0.7] > lost[1.0]).all()
    assert (lost[1.5] > lost[1.0]).all()


def test_what_moves_has_no_label() -> None:
    task = task_with(DepthTask(VIDEO, 1.0, moving=("car",)))
    task.trained.network.module.segmentation.head.bias.data.zero_()[8] = 1e4  # cars all over
    video = task.video_batches[0]
    scene = task.trained(video.images, *frames_of(video)).scene
    lost = task.view(task.trained.network, scene, video).loss
    assert torch.autograd.grad(lost.sum(), scene.disparity)[0].abs().max() == 0


def test_frames_of_a_height_that_does_not_halve_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth_module, "ROWS", 15)
    task = task_with(DepthTask(VIDEO, 1.0))
    video = task.video_batches[0]
    odd = Batch(
        video.images[..., :31, :],
        video.labels[:, :31],
        video.ids,
        {name: x[..., :31, :] if x.dim() == 4 else x for name, x in video.extras.items()},
    )
    scene = task.trained.scene(task.trained.network.disparity(video.images)[:, :31], *frames_of(odd))
    assert task.view(task.trained.network, scene, odd).loss.isfinite().all()


def test_motion_starts_near_rest() -> None:
    pose = MotionNetwork()(torch.rand(2, 3, 32, 48), torch.rand(2, 3, 32, 48))
    torch.testing.assert_close(pose, torch.eye(4).expand(2, 4, 4), atol=0.1, rtol=0)


def test_what_the_network_sees_move_is_left_out() -> None:
    task = task_with(DepthTask(VIDEO, 0.5, moving=("car",)))
    network = task.trained.network
    head = network.module.segmentation.head
    for class_seen, left_out in ((8, True), (3, False)):
        head.bias.data.zero_()[class_seen] = 1e4
        video = task.video_batches[0]
        masked = task.look(task.trained, video)[1].masked
        assert bool(masked.all()) == left_out


def test_a_loss_that_is_no_number_names_its_sample_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    network, kept = small(), b""

    def spoil(step: Step) -> None:
        nonlocal kept
        kept = (tmp_path / "last.ckpt").read_bytes()
        network.module.depth.head.bias.data.fill_(torch.nan)

    with pytest.raises(RobustsegError, match=r"expected a finite loss, got nan at step \d in 'streets-0000_00000\d'"):
        run(tmp_path, network=network, on_step=spoil)
    assert (tmp_path / "last.ckpt").read_bytes() == kept
    run(tmp_path)  # goes on from there


def test_a_camera_that_stands_still_is_said(tmp_path: Path) -> None:
    with pytest.raises(RobustsegError, match=r"expected video of a moving camera, got 'clip.* try a drive"):
        run(tmp_path / "run", DepthTask(standing_still(tmp_path)))
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_tensorboard_shows_depth_warps_and_masks(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, recipe=dataclasses.replace(QUICK, epochs=1), tensorboard=True)
    shown = EventAccumulator(str(tmp_path)).Reload()
    assert {"loss", "depth_loss", "masked", "learning_rate", "held-out miou"} <= set(shown.Tags()["scalars"])
    wanted = {"frame", "disparity", "warped previous", "warped next", "masked"}
    assert {tag.split("/")[0] for tag in shown.Tags()["images"]} == wanted


def test_events_without_tensorboard_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra, match=r"expected the package 'tensorboard', got none; try: pip install"):
        run(tmp_path, tensorboard=True)


@pytest.mark.parametrize(
    ("task", "changed", "sentence"),
    [
        ({"scale": (2.0, 1.0)}, {}, r"expected 0 < lowest <= highest scale of video, got 2.0 and 1.0; try 1 and 1.2"),
        ({"weight": 1.5}, {}, r"expected a weight of depth of 0 \(the control\) to 1 \(depth alone\), got 1.5"),
        ({"moving": ("tram",)}, {}, "expected classes of .* that move, got 'tram'; try sky, "),
        (
            {"video": LABELLED},
            {},
            r"expected 'previous' of each sample, got none for 'streets-0000_000000' .*try video",
        ),
        ({}, {"network": ERFNet(width=0.25)}, "expected a network with a depth decoder, got 'erfnet.*try multitask"),
        ({}, {"recipe": dataclasses.replace(QUICK, crop=(30, 48))}, "multiples of 8 for depth, got 30x48; try 32x48"),
    ],
)
def test_nonsense_is_one_sentence(task: dict[str, Any], changed: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises((RobustsegError, SpecError), match=sentence):
        run(tmp_path, DepthTask(**{"video": VIDEO, **task}), **changed)


def test_an_adversary_has_nothing_to_attack_where_depth_is_learned_alone(tmp_path: Path) -> None:
    with pytest.raises(
        RobustsegError, match=r"expected labels for the adversary 'fgsm.* got depth alone; try a weight"
    ):
        run(tmp_path, DepthTask(VIDEO, 1.0), adversary=Adversary("fgsm(budget='linf:4/255')"))
