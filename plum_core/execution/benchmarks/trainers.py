"""A trainer that is killed and started again: runners/execute.py on a file of mixed programs."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from plum_core.execution.benchmarks import watch
from plum_core.execution.benchmarks.mix import Case, difference, make_case
from plum_core.records.files import JsonlWriter, read_jsonl
from plum_core.records.types import Verdict

ROOT = Path(__file__).resolve().parents[3]
RUNNER = ROOT / "runners" / "execute.py"
START_S = 30.0  # a runner's file of verdicts is there by then
EARLY_S = 1.5  # a kill that strikes anywhere in start and run
LATE_S = 1.0  # one that strikes after the first verdict's file was opened
FINISH_S = 600.0


class Series:
    """Kills of one command after the other; a file of verdicts that is complete is checked and a new one begun."""

    def __init__(self, folder: Path, programs: int, workers: int, seed: int) -> None:
        self._folder = folder
        self._count = programs
        self._workers = workers
        self._seed = seed
        self._draw = random.Random(seed)
        self._number = 0
        self.killed = 0
        self.verdicts = 0
        self.problems: list[str] = []
        self._begin()

    def kill_once(self) -> None:
        """Start the command and kill it; one that has finished before is checked and does not count."""
        killed = False
        while not killed:
            process = self._start()
            try:
                self._wait(process)
            finally:
                process.kill()
                killed = process.wait() != 0
            alive = watch.await_end(process.pid)
            self.problems += [f"process {pid} survived its trainer" for pid in sorted(alive)]
            if not killed:
                self._check()
                self._begin()
        self.killed += 1

    def finish(self) -> None:
        """Run the last command to its end and check what it wrote."""
        status = self._start().wait(timeout=FINISH_S)
        if status != 0:
            self.problems.append(f"the last run ended with status {status}")
        self._check()

    def _begin(self) -> None:
        """A file of new programs, and none of verdicts."""
        first = self._number * self._count
        self._number += 1
        self._cases: dict[str, Case] = {}
        self._programs = self._folder / f"programs{self._number}.jsonl"
        self._out = self._folder / f"verdicts{self._number}.jsonl"
        with JsonlWriter(self._programs) as writer:
            for index in range(first, first + self._count):
                case = make_case(self._seed, index)
                self._cases[case.program.id] = case
                writer.write(case.program)

    def _start(self) -> subprocess.Popen[bytes]:
        words = ["--programs", self._programs, "--out", self._out, "--workers", self._workers]
        return subprocess.Popen(
            [sys.executable, str(RUNNER), *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
        )

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        """Until the moment of the kill: now and then while the runner starts, mostly while programs run."""
        if self._draw.random() < 0.25:
            return time.sleep(self._draw.uniform(0.0, EARLY_S))
        end = time.monotonic() + START_S
        before = self._size()
        while self._size() == before and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(self._draw.uniform(0.0, LATE_S))

    def _size(self) -> int:
        return self._out.stat().st_size if self._out.exists() else 0

    def _check(self) -> None:
        """Exactly one verdict a program, and the right one."""
        left = dict(self._cases)
        for verdict in read_jsonl(self._out, Verdict):
            self.verdicts += 1
            case = left.pop(verdict.id, None)
            wrong = difference(case, verdict) if case else "a verdict too many"
            if wrong:
                self.problems.append(f"{verdict.id}, after kills of its trainer: {wrong}")
        self.problems += [f"{id}: no verdict after kills of its trainer" for id in left]
