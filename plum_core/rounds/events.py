"""Progress for programs: one JSON object a line, which rank 0 alone writes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, TextIO

from plum_core.rounds.observer import Observer
from plum_core.rounds.rates import Pace
from plum_core.rounds.summary import Summary

EVERY_S = 2.0  # between two lines of progress


class Events(Observer):
    """``stage``, ``progress``, ``finished`` and at the end ``summary``; each line has its kind under ``event``."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.place: dict[str, Any] = {}
        self.pace, self.spoke = Pace(0.0), 0.0

    def _write(self, event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}), file=self.out, flush=True)

    def stage(self, round_: int, stage: str, unit: str) -> None:
        self.place = {"round": round_, "stage": stage}
        self.pace, self.spoke = Pace(time.monotonic()), time.monotonic()
        self._write("stage", **self.place, unit=unit)

    def progress(self, done: int, total: int, figures: Mapping[str, Any] | None = None) -> None:
        now = time.monotonic()
        rates = self.pace.rates(done, total, figures, now)
        if now - self.spoke >= EVERY_S:
            self.spoke = now
            self._write("progress", **self.place, done=done, total=total, **rates)

    def finished(self, round_: int, stage: str, seconds: float, row: Mapping[str, Any]) -> None:
        self._write("finished", round=round_, stage=stage, seconds=round(seconds, 3), row=dict(row))

    def summary(self, summary: Summary, report: str, worked: bool) -> None:
        """What the run came to. ``worked``: whether this sitting found anything left to do."""
        evaluations = [{"round": r.number, **r.evaluation} for r in summary.rounds if r.evaluation]
        self._write("summary", run=summary.path, report=report, worked=worked, evaluations=evaluations)
