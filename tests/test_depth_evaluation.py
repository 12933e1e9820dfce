"""Networks of depth and motion measured on streets: the truth has no error, baselines have theirs, sizes do not matter."""

import numpy as np
import pytest
import torch

from robustseg import registry
from robustseg.datasets.streets import Streets
from robustseg.depth_evaluation import RowDepth, evaluate_depth, motion_errors, straight_ahead, trained_motion
from robustseg.depth_metrics import depth_figures
from robustseg.records import RobustsegError
from robustseg.testing import gray_space
from robustseg.training.multitask import WithMotion
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


def test_the_motion_of_a_training_is_read_from_its_checkpoint(street, tmp_path):
    trained = WithMotion(registry.build("network", "multitask(encoder='erfnet', width=0.25)"), 0.5)
    torch.save({"average": trained.state_dict()}, tmp_path / "last.ckpt")
    found = motion_errors(trained_motion(tmp_path), Known(street))
    assert found == pytest.approx(motion_errors(trained.motion, Known(street)))
    torch.save({"average": trained.network.state_dict()}, tmp_path / "last.ckpt")
    with pytest.raises(RobustsegError, match="expected the checkpoint of a training with video"):
        trained_motion(tmp_path)
    with pytest.raises(RobustsegError, match="got FileNotFoundError; try"):
        trained_motion(tmp_path / "nowhere")
