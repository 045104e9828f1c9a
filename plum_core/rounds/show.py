"""The summary on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from plum_core.rounds.display import round_name
from plum_core.rounds.summary import Example, RoundFigures, Summary, exclusions, interval, outcome_mix, percent, visible


def show(summary: Summary, console: Console) -> None:
    """Everything that the run folder says, for a person."""
    console.print()
    console.print(Text(title(summary), style="bold"))
    for table in (heldout_table(summary), rounds_table(summary), time_table(summary)):
        console.print()
        console.print(table)
    if summary.rounds[-1].number:
        console.print(Text(f"\nGreedy answers that came right: {summary.won}; that went wrong: {summary.lost}."))
    for example in summary.examples:
        console.print(example_panel(example))
    console.print()
    for line in files(summary):
        console.print(Text(line))
    if summary.note:
        console.print(Text(f"\n{summary.note}", style="italic"))


def title(summary: Summary) -> str:
    config = summary.info["config"]
    objective = config["training"]["objective"] if config["learn"] == "preferences" else "continued sft"
    labels = ", random labels" if config["selection"]["labels"] == "random" else ""
    off = ", off-policy samples" if config["off_policy"] else ""
    parameters = summary.info.get("parameters", 0)
    done = summary.rounds[-1].number
    rounds = f"{done} round{'' if done == 1 else 's'} of PLUM ({objective}{labels}{off})"
    return f"{summary.path}: {rounds} on {config['policy']}, {parameters:,} parameters, seed {config['seed']}"


def label(path: Path) -> str:
    """A run's name among others: its folder, made visible."""
    return visible(path.resolve().name)


def heldout_table(summary: Summary) -> Table:
    base = summary.rounds[0].evaluation
    ks = list(base.get("pass_at", {}))[1:]
    config = summary.info["config"]["evaluation"]
    table = Table(
        title=f"Held out: {base.get('tasks', 0)} tasks that no stage saw, {config['samples']} samples at "
        f"T = {config['temperature']:g} and the greedy answer; per cent, 95 % intervals over tasks",
        title_justify="left",
    )
    for name in ("", "pass@1 sampled", "gain", "pass@1 greedy", "gain", *(f"pass@{k}" for k in ks), "lost"):
        table.add_column(name, justify="left" if not name else "right")
    for figures in summary.rounds:
        row = figures.evaluation
        if row:
            table.add_row(
                round_name(figures.number),
                interval(row["sampled"]),
                interval(row.get("sampled_gain"), signed=True),
                interval(row["greedy"]),
                interval(row.get("greedy_gain"), signed=True),
                *(percent(row["pass_at"].get(k)) for k in ks),
                str(row["lost"]),
            )
    return table


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return "\n".join(f"{count} {name}" for name, count in counts)


def _stage_one(r: RoundFigures) -> str:
    return f"{r.tests.get('kept', 0)} kept of {r.tests.get('instructions', 0)}" if r.tests else ""


def _samples(r: RoundFigures) -> str:
    if not r.samples:
        return ""
    tokens = r.samples["tokens"] / max(1, r.samples["samples"])
    distinct = 100 * r.samples["distinct"] / max(1, r.samples["samples"])
    return f"{r.samples['samples']}, {tokens:.0f} tokens each, {distinct:.0f} % distinct"


def _passed(r: RoundFigures) -> str:
    if not r.verdicts:
        return ""
    return f"{100 * r.verdicts['outcomes'].get('passed', 0) / max(1, r.verdicts['programs']):.1f} %"


def _instructions(r: RoundFigures) -> str:
    row = r.preferences
    if not row:
        return ""
    return _listed((words, row[name]) for name, words in (
        ("mixed", "with both verdicts"), ("all_passed", "all passed"), ("all_failed", "all failed"),
        ("one_sided", "left with one side"), ("unjudged", "unjudged"),
    ) if row[name])  # fmt: skip


def _preferences(r: RoundFigures) -> str:
    return f"{r.preferences['kept']} ({r.preferences['capped']} more over the cap)" if r.preferences else ""


def _training(r: RoundFigures) -> Iterator[str]:
    if not r.training:
        return
    first, last = r.training[0], r.training[-1]
    yield f"{len(r.training)} steps"
    for name in ("loss", "logps/chosen", "logps/rejected", "rewards/margins", "rewards/accuracies", "kl"):
        if name in last:
            yield f"{name} {first.get(name, float('nan')):.3g} to {last[name]:.3g}"


LINES: list[tuple[str, Callable[[RoundFigures], str]]] = [
    ("stage 1: instructions with tests", _stage_one),
    ("  rejected", lambda r: _listed(r.tests.get("rejected", {}).items())),
    ("stage 2: samples", _samples),
    ("  passed", _passed),
    ("  outcomes", lambda r: _listed(outcome_mix(r.verdicts))),
    ("  instructions", _instructions),
    ("  left out", lambda r: _listed(exclusions(r.preferences))),
    ("  preferences", _preferences),
    ("stage 3: training", lambda r: "\n".join(_training(r))),
]


def rounds_table(summary: Summary) -> Table:
    rounds = [r for r in summary.rounds if r.number]
    table = Table(title="What each round did", title_justify="left")
    table.add_column("")
    for figures in rounds:
        table.add_column(round_name(figures.number))
    for name, cell in LINES:
        cells = [cell(figures) for figures in rounds]
        if any(cells):
            table.add_row(name, *cells)
    return table


def time_table(summary: Summary) -> Table:
    numbers = [r.number for r in summary.rounds]
    table = Table(title="Seconds by stage", title_justify="left")
    table.add_column("")
    for name in (*map(round_name, numbers), "all"):
        table.add_column(name, justify="right")
    for stage, by_round in summary.seconds.items():
        cells = [f"{by_round[n]:.1f}" if n in by_round else "" for n in numbers]
        table.add_row(stage, *cells, f"{sum(by_round.values()):.1f}")
    totals = [sum(by_round.get(n, 0.0) for by_round in summary.seconds.values()) for n in numbers]
    table.add_row("all", *(f"{t:.1f}" for t in totals), f"{sum(totals):.1f}", style="bold")
    return table


def example_panel(example: Example) -> Panel:
    """Model text goes through Syntax and Text, which know no markup."""
    said = f"{example.outcome}: {visible(example.test or example.detail)}"
    parts = (
        Text("before", style="red"),
        Syntax(visible(example.before), "python", background_color="default"),
        Text(said, style="red"),
        Text("after: passes all tests", style="green"),
        Syntax(visible(example.after), "python", background_color="default"),
    )
    return Panel(Group(*parts), title=Text(visible(example.prompt)), title_align="left")


def files(summary: Summary) -> Iterator[str]:
    yield f"Everything is in {summary.path}: run.json, metrics.jsonl, timings.jsonl, report.html, inspector.html,"
    yield "round-NNN/{instructions,tests,samples,verdicts,preferences,evaluation}.jsonl, and the policy after each"
    yield f"round in {summary.path}/checkpoints (Hugging Face's layout)."
