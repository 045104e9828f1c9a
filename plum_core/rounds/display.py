"""Live progress of rank 0: one line a stage that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
)
from rich.table import Column

from plum_core.rounds.observer import Observer
from plum_core.rounds.rates import Pace, clock, in_words

PLAIN_EVERY_S = 15.0
WIDE = 100  # columns
TITLES = {
    "tests": "writing and filtering tests",
    "samples": "sampling the policy",
    "verdicts": "running the samples",
    "preferences": "choosing preferences",
    "training": "training",
    "evaluation": "evaluating on held-out tasks",
}


class Display(Observer):
    """Shows stages on ``console``. Use it as a context manager, so that the terminal is left as it was."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = console.is_terminal
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24 if console.width > WIDE else 8),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            # what does not fit is cut here, where it is missed least
            TextColumn("{task.fields[figures]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            console=console,
            expand=True,
            transient=True,
            refresh_per_second=4,
        )
        self.task: TaskID | None = None
        self.title, self.unit, self.pace, self.spoke = "", "", Pace(0.0), 0.0

    def __enter__(self) -> Display:
        if self.live:
            self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.live:
            self.bar.stop()

    def stage(self, round_: int, stage: str, unit: str) -> None:
        self.begin(f"{round_name(round_)}: {TITLES.get(stage, stage)}", unit)

    def begin(self, title: str, unit: str) -> None:
        """Something that takes a while begins, counted in ``unit``."""
        self.title = title
        self.unit, self.pace, self.spoke = unit, Pace(time.monotonic()), time.monotonic()
        if self.live:
            self.task = self.bar.add_task(self.title, total=None, figures=unit, left="")

    def progress(self, done: int, total: int, figures: Mapping[str, Any] | None = None) -> None:
        now = time.monotonic()
        rates = self.pace.rates(done, total, figures, now)
        text = in_words(rates, self.unit)
        left = f"{clock(rates['left_s'])} left" if "left_s" in rates else ""
        if self.live and self.task is not None:
            self.bar.update(self.task, completed=done, total=total or None, figures=escape(text), left=left)
        elif now - self.spoke >= PLAIN_EVERY_S:
            self.spoke = now
            counted = f"{done} of {total or '?'} {self.unit}"
            said = ", ".join(filter(None, (counted, text, left)))
            self.console.print(f"{self.title}: {said}", markup=False, highlight=False)

    def finished(self, round_: int, stage: str, seconds: float, row: Mapping[str, Any]) -> None:
        self.end(f"{describe(stage, row)} in {seconds:.1f} s")

    def end(self, text: str) -> None:
        """It is done; what came of it."""
        if self.live and self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None
        self.console.print(f"{self.title}: {text}", markup=False, highlight=False)


def round_name(number: int) -> str:
    return f"round {number}" if number else "before"


def _training_figures(row: Mapping[str, Any]) -> str:
    shown = [f"loss {row['loss']:.3f}"] if "loss" in row else []
    if "rewards/margins" in row:
        shown.append(f"margin {row['rewards/margins']:+.3f}")
    return ", ".join(shown)


def describe(stage: str, row: Mapping[str, Any]) -> str:
    """What a finished stage did, in a few words."""
    if stage == "tests":
        return f"{row.get('kept', 0)} of {row.get('instructions', 0)} instructions kept their tests"
    if stage == "samples":
        return f"{row.get('samples', 0)} samples, {row.get('tokens', 0)} tokens"
    if stage == "verdicts":
        outcomes = row.get("outcomes", {})
        return f"{outcomes.get('passed', 0)} of {row.get('programs', 0)} passed"
    if stage == "preferences":
        return f"{row.get('kept', 0)} preferences from {row.get('mixed', 0)} instructions with both verdicts"
    if stage == "training":
        return f"{row.get('steps', 0)} steps, {_training_figures(row)}"
    sampled = row.get("sampled") or {}
    return f"{100 * sampled['mean']:.1f} % of samples pass" if sampled else "done"
