"""Which charts a run's report shows, each with its numbers as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from plum_core.reporting.detail import QUANTILES, RoundDetail
from plum_core.reporting.heldout import Figure, Rows, heldout_figures
from plum_core.reporting.svg import MOST_POINTS, Bar, Point, Series, columns, line_chart, stacked_bars
from plum_core.rounds.display import round_name
from plum_core.rounds.summary import Summary, exclusions, outcome_mix

TABLE_STEPS = 40  # rows of a table of training steps
OUTCOMES = (
    *("passed", "failed", "does not compile", "error", "timeout", "memory"),
    *("output", "crash", "violation", "exit", "sandbox_error"),
)


def figures(summary: Summary, details: Sequence[RoundDetail], controls: dict[str, list[RoundDetail]]) -> list[Figure]:
    """Every chart that the run has numbers for. ``controls``: other runs on the same held-out tasks, by name."""
    found = [
        *heldout_figures(details, controls),
        *_outcomes(summary),
        *_pass_rates(details),
        *_steps(summary),
        *_lengths(details),
        *_filters(summary),
        *_seconds(summary),
    ]
    return found


def _outcomes(summary: Summary) -> Iterator[Figure]:
    rounds = [r for r in summary.rounds if r.verdicts]
    if not rounds:
        return
    mixes = [dict(outcome_mix(r.verdicts)) for r in rounds]
    parts = [o for o in OUTCOMES if any(o in mix for mix in mixes)]
    totals = [max(1, sum(mix.values())) for mix in mixes]
    shares = [tuple(100 * mix.get(p, 0) / total for p in parts) for mix, total in zip(mixes, totals, strict=True)]
    names = [round_name(r.number) for r in rounds]
    title = "How the samples of each round ended"
    yield Figure(
        title=title,
        note="Per cent of the samples that were run. sandbox_error is our own failure and never a label.",
        svg=stacked_bars(
            [Bar(name=n, parts=s) for n, s in zip(names, shares, strict=True)],
            parts,
            name=title,
            x_label="% of samples",
        ),
        header=("round", "samples", *parts),
        rows=tuple(
            (name, str(total), *(f"{mix.get(p, 0)} ({share:.1f} %)" for p, share in zip(parts, row, strict=True)))
            for name, mix, row, total in zip(names, mixes, shares, totals, strict=True)
        ),
    )


def _pass_rates(details: Sequence[RoundDetail]) -> Iterator[Figure]:
    rounds = [d for d in details if d.passes]
    if not rounds:
        return
    shown = rounds if len(rounds) <= 4 else [rounds[0], rounds[len(rounds) // 2], rounds[-1]]
    most = max(d.drawn for d in rounds)
    groups = [str(n) for n in range(most + 1)]
    title = "Instructions by how many of their samples passed"
    yield Figure(
        title=title,
        note=f"Of {most} samples each. Instructions at 0 and at {most} give no preference; the middle is what is learnt"
        f" from.{'' if shown is rounds else ' Drawn: the first, a middle and the last round.'}",
        svg=columns(
            groups,
            [Bar(name=round_name(d.number), parts=tuple(float(d.passes[n]) for n in range(most + 1))) for d in shown],
            name=title,
            x_label="samples that passed",
            y_label="instructions",
        ),
        header=("round", *groups),
        rows=tuple((round_name(d.number), *(str(d.passes[n]) for n in range(most + 1))) for d in rounds),
    )


CURVES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("Log-probs of chosen and rejected", "Nats a completion, mean over a step.", ("logps/chosen", "logps/rejected"),
     "nats"),
    ("Rewards and their margin", "As the objective defines them (for DPO and KTO: beta times the log-ratio to the"
     " reference).", ("rewards/chosen", "rewards/rejected", "rewards/margins"), "reward"),
    ("Loss", "All terms together, as it was descended.", ("loss",), "loss"),
    ("Pairs ranked right", "Share of the pairs of a step whose chosen reward is the larger.", ("rewards/accuracies",),
     "share"),
    ("KL to the reference", "Mean log-ratio policy over reference of what is learned from, nats a completion; kl is the"
     " objective's own estimate, never below 0.", ("kl/reference", "kl"), "nats"),
)  # fmt: skip


def _steps(summary: Summary) -> Iterator[Figure]:
    rows = [row for r in summary.rounds for row in r.training]
    ends = [len(r.training) for r in summary.rounds if r.training]
    marks = [float(sum(ends[:i])) + 0.5 for i in range(1, len(ends))]
    for title, note, keys, unit in CURVES:
        present = [k for k in keys if any(math.isfinite(row.get(k, math.nan)) for row in rows)]
        if not present:
            continue
        series = [_curve(rows, key) for key in present]
        thin = f" Drawn: means over neighbours, {MOST_POINTS} at most." if len(rows) > MOST_POINTS else ""
        between = " A vertical line ends a round." if marks else ""
        yield Figure(
            title=title,
            note=note + between + thin,
            svg=line_chart(series, name=title, x_label="optimizer step", y_label=unit, marks=marks),
            header=("step", *present),
            rows=_step_rows(rows, present),
        )


def _curve(rows: Sequence[dict[str, Any]], key: str) -> Series:
    values = ((i, row[key]) for i, row in enumerate(rows, 1) if key in row)
    points = tuple(Point(x=i, y=y) for i, y in values if math.isfinite(y))  # of a run that diverged, what can be drawn
    return Series(name=key, points=points)


def _step_rows(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> Rows:
    """Every step, or as many as ``TABLE_STEPS``, evenly spaced and with the last."""
    every = -(-len(rows) // TABLE_STEPS)
    picked = sorted({*range(0, len(rows), every), len(rows) - 1})
    return tuple((str(i + 1), *(f"{rows[i][k]:.4g}" if k in rows[i] else "" for k in keys)) for i in picked)


def _lengths(details: Sequence[RoundDetail]) -> Iterator[Figure]:
    rounds = [d for d in details if d.lengths]
    if not rounds:
        return
    names = [round_name(d.number) for d in rounds]
    kinds = [k for k in ("passed", "not passed") if any(k in d.lengths for d in rounds)]
    middle = QUANTILES.index(0.5)
    series = [
        Series(
            name=kind,
            points=tuple(
                Point(x=i, y=d.lengths[kind][middle], low=d.lengths[kind][1], high=d.lengths[kind][3])
                for i, d in enumerate(rounds)
                if kind in d.lengths
            ),
        )
        for kind in kinds
    ]
    title = "Lengths of the samples"
    yield Figure(
        title=title,
        note="Tokens: the median, whiskers from the first to the third quartile (not an error).",
        svg=line_chart(series, name=title, x_label="", y_label="tokens", x_names=names),
        header=("round", "samples that", *(f"{100 * q:.0f} %" for q in QUANTILES)),
        rows=tuple(
            (round_name(d.number), k, *(f"{q:.0f}" for q in d.lengths[k]))
            for d in rounds
            for k in kinds
            if k in d.lengths
        ),
    )


def _filters(summary: Summary) -> Iterator[Figure]:
    stage_one: Callable[[Any], list[tuple[str, int]]] = lambda r: list(r.tests.get("rejected", {}).items())  # noqa: E731
    for title, note, unit, counts in (
        ("Instructions that lost their tests", "Stage 1's filters, by reason.", "instructions", stage_one),
        ("Samples that could not be preferred", "Stage 2's filters, by reason.", "samples",
         lambda r: exclusions(r.preferences)),
    ):  # fmt: skip
        rounds = [(round_name(r.number), dict(counts(r))) for r in summary.rounds if r.number]
        reasons = list(dict.fromkeys(reason for _, found in rounds for reason in found))
        if reasons:
            bars = [Bar(name=n, parts=tuple(float(found.get(r, 0)) for r in reasons)) for n, found in rounds]
            yield Figure(
                title=title,
                note=note,
                svg=stacked_bars(bars, reasons, name=title, x_label=unit),
                header=("round", *reasons),
                rows=tuple((n, *(str(found.get(r, 0)) for r in reasons)) for n, found in rounds),
            )


def _seconds(summary: Summary) -> Iterator[Figure]:
    stages = list(summary.seconds)
    numbers = [r.number for r in summary.rounds]
    if not stages:
        return
    title = "Wall seconds by stage"
    cells = [(round_name(n), tuple(summary.seconds[s].get(n, 0.0) for s in stages)) for n in numbers]
    yield Figure(
        title=title,
        note="All sittings that finished a stage.",
        svg=stacked_bars([Bar(name=n, parts=row) for n, row in cells], stages, name=title, x_label="seconds"),
        header=("round", *stages, "all"),
        rows=tuple((n, *(f"{v:.1f}" if v else "" for v in row), f"{sum(row):.1f}") for n, row in cells),
    )
