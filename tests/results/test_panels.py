"""Panels: they read back equal, and what is drawn is what was counted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import runs
from robustseg.core.errors import RobustsegError, ShapeError
from robustseg.results.panels import (
    LOST_COLOUR,
    magnified,
    quantised,
    read_caption,
    read_panel,
    save_panel,
    sheet,
    tiles,
)

ARRAYS = ("image", "perturbed", "labels", "before", "after")


def test_a_panel_reads_back_equal(tmp_path: Path) -> None:
    panel = runs.panel()
    path = save_panel(tmp_path / "panels", "0-a", panel)
    back = read_panel(path)
    for name in ARRAYS:
        assert np.array_equal(getattr(back, name), getattr(panel, name))
    assert (back.id, back.record) == (panel.id, panel.record)
    assert back.label_space == panel.label_space
    assert read_caption(path) == (panel.id, panel.record)


@pytest.mark.parametrize(
    "about", [b"", b"5", b"[]", b'{"id": 5, "record": "a", "label_space": {}}', b"[" * 100_000, b"\xff"]
)
def test_a_caption_that_is_none_is_named(tmp_path: Path, about: bytes) -> None:
    arrays = {name: np.zeros((2, 2, 3) if name in ("image", "perturbed") else (2, 2), np.uint8) for name in ARRAYS}
    np.savez(tmp_path / "x.npz", about=np.frombuffer(about, np.uint8), **arrays)
    for read in (read_caption, read_panel):
        with pytest.raises(RobustsegError, match=r"expected a panel in .*x\.npz"):
            read(tmp_path / "x.npz")


def test_a_panel_with_a_damaged_byte_is_named_or_read(tmp_path: Path) -> None:
    path = save_panel(tmp_path, "a", runs.panel())
    whole = path.read_bytes()
    for position in range(0, len(whole), 97):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        try:
            assert read_panel(path).id == runs.panel().id
        except RobustsegError as error:
            assert "expected a panel" in str(error)  # noqa: PT017


def test_what_is_no_panel_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK not a zip")
    with pytest.raises(RobustsegError, match=r"expected a panel in .*x\.npz"):
        read_panel(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", image=np.zeros(3))
    with pytest.raises(RobustsegError, match=r"expected a panel in .*y\.npz"):
        read_panel(tmp_path / "y.npz")


def test_maps_of_another_size_or_kind_are_refused() -> None:
    panel = runs.panel()
    with pytest.raises(ShapeError, match="of one size, got image uint8"):
        replace(panel, after=panel.after[:-1])
    with pytest.raises(ShapeError, match="labels int64"):
        replace(panel, labels=panel.labels.astype(np.int64))


def test_errors_are_red_where_a_right_pixel_was_lost() -> None:
    panel = runs.panel()
    drawn = np.asarray(tiles(panel)[-1].picture.convert("RGB"))
    lost = (panel.before == panel.labels) & (panel.after != panel.labels) & (panel.labels != 255)
    assert np.array_equal((drawn == LOST_COLOUR).all(-1), lost)


def test_maps_wear_the_palette_and_black_for_void() -> None:
    panel = runs.panel()
    drawn = np.asarray(tiles(panel)[3].picture.convert("RGB"))
    assert (drawn[panel.labels == 1] == panel.label_space.palette[1]).all()
    assert (drawn[panel.labels == 255] == 0).all()


def test_the_difference_is_magnified_by_the_factor_it_names() -> None:
    image = np.full((8, 8, 3), 100, np.uint8)
    drawn, factor = magnified(image, image + np.uint8(4))
    assert factor > 1
    assert (drawn == 128 + 4 * factor).all()
    same, _ = magnified(image, image)
    assert (same == 128).all()


def test_large_panels_are_thinned() -> None:
    panel = runs.panel()
    assert max(tiles(panel, longest=5)[0].picture.size) <= 5
    assert sheet(panel).width > 4 * panel.labels.shape[1]


def test_quantised_rounds_and_clips() -> None:
    image = np.array([-1, 0.5, 1.2], np.float32).reshape(3, 1, 1)
    assert quantised(image).tolist() == [[[0, 128, 255]]]
