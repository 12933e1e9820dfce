"""Networks of depth and motion measured on streets: the truth has no error, baselines have theirs, sizes do not matter."""

import numpy as np
import pytest
import torch
from PIL import Image

from commands import run
from robustseg.core import registry
from robustseg.core.errors import RobustsegError
from robustseg.core.files import read_lines
from robustseg.core.types import Dataset, Network, Sample
from robustseg.datasets.streets import Streets
from robustseg.depth.geometry import rigid_pose
from robustseg.evaluation.depth import (
    RowDepth,
    evaluate_depth,
    judge,
    motion_errors,
    straight_ahead,
    told_by,
    trained_on_video,
    turned,
    view_losses,
)
from robustseg.networks import weights
from robustseg.networks.depth import MultiTask
from robustseg.networks.motion import Scene, WithMotion
from robustseg.results.depth_metrics import depth_figures
from robustseg.synthesis.output import depth_sheet
from robustseg.testing import gray_space


@pytest.fixture(scope="module")
def street() -> list[Sample]:
    data = Streets(scenes=1, frames=6, size=(32, 64), neighbours=True)
    return [data[i] for i in range(6)]


class Known(Dataset):
    """Samples as a data set, with some extras left out."""

    spec, label_space = "known", gray_space(11)

    def __init__(self, samples, without=()):
        self.samples, self.without = samples, without
        self.ids = tuple(s.id for s in samples)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        s = self.samples[index]
        return Sample(s.image, s.labels, s.id, {n: v for n, v in s.extras.items() if n not in self.without})


class Oracle(Network):
    """Finds the frame it is shown and answers its true depth, some factor off; remembers the sizes it was shown."""

    def __init__(self, samples, factor=1.0):
        super().__init__(gray_space(11))
        self.samples, self.factor, self.sizes = samples, factor, []

    def _of(self, image):
        means = torch.stack([s.image.mean() for s in self.samples])
        return self.samples[int((means - image.mean()).abs().argmin())]

    def depth(self, images):
        self.sizes.append(tuple(images.shape[-2:]))
        truth = self._of(images[0]).extras["depth"][None, None]
        return self.factor * torch.nn.functional.interpolate(truth, images.shape[-2:], mode="nearest-exact")[:, 0]


class Driver(torch.nn.Module):
    """Answers the true pose from the frame it is shown."""

    def __init__(self, samples):
        super().__init__()
        self.known = samples

    def forward(self, frames, following, intrinsics):
        return torch.stack([next(s for s in self.known if torch.equal(s.image, f)).extras["pose_next"] for f in frames])


def test_the_truth_has_no_error_up_to_a_factor(street):
    data = Known(street)
    sums = evaluate_depth(Oracle(street, factor=0.1), data)
    assert sums.ids == data.ids
    assert depth_figures(sums)["abs_rel"] == pytest.approx(0, abs=1e-5)
    assert sums.scales == pytest.approx(np.full(6, 10), rel=1e-4)


def test_what_the_network_sees_is_resized_and_the_truth_is_not(street):
    oracle = Oracle(street)
    sums = evaluate_depth(oracle, Known(street[:1]), size=(16, 32))
    assert oracle.sizes == [(16, 32)]
    known = street[0].extras["depth"]
    assert sums.pixels.tolist() == [int(((known > 1e-3) & (known < 80)).sum())]
    assert 0 < depth_figures(sums)["abs_rel"] < 0.5


def test_samples_without_depth_are_left_out(street):
    class Half(Known):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return sample if index else Sample(sample.image, sample.labels, sample.id)

    assert evaluate_depth(Oracle(street), Half(street[:2])).ids == (street[1].id,)
    with pytest.raises(RobustsegError, match="expected depth in known, got none; try"):
        evaluate_depth(Oracle(street), Known(street[:1], without=("depth",)))


def test_rows_of_a_network_are_the_baseline(street):
    rows = RowDepth.of(Oracle(street), Known(street), size=(32, 64))
    expected = torch.stack([s.extras["depth"] for s in street]).transpose(0, 1).flatten(1).quantile(0.5, 1)
    assert torch.allclose(rows.rows, expected, rtol=1e-4)
    images = torch.rand(2, 3, 32, 10)
    assert torch.allclose(rows.depth(images), expected.view(1, 32, 1).expand(2, 32, 10), rtol=1e-4)
    assert rows.depth(torch.rand(1, 3, 64, 8)).shape == (1, 64, 8)
    error = depth_figures(evaluate_depth(rows, Known(street)))["abs_rel"]
    assert error > 0.05


def test_true_motion_has_no_error_and_straight_ahead_some(street):
    data = Known(street)
    assert motion_errors(Driver(street), data) == pytest.approx(np.zeros(3), abs=1e-4)
    assert len(motion_errors(Driver(street), data, snippet=3)) == 5
    ahead = motion_errors(straight_ahead, data)
    assert (ahead > 1e-4).all()
    assert (ahead < 0.5).all()
    with pytest.raises(RobustsegError, match="expected 'pose_next' of each frame"):
        motion_errors(straight_ahead, Known(street, without=("pose_next",)))


def left_by_a_training(folder, weight=1.0, calibrated=True) -> WithMotion:
    """The files of a training with video."""
    trained = WithMotion(
        registry.build("network", "multitask(encoder='erfnet', width=0.25)"), 1.0, calibrated=calibrated
    )
    torch.save({"average": trained.state_dict()}, folder / "last.ckpt")
    task = {"video": "streets(scenes=1, frames=2, size='32x64', neighbours=True)", "weight": weight}
    weights.save(trained.network, folder / "best.safetensors", recipe={"depth": task})
    return trained.eval()


@pytest.mark.parametrize("calibrated", [True, False])
def test_depth_and_motion_of_a_training_are_read_from_its_folder(street, tmp_path, calibrated):
    trained, image = left_by_a_training(tmp_path, calibrated=calibrated), street[0].image[None]
    with torch.no_grad():
        next(trained.network.module.depth.parameters()).add_(1)  # the last weights are not the best ones
    torch.save({"average": trained.state_dict()}, tmp_path / "last.ckpt")
    found = trained_on_video(tmp_path)
    assert motion_errors(told_by(found), Known(street)) == pytest.approx(motion_errors(told_by(trained), Known(street)))
    assert torch.equal(found.network.depth(image), trained.network.depth(image))
    assert (found.focal is None) == calibrated


def test_other_folders_are_told(tmp_path):
    with pytest.raises(RobustsegError, match=r"expected the checkpoint of a training with video .* got FileNotFound"):
        trained_on_video(tmp_path / "nowhere")
    left_by_a_training(tmp_path, weight=0.0)
    with pytest.raises(RobustsegError, match="expected a training that learned depth, got the control"):
        trained_on_video(tmp_path)
    weights.save(registry.build("network", "erfnet(width=0.25)"), tmp_path / "best.safetensors", recipe={})
    with pytest.raises(RobustsegError, match=r"expected a training with video in .* got another"):
        trained_on_video(tmp_path)
    (tmp_path / "best.safetensors").unlink()
    with pytest.raises(RobustsegError, match=r"expected .*best\.safetensors"):
        trained_on_video(tmp_path)


def test_a_turn_that_a_motion_does_not_know_is_found_by_aligning(street):
    away = rigid_pose(torch.tensor([[0.0, 0.03, 0.0]]), torch.zeros(1, 3))
    truth = Driver(street)

    def blind(frames, following, intrinsics):
        pose = truth(frames, following, intrinsics)
        return torch.cat([(away @ pose)[..., :3], pose[..., 3:]], 2)  # another turn, the same shift

    wrong, mended = (motion_errors(motion, Known(street)).mean() for motion in (blind, turned(Oracle(street), blind)))
    assert mended < 0.5 * wrong


def test_what_a_data_set_can_tell_is_judged(street):
    street = street[:5]  # one snippet of poses
    trained = WithMotion(registry.build("network", "multitask(encoder='erfnet', width=0.25)"), 0.5).eval()
    rows = RowDepth(np.linspace(60, 5, 32).astype(np.float32))
    found = judge(trained, rows, Known(street), size=(32, 64))
    assert list(found) == ["depth", "views", "pose"]
    assert found["depth"].baseline == depth_figures(evaluate_depth(rows, Known(street)))
    assert found["pose"].baseline["ate"] == pytest.approx(motion_errors(straight_ahead, Known(street)).mean())
    by_rows = motion_errors(turned(rows, straight_ahead), Known(street)).mean()
    assert found["pose"].baseline["ate turned"] == pytest.approx(by_rows)
    losses = [view_losses(trained, rows, sample) for sample in street]
    assert found["views"].baseline["loss"] == pytest.approx(np.mean([lost["row median"] for lost in losses]))
    assert list(judge(trained, rows, Known(street, without=("previous", "pose_next")), size=(32, 64))) == ["depth"]
    some = [street[0], *(Known(street, without=("depth", "previous"))[i] for i in range(1, 5))]
    gaps = judge(trained, rows, Known(some), size=(32, 64))
    assert gaps["depth"].network == depth_figures(evaluate_depth(trained.network, Known(street[:1])))
    assert gaps["views"].network["loss"] == pytest.approx(losses[0]["network"])
    assert list(judge(trained, rows, Known(street[::2]), size=(32, 64))) == ["depth", "views"]  # no drive any more
    with pytest.raises(RobustsegError, match="expected frames that are each followed by their neighbour"):
        motion_errors(straight_ahead, Known(street[::2]))
    with pytest.raises(RobustsegError, match="expected depth, neighbours or poses in known, got none; try"):
        judge(trained, rows, Known(street, without=("depth", "next")), size=(32, 64))


def test_depth_is_told_from_rows_where_the_motion_network_fails(street, monkeypatch):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained = WithMotion(registry.build("network", "multitask(encoder='erfnet', width=0.25)"), 0.5).eval()
    oracle = Oracle(street)
    rows = RowDepth.of(oracle, Known(street), size=(32, 64))
    monkeypatch.setattr(trained.network, "depth", oracle.depth)
    views = judge(trained, rows, Known(street, without=("depth", "pose_next")), size=(32, 64))["views"]
    assert views.network["loss aligned"] < 0.7 * views.network["loss"]  # the motion network is untrained
    assert views.network["loss aligned"] < views.baseline["loss aligned"]


def test_a_camera_that_is_known_comes_before_one_that_was_learned(street):
    trained = WithMotion(registry.build("network", "multitask(encoder='erfnet', width=0.25)"), 0.5, calibrated=False)
    rows, unknown = RowDepth(np.full(32, 8, np.float32)), ("depth", "pose_next")
    known, blind = Known(street[1:3], without=unknown), Known(street[1:3], without=(*unknown, "intrinsics"))
    seen = {}
    for focal in (0.0, 0.5):
        with torch.no_grad():
            trained.focal.fill_(focal)
        seen[focal] = [
            judge(trained.eval(), rows, data, size=(32, 64))["views"].network["loss"] for data in (known, blind)
        ]
    assert seen[0.0][0] == seen[0.5][0]
    assert seen[0.0][1] != seen[0.5][1]
    assert trained.focal is not None


def test_true_depth_and_motion_explain_views_better_than_rows(street, monkeypatch):
    sample = street[2]
    truth = sample.extras["depth"][None].clamp_max(100)
    poses = (sample.extras[name][None] for name in ("pose_previous", "pose_next"))
    trained = WithMotion(registry.build("network", "multitask(encoder='erfnet', width=0.25)"), 0.5)
    monkeypatch.setattr(trained.network, "depth", lambda images: truth)
    monkeypatch.setattr(trained, "scene", lambda found, *frames: Scene(found, *poses, frames[-1]))
    losses = view_losses(trained, RowDepth(np.full(32, 8, np.float32)), sample)
    assert losses["network"] < losses["row median"]
    assert 0 < losses["masked"] < 1


def test_the_command_measures_and_draws(street, tmp_path):
    left_by_a_training(tmp_path)
    asked = ["depth", str(tmp_path), "--size", "32x64", "--device", "cpu", "--out", str(tmp_path / "out")]
    clip = "streets(scenes=1, frames=5, size='32x64', neighbours=True)"
    pictures = "streets(scenes=2, frames=1, size='48x64')"
    run(*asked, "--data", clip, "--data", pictures)
    assert f"nothing to do: {tmp_path / 'out' / 'depth.jsonl'} holds" in run(*asked, "--data", pictures)
    run(*asked, "--data", pictures.replace("scenes=2", "scenes=1"))
    lines = list(read_lines(tmp_path / "out" / "depth.jsonl"))
    told = [sorted(line.keys() & {"depth", "views", "pose"}) for line in lines]
    assert told == [["depth", "pose", "views"], ["depth"], ["depth"]]
    assert lines[1]["depth"]["network"]["abs_rel"] > 0
    assert [line["picture"] for line in lines] == [f"depth-{i}.png" for i in range(3)]
    for i in (0, 1):
        with Image.open(tmp_path / "out" / f"depth-{i}.png") as drawn:
            assert drawn.width == 4 * 64 + 3 * 6
    lost = run(*asked[:1], str(tmp_path / "no"), *asked[2:], "--data", clip, code=2)
    assert "expected the checkpoint of a training with video" in lost


def test_a_picture_says_where_things_are_taken_for_too_far():
    truth = torch.full((16, 32), 10.0)
    truth[:8] = 0  # nothing known
    sample = Sample(torch.zeros(3, 16, 32), torch.zeros(16, 32, dtype=torch.int64), "a", {"depth": truth})
    network = MultiTask(encoder="erfnet", width=0.25)
    network.depth = lambda images: torch.cat([torch.full((1, 16, 20), 10.0), torch.full((1, 16, 12), 20.0)], 2)
    error = np.asarray(depth_sheet(network, Known([sample]), size=(16, 32)))[20:, -32:]
    assert error[12, 25].tolist() == [255, 0, 0]
    assert not error[12, :20].any()
    assert not error[:8].any()
