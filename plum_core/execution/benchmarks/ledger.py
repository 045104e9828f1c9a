"""Programs handed out, verdicts taken back: exactly one each, and the right one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from plum_core.execution.benchmarks.mix import Case, difference
from plum_core.records.types import Outcome, Program, Verdict

Run = Callable[[Iterable[Program]], Iterator[Verdict]]


class Ledger:
    """Keeps only what is under way, so that it does not grow with the run.

    ``killed``: processes of ours are killed meanwhile, so ``sandbox_error`` is counted and not wrong.
    """

    def __init__(self, *, killed: bool = False) -> None:
        self._killed = killed
        self._open: dict[str, Case] = {}
        self._last = time.monotonic()
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.handed = 0
        self.longest_silence_s = 0.0

    @property
    def done(self) -> int:
        """Verdicts so far."""
        return self.outcomes.total()

    def follow(self, run: Run, cases: Iterable[Case]) -> Iterator[Verdict]:
        """Run ``cases`` and check each verdict as it passes; what has none at the end is noted."""
        self._last = time.monotonic()
        for verdict in run(self._programs(cases)):
            self._settle(verdict)
            yield verdict
        self.wrong += [f"{id}: no verdict" for id in self._open]
        self._open.clear()

    def _programs(self, cases: Iterable[Case]) -> Iterator[Program]:
        for case in cases:
            self._open[case.program.id] = case
            self.handed += 1
            yield case.program

    def _settle(self, verdict: Verdict) -> None:
        now = time.monotonic()
        self.longest_silence_s = max(self.longest_silence_s, now - self._last)
        self._last = now
        self.outcomes[verdict.outcome.value] += 1
        case = self._open.pop(verdict.id, None)
        if case is None:
            self.wrong.append(f"{verdict.id}: a verdict too many")
        elif problem := difference(case, verdict, killed=self._killed):
            self.wrong.append(f"{verdict.id}: {problem}")

    @property
    def sandbox_errors(self) -> int:
        """Verdicts that say nothing about their program."""
        return self.outcomes[Outcome.SANDBOX_ERROR.value]
