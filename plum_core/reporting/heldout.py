"""A chart with its numbers, and those of the held-out tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from plum_core.evaluation import Interval
from plum_core.reporting.detail import RoundDetail
from plum_core.reporting.svg import Point, Series, line_chart
from plum_core.rounds.display import round_name

Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart, a sentence on how to read it, and what it was drawn from."""

    title: str
    note: str
    svg: Markup
    header: tuple[str, ...]
    rows: Rows


def _share(found: Interval | None) -> str:
    return "" if found is None else found.percent()


def _interval_point(x: float, found: Interval) -> Point:
    return Point(x=x, y=100 * found.mean, low=100 * found.low, high=100 * found.high)


def heldout_figures(details: Sequence[RoundDetail], controls: dict[str, list[RoundDetail]]) -> Iterator[Figure]:
    evaluated = [d for d in details if d.pass_at]
    if not evaluated:
        return
    kinds = list(evaluated[0].pass_at)
    names = [round_name(d.number) for d in evaluated]
    series = [
        Series(
            name=k, points=tuple(_interval_point(i, d.pass_at[k]) for i, d in enumerate(evaluated) if k in d.pass_at)
        )
        for k in kinds
    ]
    title = "Held-out tasks solved, after each round"
    yield Figure(
        title=title,
        note="Per cent; whiskers are 95 % intervals over tasks. sampled and greedy are pass@1.",
        svg=line_chart(series, name=title, x_label="", y_label="% solved", x_names=names),
        header=("policy", *kinds),
        rows=tuple((round_name(d.number), *(_share(d.pass_at.get(k)) for k in kinds)) for d in evaluated),
    )
    runs = {"this run": list(evaluated)} | controls
    for kind in ("sampled", "greedy") if controls else ():
        yield from beside(kind, runs, f"Beside its controls: pass@1 {kind}")


def beside(kind: str, runs: dict[str, list[RoundDetail]], title: str) -> Iterator[Figure]:
    """``kind`` of every run over the rounds; nothing where a run has none of it."""
    numbers = sorted({d.number for found in runs.values() for d in found if d.pass_at})
    series = [
        Series(
            name=name,
            points=tuple(_interval_point(numbers.index(d.number), d.pass_at[kind]) for d in found if kind in d.pass_at),
        )
        for name, found in runs.items()
    ]
    if any(not s.points for s in series):
        return
    yield Figure(
        title=title,
        note="Per cent; whiskers are 95 % intervals over tasks, of each run alone. What tells runs apart is the paired"
        " difference, which runners/report.py shows for several runs.",
        svg=line_chart(series, name=title, x_label="", y_label="% solved", x_names=[round_name(n) for n in numbers]),
        header=("run", *(round_name(number) for number in numbers)),
        rows=tuple((name, *(_share(_at(found, n, kind)) for n in numbers)) for name, found in runs.items()),
    )


def _at(details: Sequence[RoundDetail], number: int, kind: str) -> Interval | None:
    return next((d.pass_at.get(kind) for d in details if d.number == number), None)
