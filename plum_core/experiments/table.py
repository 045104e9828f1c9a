"""An experiment's table in Markdown and its figure as an SVG file, for docs and for reading."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from plum_core.experiments.plan import Experiment
from plum_core.experiments.results import ArmResult
from plum_core.reporting.svg import LEGEND_CHAR, WIDTH, Scale, number, tag, ticks

ROW = 34
STYLE = """
  svg { background: #fff; font: 12px system-ui, sans-serif; }
  text { fill: #1b1b1b; } .grid { stroke: #8c8c8c; stroke-width: .5; } .zero { stroke: #1b1b1b; }
  .sampled { stroke: #0072b2; fill: #0072b2; stroke-width: 2; } .greedy { stroke: #c84e00; fill: #c84e00; stroke-width: 2; }
  .seed { fill: none; stroke-width: 1; }
"""  # noqa: E501


def markdown(experiment: Experiment, found: Sequence[ArmResult], command: str, seeds: Sequence[int]) -> str:
    """The table with its question, what is still to come, and the command that made it."""
    lines = [f"## {experiment.name}: {experiment.question}", ""]
    if experiment.note:
        lines += [experiment.note, ""]
    head = ("", "seeds", "sampled after", "gain", "each seed", "against the first", "greedy after", "gain", "each seed")
    lines += [_row((*head, "against the first")), _row(["---"] * 10)]
    for one in found:
        cells = [one.arm.name, str(len(one.done))]
        for kind in ("sampled", "greedy"):
            figures = one.figures.get(kind)
            if figures is None:
                cells += [""] * 4
                continue
            each = ", ".join(f"{100 * s:+.1f}" for s in figures.seeds)
            against = figures.against.points() if figures.against else ""
            cells += [figures.after.percent(), figures.gain.points(), each, against]
        lines.append(_row(cells))
    missing = [
        f"{arm.name} (seed {seed})"
        for seed in seeds
        for arm in experiment.arms
        if not any(one.arm.name == arm.name and seed in one.done for one in found)
    ]
    lines += ["", "Per cent of held-out tasks; 95 % intervals over tasks of the mean over seeds, differences paired."]
    if missing:
        lines += ["", f"Not done yet: {', '.join(missing)}. The same command goes on."]
    return "\n".join([*lines, "", f"![Gains of each arm]({experiment.name}.svg)", "", f"Made by `{command}`.", ""])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def figure(experiment: Experiment, found: Sequence[ArmResult]) -> str:
    """Gains with their intervals, an arm a row: filled marks for all seeds together, hollow ones for each."""
    kinds = ("sampled", "greedy")
    everything = [
        100 * value
        for one in found
        for f in one.figures.values()
        for value in (f.gain.low, f.gain.high, *f.seeds)
    ]  # fmt: skip
    places = ticks(min(0.0, *everything), max(0.0, *everything))
    left = 16 + LEGEND_CHAR * max(len(one.arm.name) for one in found)
    scale, top, bottom = Scale(places[0], places[-1], left, WIDTH - 14), 34, 34 + ROW * len(found)
    body: list[Markup] = []
    for at in places:
        line = "zero" if at == 0 else "grid"
        body.append(tag("line", x1=scale(at), x2=scale(at), y1=top, y2=bottom, class_=line))
        body.append(tag("text", number(at), x=scale(at), y=bottom + 16, text_anchor="middle"))
    for row, one in enumerate(found):
        body.append(tag("text", one.arm.name, x=left - 8, y=top + ROW * row + 21, text_anchor="end"))
        for index, kind in enumerate(kinds):
            if kind in one.figures:
                body.append(_marks(one, kind, scale, top + ROW * row + 12 + 11 * index))
    label = "gain in points over the policy before; whiskers 95 %, hollow: each seed"
    body.append(tag("text", label, x=WIDTH / 2, y=bottom + 34, text_anchor="middle"))
    for index, kind in enumerate(kinds):
        body.append(tag("g", _mark(kind, left + 100.0 * index, 16.0, 4.0), class_=kind))
        body.append(tag("text", f"{kind}", x=left + 10 + 100 * index, y=20))
    name = f"{experiment.question} Gains of {', '.join(one.arm.name for one in found)}."
    box = f"0 0 {WIDTH} {bottom + 44}"
    inner = Markup(f"<title>{escape(name)}</title><style>{STYLE}</style>") + Markup("").join(body)
    return str(tag("svg", inner, xmlns="http://www.w3.org/2000/svg", viewBox=box, role="img")) + "\n"


def _marks(one: ArmResult, kind: str, scale: Scale, y: float) -> Markup:
    figures = one.figures[kind]
    low, mean, high = (scale(100 * v) for v in (figures.gain.low, figures.gain.mean, figures.gain.high))
    seeds = [tag("g", _mark(kind, scale(100 * s), y, 3.0), class_="seed") for s in figures.seeds if len(one.done) > 1]
    return tag("g", tag("line", x1=low, x2=high, y1=y, y2=y), *seeds, _mark(kind, mean, y, 4.0), class_=kind)


def _mark(kind: str, x: float, y: float, size: float) -> Markup:
    """Round for sampled, square for greedy, so that colour is not all that tells them apart."""
    if kind == "sampled":
        return tag("circle", cx=x, cy=y, r=size)
    return tag("rect", x=x - size, y=y - size, width=2 * size, height=2 * size)
