"""Networks of depth and motion measured on streets: the truth has no error, baselines have theirs, sizes do not matter."""

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from robustseg import registry
from robustseg.cli import app
from robustseg.datasets.streets import Streets
from robustseg.depth_evaluation import (
    RowDepth,
    evaluate_depth,
    judge,
    motion_errors,
    straight_ahead,
    trained_on_video,
    view_losses,
)
from robustseg.depth_metrics import depth_figures
from robustseg.geometry import depth_to_disparity
from robustseg.networks import weights
from robustseg.records import RobustsegError, read_lines
from robustseg.testing import gray_space
from robustseg.training.multitask import Scene, WithMotion
from robustseg.types import Network, Sample


@pytest.fixture(scope="module")
def street() -> list[Sample]:
    data = Streets(scenes=1, frames=6, size=(32, 64), neighbours=True)
    return [data[i] for i in range(6)]


class Known:
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

    def forward(self, frames, following):
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


@pytest.mark.parametrize("calibrated", [True, False])
def test_depth_and_motion_of_a_training_are_read_from_its_checkpoint(street, tmp_path, calibrated):
    spec = "multitask(encoder='erfnet', width=0.25)"
    trained = WithMotion(registry.build("network", spec), 0.5, calibrated=calibrated).eval()
    kept = {"network spec": spec, "average": trained.state_dict()}
    torch.save(kept, tmp_path / "last.ckpt")
    found = trained_on_video(tmp_path)
    assert motion_errors(found.motion, Known(street)) == pytest.approx(motion_errors(trained.motion, Known(street)))
    assert torch.equal(found.network.depth(street[0].image[None]), trained.network.depth(street[0].image[None]))
    assert (found.focal is None) == calibrated
    torch.save({**kept, "average": trained.network.state_dict()}, tmp_path / "last.ckpt")
    with pytest.raises(RobustsegError, match="expected the checkpoint of a training with video"):
        trained_on_video(tmp_path)
    with pytest.raises(RobustsegError, match="got FileNotFoundError; try"):
        trained_on_video(tmp_path / "nowhere")


def test_what_a_data_set_can_tell_is_judged(street):
    trained = WithMotion(registry.build("network", "multitask(encoder='erfnet', width=0.25)"), 0.5).eval()
    rows = RowDepth(np.linspace(60, 5, 32).astype(np.float32))
    found = judge(trained, rows, Known(street), size=(32, 64))
    assert list(found) == ["depth", "views", "pose"]
    assert found["depth"].beside == depth_figures(evaluate_depth(rows, Known(street)))
    assert found["pose"].beside["ate"] == pytest.approx(motion_errors(straight_ahead, Known(street)).mean())
    assert found["views"].network["loss"] != found["views"].beside["loss"]
    assert list(judge(trained, rows, Known(street, without=("previous", "pose_next")), size=(32, 64))) == ["depth"]
    with pytest.raises(RobustsegError, match="expected depth, neighbours or poses in known, got none; try"):
        judge(trained, rows, Known(street, without=("depth", "next")), size=(32, 64))


def test_true_depth_and_motion_explain_views_better_than_rows(street, monkeypatch):
    sample = street[2]
    disparity = depth_to_disparity(sample.extras["depth"][None].clamp_max(100))
    poses = (sample.extras[name][None] for name in ("pose_previous", "pose_next"))
    trained = WithMotion(registry.build("network", "multitask(encoder='erfnet', width=0.25)"), 0.5)
    monkeypatch.setattr(trained.network, "disparities", lambda images: (disparity,))
    monkeypatch.setattr(trained, "scene", lambda found, *frames: Scene(found, *poses, frames[-1]))
    losses = view_losses(trained, RowDepth(np.full(32, 8, np.float32)), sample)
    assert losses["network"] < losses["row median"]
    assert 0 < losses["masked"] < 1


def test_the_command_measures_and_draws(street, tmp_path):
    spec, video = (
        "multitask(encoder='erfnet', width=0.25)",
        "streets(scenes=1, frames=2, size='32x64', neighbours=True)",
    )
    trained = WithMotion(registry.build("network", spec), 1.0)
    torch.save({"network spec": spec, "average": trained.state_dict()}, tmp_path / "last.ckpt")
    weights.save(trained.network, tmp_path / "best.safetensors", recipe={"depth": {"video": video}})
    asked = ["depth", str(tmp_path), "--size", "32x64", "--device", "cpu", "--out", str(tmp_path / "out")]
    clip = "streets(scenes=1, frames=5, size='32x64', neighbours=True)"
    for _ in range(2):
        done = CliRunner().invoke(app, [*asked, "--data", clip, "--data", "streets(scenes=2, frames=1, size='48x64')"])
        assert done.exit_code == 0, done.output
    lines = list(read_lines(tmp_path / "out" / "depth.jsonl"))
    assert [sorted(line.keys() & {"depth", "views", "pose"}) for line in lines] == 2 * [
        ["depth", "pose", "views"],
        ["depth"],
    ]
    assert lines[0]["depth"]["network"]["abs_rel"] == lines[2]["depth"]["network"]["abs_rel"] > 0
    for i in (0, 1):
        with Image.open(tmp_path / "out" / f"depth-{i}.png") as drawn:
            assert drawn.width == 4 * 64 + 3 * 6
    lost = CliRunner().invoke(app, [*asked[:1], str(tmp_path / "no"), *asked[2:], "--data", clip])
    assert lost.exit_code == 2
    assert "expected the checkpoint of a training with video" in lost.output
