"""Charts: what is drawn is where its number says, and no number breaks a chart."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_core.reporting.figures import _curve
from plum_core.reporting.svg import (
    HEIGHT,
    WIDTH,
    Bar,
    Point,
    Scale,
    Series,
    columns,
    line_chart,
    stacked_bars,
    tag,
    thinned,
    ticks,
)

numbers = st.floats(-1e9, 1e9, allow_nan=False, allow_infinity=False)


@given(numbers, numbers)
@settings(max_examples=200, deadline=None)
def test_ticks_cover_the_numbers_and_are_few(a: float, b: float) -> None:
    low, high = sorted((a, b))
    found = ticks(low, high)
    step = found[-1] - found[-2]
    assert found[0] <= low + 1e-6 * step and found[-1] >= high - 1e-6 * step and 2 <= len(found) <= 8
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-6


@given(st.lists(numbers, min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_every_mark_lies_inside_the_picture(values: list[float]) -> None:
    points = tuple(Point(x=i, y=y, low=y - abs(y), high=y + abs(y)) for i, y in enumerate(values))
    names = [f"round {i}" for i in range(len(values))]
    text = line_chart([Series(name="a", points=points)], name="n", x_label="x", y_label="y", x_names=names)
    found = ElementTree.fromstring(text)
    height = float(found.attrib["viewBox"].split()[3])
    dots = found.findall(".//circle[@class='dot']")
    assert len(dots) == len(values) + 1  # the legend's
    for dot in dots:
        assert 0 <= float(dot.attrib["cx"]) <= WIDTH and 0 <= float(dot.attrib["cy"]) <= height
    ys = [float(d.attrib["cy"]) for d in dots[1:]]
    for (a, above), (b, below) in zip(
        zip(values, ys, strict=True), list(zip(values, ys, strict=True))[1:], strict=False
    ):
        assert (a - b) * (above - below) <= 0, "larger numbers stand higher"


def test_bars_are_as_long_as_their_numbers() -> None:
    found = ElementTree.fromstring(
        stacked_bars([Bar(name="a", parts=(10, 0, 30)), Bar(name="b", parts=(5, 5, 0))], "xyz", name="n", x_label="s")
    )
    bars = [r for r in found.iter("rect") if r.find("title") is not None]
    widths = [float(r.attrib["width"]) for r in bars]
    assert [r.findtext("title") for r in bars] == ["a, x: 10", "a, z: 30", "b, x: 5", "b, y: 5"]
    assert widths[1] == pytest.approx(3 * widths[0], abs=0.02) and widths[2] == pytest.approx(widths[0] / 2, abs=0.02)
    assert widths[0] + widths[1] <= WIDTH
    upright = ElementTree.fromstring(columns("012", [Bar(name="r", parts=(4, 0, 2))], name="n", x_label="", y_label=""))
    heights = [float(r.attrib["height"]) for r in upright.iter("rect") if r.find("title") is not None]
    assert heights[0] == pytest.approx(2 * heights[2], abs=0.02) and heights[1] == 0 and heights[0] <= HEIGHT


def test_labels_leave_each_other_room() -> None:
    points = tuple(Point(x=i, y=i) for i in range(40))
    names = [f"round {i}" for i in range(40)]
    found = ElementTree.fromstring(
        line_chart([Series(name="a", points=points)], name="n", x_label="", y_label="", x_names=names)
    )
    places = sorted(float(t.attrib["x"]) for t in found.iter("text") if (t.text or "").startswith("round"))
    assert len(places) >= 5 and min(b - a for a, b in pairwise(places)) > 50


def test_long_lines_are_thinned_to_means() -> None:
    points = [Point(x=i, y=i % 2) for i in range(1000)]
    found = thinned(points, 100)
    assert len(found) == 100 and all(p.y == 0.5 for p in found) and thinned(points[:100], 100) == points[:100]


def test_a_diverged_run_is_drawn_as_far_as_it_goes() -> None:
    rows = [{"loss": 1.0}, {"loss": math.nan}, {"loss": math.inf}, {}, {"loss": 2.0}]
    assert [(p.x, p.y) for p in _curve(rows, "loss").points] == [(1, 1.0), (5, 2.0)]


def test_names_are_escaped() -> None:
    text = tag("text", "</text><script>", x=1.0, class_='"><script>')
    assert text == '<text x="1" class="&#34;&gt;&lt;script&gt;">&lt;/text&gt;&lt;script&gt;</text>'
    assert Scale(0.0, 0.0, 5.0, 9.0)(0.0) == 5.0
