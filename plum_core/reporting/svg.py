"""Charts as SVG text: no library, no script, no colour that carries a meaning alone.

A drawing is ``WIDTH`` units wide and is scaled to its box, so it is legible on a phone and sharp in print. Colours,
dashes and marks come from the classes ``s0`` to ``s7`` of style.css, which knows light, dark and print. Every chart
is an ``img`` with a name, and its numbers stand in a table beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, BOTTOM = 46, 12, 40  # room for the labels of the axes
LEGEND_ROW, LEGEND_CHAR = 18, 7.0  # heights and widths of 12-unit text, widest letters aside
STYLES = 8
MOST_POINTS = 300  # of one line: more would be drawn over each other


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    x: float
    y: float
    low: float | None = None  # ends of an interval, where there is one
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar: parts laid end to end."""

    name: str
    parts: tuple[float, ...]


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """``<name key="value">children</name>``, everything escaped; ``stroke_width`` becomes ``stroke-width``."""
    words = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(_short(v))}"' for key, v in attributes.items())
    return Markup(f"<{name}{words}>" + "".join(str(escape(c)) for c in children) + f"</{name}>")


def _short(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) that cover ``low`` to ``high``."""
    size = max(abs(low), abs(high))
    size = size if size > 1e-290 else 1.0  # smaller ones are as good as 0
    if high - low <= 1e-9 * size:  # one number, or as good as one
        low, high = low - size / 2, high + size / 2
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, 1 - math.floor(math.log10(step)))  # enough for the step: 0.30000000000000004 is 0.3
    return [round(i * step, digits) for i in range(first, last + 1)]


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most ``most`` points, each the mean of as many neighbours; intervals are not averaged and so left out."""
    if len(points) <= most:
        return list(points)
    size = -(-len(points) // most)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [Point(x=sum(p.x for p in g) / len(g), y=sum(p.y for p in g) / len(g)) for g in groups]


def number(value: float) -> str:
    """A tick's label."""
    return f"{value:.0e}" if value and not 1e-3 <= abs(value) < 1e6 else f"{value:.10g}"


def line_chart(
    series: Sequence[Series],
    *,
    name: str,
    x_label: str,
    y_label: str,
    x_names: Sequence[str] | None = None,
    marks: Sequence[float] = (),
) -> Markup:
    """Lines with their intervals. x_names: words for x = 0, 1, ...; marks: vertical lines, as between rounds."""
    drawn = [Series(name=s.name, points=tuple(thinned(s.points))) for s in series]
    everything = [p for s in drawn for p in s.points]
    ys = ticks(
        min(p.y if p.low is None else p.low for p in everything),
        max(p.y if p.high is None else p.high for p in everything),
    )
    low, high = min(p.x for p in everything), max(p.x for p in everything)
    xs = [float(i) for i in range(len(x_names))] if x_names else _within(ticks(low, high, 6), low, high)
    legend, top = _legend([s.name for s in drawn], lines=True)
    if x_names:  # named places stand off the axis
        low, high = xs[0] - 0.3, xs[-1] + 0.3
    to_x = Scale(low, high, LEFT, WIDTH - RIGHT)
    to_y = Scale(ys[0], ys[-1], top + HEIGHT - BOTTOM, top + 8)
    labels = _fitting(list(zip(xs, x_names or [number(x) for x in xs], strict=True)))
    body = [*_axes(labels, [(y, number(y)) for y in ys], to_x, to_y, x_label, y_label, top)]
    body += [tag("line", x1=to_x(m), x2=to_x(m), y1=to_y(ys[0]), y2=to_y(ys[-1]), class_="mark") for m in marks]
    for index, one in enumerate(drawn):
        shift = 3.0 * (index - (len(drawn) - 1) / 2) if x_names else 0.0  # intervals of one place side by side
        body.append(_line(one, index, to_x, to_y, shift))
    return _picture(name, top + HEIGHT, [*legend, *body])


def _line(series: Series, index: int, to_x: Scale, to_y: Scale, shift: float) -> Markup:
    places = [(to_x(p.x) + shift, to_y(p.y), p) for p in series.points]
    path = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y, _) in enumerate(places))
    out = [tag("path", d=path, class_="line")]
    for x, y, point in places:
        if point.low is not None and point.high is not None:
            out.append(tag("line", x1=x, x2=x, y1=to_y(point.low), y2=to_y(point.high), class_="whisker"))
        if len(places) <= 12:
            out.append(_marker(index, x, y))
    return tag("g", *out, class_=f"s{index % STYLES}")


def _marker(index: int, x: float, y: float) -> Markup:
    """Another shape for each series."""
    shapes = (
        lambda: tag("circle", cx=x, cy=y, r=4, class_="dot"),
        lambda: tag("rect", x=x - 3.5, y=y - 3.5, width=7, height=7, class_="dot"),
        lambda: tag("path", d=f"M{x:.1f} {y - 5:.1f}l5 9h-10z", class_="dot"),
        lambda: tag("path", d=f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z", class_="dot"),
    )
    return shapes[index % len(shapes)]()


def stacked_bars(bars: Sequence[Bar], parts: Sequence[str], *, name: str, x_label: str) -> Markup:
    """One horizontal bar a row, its parts in the order of ``parts``."""
    legend, top = _legend(parts)
    row, most = 30, max((sum(b.parts) for b in bars), default=0.0) or 1.0
    xs = _within(ticks(0.0, most), 0.0, most)
    left = max(LEFT, 14 + LEGEND_CHAR * max((len(b.name) for b in bars), default=0))
    height = row * len(bars) + BOTTOM + 8
    to_x = Scale(0.0, most, left, WIDTH - RIGHT)
    body: list[Markup] = []
    for x in xs:
        body.append(tag("line", x1=to_x(x), x2=to_x(x), y1=top + 4, y2=top + row * len(bars) + 4, class_="grid"))
        body.append(tag("text", number(x), x=to_x(x), y=top + height - 24, text_anchor="middle"))
    for index, bar in enumerate(bars):
        y, begun = top + row * index + 8, 0.0
        body.append(tag("text", bar.name, x=left - 6, y=y + 15, text_anchor="end"))
        for part, value in enumerate(bar.parts):
            if value > 0:
                x, wide = to_x(begun), to_x(begun + value) - to_x(begun)
                title = tag("title", f"{bar.name}, {parts[part]}: {number(round(value, 3))}")
                one = tag("rect", title, x=x, y=y, width=wide, height=row - 8, class_="area")
                body.append(tag("g", one, class_=f"s{part % STYLES}"))
            begun += value
    body.append(tag("text", x_label, x=(left + WIDTH) / 2, y=top + height - 6, text_anchor="middle"))
    return _picture(name, top + height, [*legend, *body])


def columns(groups: Sequence[str], bars: Sequence[Bar], *, name: str, x_label: str, y_label: str) -> Markup:
    """Upright bars side by side: for each of ``groups`` one of each of ``bars``, whose parts are its heights."""
    legend, top = _legend([b.name for b in bars])
    ys = ticks(0.0, max((max(b.parts, default=0.0) for b in bars), default=0.0) or 1.0)
    to_x = Scale(-0.5, len(groups) - 0.5, LEFT, WIDTH - RIGHT)
    to_y = Scale(0.0, ys[-1], top + HEIGHT - BOTTOM, top + 8)
    labels = _fitting([(float(i), g) for i, g in enumerate(groups)])
    body = [*_axes(labels, [(y, number(y)) for y in ys], to_x, to_y, x_label, y_label, top)]
    wide = (to_x(1.0) - to_x(0.0)) * 0.84 / max(1, len(bars))
    for index, bar in enumerate(bars):
        for place, value in enumerate(bar.parts):
            x = to_x(place) + (index - len(bars) / 2) * wide
            title = tag("title", f"{bar.name}, {groups[place]}: {number(round(value, 3))}")
            one = tag("rect", title, x=x, y=to_y(value), width=wide, height=to_y(0.0) - to_y(value), class_="area")
            body.append(tag("g", one, class_=f"s{index % STYLES}"))
    return _picture(name, top + HEIGHT, [*legend, *body])


class Scale:
    """From numbers to places."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.start, self.factor = low, start, (end - start) / ((high - low) or 1.0)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) * self.factor


def _within(places: Sequence[float], low: float, high: float) -> list[float]:
    """Those that do not lead past the data."""
    return [x for x in places if low - 1e-9 <= x <= high + 1e-9]


def _fitting(labels: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """As many of the labels below an axis as have room, the first always."""
    widest = LEGEND_CHAR * max(len(word) for _, word in labels) + 8
    every = max(1, math.ceil(len(labels) * widest / (WIDTH - LEFT - RIGHT)))
    return list(labels[::every])


def _axes(
    xs: Sequence[tuple[float, str]],
    ys: Sequence[tuple[float, str]],
    to_x: Scale,
    to_y: Scale,
    x_label: str,
    y_label: str,
    top: float,
) -> list[Markup]:
    floor = to_y(ys[0][0])
    out = [tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=to_y(y), y2=to_y(y), class_="grid") for y, _ in ys]
    out += [tag("text", word, x=LEFT - 6, y=to_y(y) + 4, text_anchor="end") for y, word in ys]
    out += [tag("text", word, x=to_x(x), y=floor + 17, text_anchor="middle") for x, word in xs]
    out.append(tag("text", x_label, x=(LEFT + WIDTH) / 2, y=top + HEIGHT - 6, text_anchor="middle"))
    middle = (floor + to_y(ys[-1][0])) / 2
    turned = f"rotate(-90 11 {middle:.0f})"
    return [*out, tag("text", y_label, x=11, y=middle, text_anchor="middle", transform=turned)]


def _legend(names: Sequence[str], lines: bool = False) -> tuple[list[Markup], float]:
    """A row or more of names with their marks, and the height that they take."""
    out, x, y = [], float(LEFT), 12.0
    for index, name in enumerate(names):
        wide = 30 + LEGEND_CHAR * len(name)
        if x + wide > WIDTH and x > LEFT:
            x, y = float(LEFT), y + LEGEND_ROW
        mark = (
            [tag("path", d=f"M{x:.1f} {y:.1f}h16", class_="line"), _marker(index, x + 8, y)]
            if lines
            else [tag("rect", x=x, y=y - 6, width=12, height=12, class_="area")]
        )
        out.append(tag("g", *mark, class_=f"s{index % STYLES}"))
        out.append(tag("text", name, x=x + 20, y=y + 4))
        x += wide
    return out, y + 10


def _picture(name: str, height: float, body: Sequence[Markup]) -> Markup:
    box = f"0 0 {WIDTH} {height:.0f}"
    return tag("svg", *body, viewBox=box, role="img", aria_label=name, class_="chart")
