"""Depth from video beside the labels: it learns, resumes bit for bit, weighs gradients as asked, and says what is wrong."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor

from robustseg.core import registry
from robustseg.core.errors import MissingExtra, RobustsegError, SpecError
from robustseg.core.files import read_lines
from robustseg.core.types import Batch
from robustseg.datasets.augment import Augmentation
from robustseg.datasets.triplets import Uncalibrated, frames_of
from robustseg.depth.geometry import shrink_intrinsics
from robustseg.depth.photometric import view_synthesis_loss
from robustseg.depth.stereo import Searched
from robustseg.networks import weights
from robustseg.networks.depth import MultiTask
from robustseg.networks.erfnet import ERFNet
from robustseg.networks.motion import SHIFT_SCALE, MotionNetwork
from robustseg.training import DepthTask, Recipe, Step, multitask, train
from robustseg.training.multitask import ALIGNMENT_WEIGHT, SecondTask, _Small

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


def second(task: DepthTask, recipe: Recipe = QUICK) -> SecondTask:
    fabric = Fabric(accelerator="cpu", devices=1)
    augment = Augmentation(recipe.crop, recipe.scale, recipe.flip, recipe.colour)
    return SecondTask(task, small(), augment=augment, batch_size=2, seed=0, fabric=fabric)


def test_learns_two_images_and_their_depth(tmp_path: Path) -> None:
    recipe = dataclasses.replace(QUICK, epochs=40, check_every=40, ema=0.9, learning_rate=3e-3, balance=False, **STILL)
    steps: list[Step] = []
    run(tmp_path, DepthTask(VIDEO, 0.3), recipe=recipe, on_step=steps.append)
    depth = [s.depth_loss or 0.0 for s in steps]
    labels = [s.loss - d for s, d in zip(steps, depth, strict=True)]
    assert labels[-1] < 0.6 * labels[0]
    begin = round(multitask.UNMASKED * 40)  # from here on with labels by search
    assert sum(depth[-4:]) < 0.8 * sum(depth[begin : begin + 4])
    assert all(0 < (s.masked or 0) < 1 for s in steps[-4:])
    assert {s.passes for s in steps} == {4}


def test_resumes_bit_for_bit(tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    def cut(step: Step) -> None:
        if step.step == 2:
            raise Cut

    best = run(tmp_path / "whole")
    with pytest.raises(Cut):
        run(tmp_path / "cut", on_step=cut)
    torch.rand(7)  # whatever happened in between
    assert run(tmp_path / "cut").read_bytes() == best.read_bytes()
    states = [torch.load(tmp_path / f / "last.ckpt", weights_only=True)["network"] for f in ("whole", "cut")]
    assert any(name.startswith("motion.") for name in states[0])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert weights.notes_of(best)["recipe"]["depth"] == {
        "video": VIDEO,
        "weight": 0.1,
        "moving": [],
        "scale": [1.0, 1.0],
    }


def test_another_weight_or_video_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    for other in (DepthTask(VIDEO, 0.2), DepthTask(VIDEO.replace("frames=4", "frames=3"))):
        with pytest.raises(RobustsegError, match=r"expected depth .*of the run in .* got .*another folder"):
            run(tmp_path, other)


def test_video_has_a_scale_of_its_own() -> None:
    true = registry.build("data", VIDEO)[0].extras["intrinsics"][0, 0]
    for scale in (1.0, 1.5):
        task = second(DepthTask(VIDEO, scale=(scale, scale)), dataclasses.replace(QUICK, scale=(0.5, 0.5)))
        assert torch.allclose(task.batches[0].extras["intrinsics"][:, 0, 0], scale * true)


def test_auto_masking_begins_after_a_tenth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def spy(*given: Any, auto_mask: bool, **options: Any) -> Any:
        asked.append(auto_mask)
        return view_synthesis_loss(*given, auto_mask=auto_mask, **options)

    monkeypatch.setattr(multitask, "view_synthesis_loss", spy)
    run(tmp_path, recipe=dataclasses.replace(QUICK, epochs=20, check_every=20))
    assert len(asked) == 20
    assert asked == [False] * 2 + [True] * 18


def test_video_smaller_than_the_crop_is_refused() -> None:
    with pytest.raises(
        RobustsegError, match="expected video at least as large as the crop, 32x48, got 29x43; try a larger"
    ):
        second(DepthTask(VIDEO, scale=(0.9, 1.0)))


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
    assert [s.depth_loss for s in steps] == [None, None]


def test_an_unknown_focal_length_is_learned(tmp_path: Path) -> None:
    task = second(DepthTask(VIDEO))
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
    task = second(DepthTask(VIDEO, 1.0), dataclasses.replace(QUICK, **STILL))
    batch = task.batches[0]
    frames, previous, following, intrinsics = frames_of(batch)
    scene = task.trained(frames, frames, previous, following, intrinsics).scene
    forth = task.trained.motion(previous, frames)
    torch.testing.assert_close(scene.pose_previous @ forth, torch.eye(4).expand(2, 4, 4))
    torch.testing.assert_close(scene.pose_next, task.trained.motion(frames, following))
    torch.testing.assert_close(scene.intrinsics, intrinsics)


def test_once_motion_is_about_right_frames_are_aligned_and_it_learns_from_that(monkeypatch: pytest.MonkeyPatch) -> None:
    task = second(DepthTask(VIDEO, 1.0, moving=("car",)), dataclasses.replace(QUICK, **STILL))
    task.trained.network.module.segmentation.head.bias.data.zero_()[8] = 1e4  # cars all over
    video = task.batches[0]
    scene = task.look(task.trained, video)[0]
    shift = torch.eye(4).repeat(4, 1, 1)
    shift[:, :3, 3] = torch.arange(1.0, 13).view(4, 3) / 100
    given: list[Tensor] = []

    def moved(images: Tensor, others: Tensor, depth: Tensor, pose: Tensor, intrinsics: Tensor, **_: object) -> Tensor:
        given.extend((images, others, depth, pose))
        return shift @ pose

    monkeypatch.setattr(multitask, "align", moved)
    told = scene.pose_next.clone().requires_grad_()
    pulls = {}
    for progress in (0.0, 1.0):
        view = task.view(task.trained.network, scene._replace(pose_next=told), video, progress=progress)
        pulls[progress] = torch.autograd.grad(view.loss.sum(), told)[0]
    frames, previous, following, _ = frames_of(video)
    assert torch.equal(given[0], torch.cat([frames, frames]))
    assert torch.equal(given[1], torch.cat([previous, following]))
    assert given[2].isnan().all()  # what moves tells nothing of motion
    assert torch.equal(given[3], torch.cat([scene.pose_previous, scene.pose_next]))
    # all that pulls at the network's answer is its distance to what was found, each number as hard as any other
    expected = -torch.ones(2, 3) * ALIGNMENT_WEIGHT / (3 * SHIFT_SCALE)
    torch.testing.assert_close(pulls[1.0][:, :3, 3], expected)
    assert pulls[0.0].abs().max() == 0  # nothing but what moves is seen here
    # judged by what was found, where nothing learns without what the network lacks
    task.task = dataclasses.replace(task.task, moving=())
    with torch.no_grad():
        seen = task.view(task.trained.network, scene, video).loss
    before, after = (shift @ given[3]).chunk(2)
    given_to_loss = (scene.disparity, *frames_of(video)[:3], before, after, scene.intrinsics)
    assert torch.equal(seen, view_synthesis_loss(*given_to_loss).loss)


def test_depth_learns_from_a_search_on_small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multitask, "ROWS", 16)  # frames of 32 rows are halved
    task = second(DepthTask(VIDEO, 1.0))
    video = task.batches[0]
    scene = task.trained(video.images, *frames_of(video)).scene
    given: list[Any] = []

    def nearer(images: Tensor, others: Any, depth: Tensor, poses: Any, intrinsics: Tensor) -> Searched:
        """All that is on the left half, by a factor."""
        given.extend((images, *others, depth, *poses, intrinsics))
        half = torch.where(torch.arange(depth.shape[2]) < depth.shape[2] // 2, 0.8, 1.0)
        return Searched(depth * half, torch.ones_like(depth, dtype=torch.bool))

    monkeypatch.setattr(multitask, "search_depth", nearer)
    lost = task.view(task.trained.network, scene, video).loss
    assert [tuple(x.shape) for x in given[:4]] == [(2, 3, 16, 24)] * 3 + [(2, 16, 24)]
    torch.testing.assert_close(given[0], F.avg_pool2d(video.images, 2))
    torch.testing.assert_close(given[6], shrink_intrinsics(video.extras["intrinsics"], 2))
    assert not given[3].requires_grad
    monkeypatch.setattr(multitask, "search_depth", lambda *given: Searched(given[2], given[2] > 0))
    kept = task.view(task.trained.network, scene, video).loss
    torch.testing.assert_close(lost - kept, torch.full((2,), -math.log(0.8) / 2), atol=1e-4, rtol=0)
    pulled = torch.autograd.grad((lost - kept).sum(), scene.disparity)[0]
    left, right = pulled.chunk(2, 2)
    assert (left < 0).all()  # a larger disparity is nearer, and loses less
    assert left.abs().sum() > 0.9 * pulled.abs().sum()
    assert right.abs().max() < left.abs().min()


def test_what_moves_has_no_label() -> None:
    task = second(DepthTask(VIDEO, 1.0, moving=("car",)))
    task.trained.network.module.segmentation.head.bias.data.zero_()[8] = 1e4  # cars all over
    video = task.batches[0]
    scene = task.trained(video.images, *frames_of(video)).scene
    lost = task.view(task.trained.network, scene, video).loss
    assert torch.autograd.grad(lost.sum(), scene.disparity)[0].abs().max() == 0


def test_a_small_pixel_moves_if_any_of_it_does() -> None:
    """Frames of a height that does not halve, of which one pixel moves."""
    task = second(DepthTask(VIDEO, 1.0))
    video = task.batches[0]
    odd = Batch(
        video.images[..., :31, :],
        video.labels[:, :31],
        video.ids,
        {name: x[..., :31, :] if x.dim() == 4 else x for name, x in video.extras.items()},
    )
    scene = task.trained.scene(task.trained.network.disparity(video.images)[:, :31], *frames_of(odd))
    moving = torch.zeros(2, 31, 48, dtype=torch.bool)
    moving[0, 5, 7] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multitask, "ROWS", 15)
        small = _Small.of(scene, odd, moving)
    assert small.images.shape == (2, 3, 15, 24)
    assert small.depth.shape == small.moving.shape == (2, 15, 24)
    assert small.moving.nonzero().tolist() == [[0, 2, 3]]
    aligned = small.aligned(torch.cat([scene.pose_previous, scene.pose_next]).detach())
    assert aligned.isfinite().all()
    assert small.lacks(aligned).isfinite().all()


def test_motion_starts_near_rest() -> None:
    pose = MotionNetwork()(torch.rand(2, 3, 32, 48), torch.rand(2, 3, 32, 48))
    torch.testing.assert_close(pose, torch.eye(4).expand(2, 4, 4), atol=0.1, rtol=0)


def test_what_the_network_sees_move_is_left_out() -> None:
    task = second(DepthTask(VIDEO, 0.5, moving=("car",)))
    network = task.trained.network
    head = network.module.segmentation.head
    for class_seen, left_out in ((8, True), (3, False)):
        head.bias.data.zero_()[class_seen] = 1e4
        video = task.batches[0]
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
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(4):
        picture(registry.build("data", VIDEO)[0].image, frames / f"{i:06d}.png")
    still = f"clip('{frames}', intrinsics=(50.0, 50.0, 23.5, 15.5))"
    with pytest.raises(RobustsegError, match=r"expected video of a moving camera, got 'clip.* try a drive"):
        run(tmp_path / "run", DepthTask(still))
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
