"""The demo tells its story, goes on where it was cut, and the shipped triplet notices what it is shipped to notice."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

from robustseg import api, demo
from robustseg.core.errors import RobustsegError
from robustseg.core.files import sole_writer
from robustseg.core.random import ImageRng
from robustseg.core.types import Batch, frozen
from robustseg.results.record import read_records

TINY = """from torch import nn
def build(): return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 11, 1))
"""


def test_a_demo_ends_in_a_table_a_report_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny_net_of_demo_test.py").write_text(TINY)
    monkeypatch.syspath_prepend(tmp_path)
    member = "module('tiny_net_of_demo_test:build', classes='camvid')"
    monkeypatch.setattr(demo, "TRIPLET", f"triplet({member}, {member}, {member})")
    monkeypatch.setattr(demo, "DATA", "streets(scenes=1, frames=1, size='16x32')")
    monkeypatch.setattr(demo, "PICTURE_DATA", "streets(scenes=1, frames=2, size='32x64')")
    monkeypatch.setattr(demo, "PICTURE_FRAME", 1)
    with torch.random.fork_rng():
        made = demo.run_demo(tmp_path / "demo")
    assert [row.what for row in made.rows] == [what for what, _, _ in demo.CHANGES]
    assert made.rows[0].noticed in (0.0, 1.0)
    with Image.open(made.picture) as picture:
        assert picture.width > 3 * 64
    assert "member" in made.report.read_text()
    assert len(read_records(tmp_path / "demo")) == 4 * len(demo.CHANGES)


def test_a_demo_replaces_nothing_of_something_else_and_is_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as other, sole_writer(tmp_path):
        refused = other.submit(demo.run_demo, tmp_path)
        with pytest.raises(RobustsegError, match="another run that writes there"):
            refused.result()
    (tmp_path / "demo.png").touch()
    with pytest.raises(RobustsegError, match=r"got 'demo\.png' of something else"):
        demo.run_demo(tmp_path)


def test_the_shipped_triplet_notices_an_attack_on_its_teacher_and_repairs_the_answer() -> None:
    triplet = demo.open_triplet("cpu")
    batch = Batch.of([api.data("streets(seed=11, scenes=1, frames=1, size='96x192')")[0]])
    with frozen(triplet):
        attack = api.perturbation("llcm(budget='linf:10/255')")
        attacked = attack(triplet.teacher, batch.images, batch.labels, rng=ImageRng(0, batch.ids))
        clean, after = triplet.watch(batch.images), triplet.watch(attacked)
    assert clean.attacked == ["none"]
    assert after.attacked == ["teacher"]
    right = [
        (labels == batch.labels)[batch.labels != 255].float().mean()
        for labels in (triplet.teacher.predict(attacked), after.labels)
    ]
    assert right[1] > right[0] + 0.2
