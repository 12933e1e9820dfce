"""Where a figure puts what it is given, read off the coordinates of its SVG."""

import math
import re
from xml.etree import ElementTree

import pytest

from robustseg.report.figures import LEFT, PLOT, Line, Plot, Point, curves, scatter

NAN = math.nan


def point(x: float, y: float, low: float = NAN, high: float = NAN, worst: float = NAN) -> Point:
    return Point(x, y, low, high, "text", worst)


def plot(*points: Point, clean: float = NAN) -> Plot:
    return Plot("network", [Line("PGD", "rs-a0", "", 0, list(points))], "Q, %", clean)


class Figure:
    """What a reader with a ruler sees: paths by their class, and the pixel of every number on an axis."""

    def __init__(self, svg: str):
        self.elements = list(ElementTree.fromstring(svg).iter())

    def paths(self, name: str) -> list[list[float]]:
        """The numbers in the paths of a class."""
        found = [e.get("d", "") for e in self.elements if e.get("class") == name]
        return [[float(number) for number in re.findall(r"-?[\d.]+", path)] for path in found]

    def marks(self) -> list[tuple[float, float]]:
        """The round marks in the plot, without those beside it that stand before a name."""
        circles = [e for e in self.elements if e.tag.endswith("circle")]
        edge = LEFT + PLOT + 1
        return [(x, float(e.get("cy", ""))) for e in circles if (x := float(e.get("cx", ""))) < edge]

    def axis(self, across: bool) -> dict[float, float]:
        """Number -> pixel of the ticks across, or of those upwards."""
        anchor, rules = ("middle", self.paths("rs-mark")) if across else ("end", self.paths("rs-rule"))
        texts = [e.text or "" for e in self.elements if e.get("class") == "rs-tick" and e.get("text-anchor") == anchor]
        return dict(zip(map(float, texts), (rule[0 if across else 1] for rule in rules), strict=True))

    def strength(self, x: float) -> float:
        """The strength at a pixel, read between two ticks as on logarithmic paper."""
        (low, left), *_, (high, right) = self.axis(across=True).items()
        return low * (high / low) ** ((x - left) / (right - left))

    def share(self, y: float) -> float:
        """The share at a pixel, read between the lowest and the highest rule."""
        (low, bottom), *_, (high, top) = self.axis(across=False).items()
        return (low + (high - low) * (y - bottom) / (top - bottom)) / 100


def test_the_axes_are_octaves_across_and_quarters_upwards() -> None:
    figure = Figure(curves([plot(point(0.8, 0.9), point(10.0, 0.2))]))
    across, upwards = figure.axis(across=True), figure.axis(across=False)
    assert list(across) == [1, 2, 4, 8]
    assert list(upwards) == [0, 25, 50, 75, 100]
    steps = [b - a for a, b in zip(list(across.values()), list(across.values())[1:], strict=False)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.11)
    assert steps[0] > 30
    rises = [a - b for a, b in zip(list(upwards.values()), list(upwards.values())[1:], strict=False)]
    assert rises == pytest.approx([rises[0]] * 4, abs=0.11)
    assert rises[0] > 30, "larger shares are higher up"


def test_points_stand_where_the_axes_say() -> None:
    given = [point(0.8, 0.9), point(2.0, 0.5), point(3.0, 0.31), point(10.0, 0.02)]
    figure = Figure(curves([plot(*given, clean=0.75)]))
    (line,) = figure.paths("rs-line")
    for one, (x, y), at in zip(given, figure.marks(), zip(line[::2], line[1::2], strict=True), strict=True):
        assert at == (x, y), "the line goes through its marks"
        assert figure.strength(x) == pytest.approx(one.x, rel=0.01)
        assert figure.share(y) == pytest.approx(one.y, abs=0.002)
    ((_, level, _),) = figure.paths("rs-level")
    assert figure.share(level) == pytest.approx(0.75, abs=0.002)


def test_whiskers_reach_from_the_lower_to_the_upper_end_of_the_interval() -> None:
    given = [point(1.0, 0.8, 0.7, 0.95), point(2.0, 0.5), point(4.0, 0.3, 0.1, 0.35)]
    figure = Figure(curves([plot(*given)]))
    whiskers = figure.paths("rs-whisker")
    assert len(whiskers) == 2, "none where there is no interval"
    for one, (x, start, end) in zip([given[0], given[2]], whiskers, strict=True):
        assert figure.strength(x) == pytest.approx(one.x, rel=0.01)
        assert figure.share(start) == pytest.approx(one.low, abs=0.002)
        assert figure.share(end) == pytest.approx(one.high, abs=0.002)


def test_the_axis_makes_room_for_what_is_above_the_clean_level() -> None:
    figure = Figure(curves([plot(point(1.0, 1.1, 1.05, 1.3), point(2.0, 0.5))]))
    assert list(figure.axis(across=False)) == [0, 25, 50, 75, 100, 125]
    ((_, _, end),) = figure.paths("rs-whisker")
    assert figure.share(end) == pytest.approx(1.3, abs=0.002)
    assert end > 40, "within the picture, below the title"


def test_the_worst_of_several_draws_is_a_line_of_its_own() -> None:
    figure = Figure(curves([plot(point(1.0, 0.8, worst=0.6), point(2.0, 0.5), point(4.0, 0.4, worst=0.1))]))
    ((first_x, first, last_x, last),) = figure.paths("rs-worst")
    assert [figure.strength(x) for x in (first_x, last_x)] == pytest.approx([1, 4], rel=0.01)
    assert [figure.share(y) for y in (first, last)] == pytest.approx([0.6, 0.1], abs=0.002)


def test_panels_share_their_axes_and_stand_side_by_side() -> None:
    whole = curves([plot(point(1.0, 0.8)), plot(point(8.0, 0.4))])
    places = re.findall(r"translate\((\d+) (\d+)\)", whole)
    assert places[0] == ("0", "0")
    assert int(places[1][0]) > 300
    panels = [part.rpartition("</g>")[0] for part in re.split(r"<g transform[^>]*>", whole)[1:]]
    first, second = (Figure(f"<svg>{panel}</svg>") for panel in panels)
    assert first.axis(across=True) == second.axis(across=True)
    assert first.strength(first.marks()[0][0]) == pytest.approx(1, rel=0.01)
    assert second.strength(second.marks()[0][0]) == pytest.approx(8, rel=0.01)


def test_shares_against_shares_have_even_axes() -> None:
    given = [point(0.15, 0.2), point(0.42, 0.65), point(0.48, 0.9)]
    lines = [Line(f"n{i}", "rs-a0", "", 0, [p]) for i, p in enumerate(given)]
    figure = Figure(scatter(Plot("title", lines, "robust mIoU, %", NAN), x_label="clean mIoU, %"))
    across = figure.axis(across=True)
    assert list(across) == [10, 20, 30, 40, 50]
    left, right = across[10], across[50]
    for one, (x, y) in zip(given, figure.marks(), strict=True):
        assert 0.1 + 0.4 * (x - left) / (right - left) == pytest.approx(one.x, abs=0.002)
        assert figure.share(y) == pytest.approx(one.y, abs=0.004)


def test_no_points_give_no_figure() -> None:
    assert curves([]) == ""
    assert scatter(Plot("title", [], "y", NAN), x_label="x") == ""
