"""Does throughput grow with the cores, and to where? Measured on the cores at hand, and by a model beyond them.

    python plum_core/execution/benchmarks/scaling.py --save

A worker with its zygote and its children shares nothing with the next one, so what can stop the growth is the one
thread that hands programs out and takes verdicts in. It is measured alone: beside workers that answer at once and
judge nothing, it is always busy, and the CPU that a program costs it bounds what it can do. With r seconds of CPU a
run in all and d of them in that thread, n cores give min(n / r, 1 / d) runs a second.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
from plum_core.execution import Executor
from plum_core.execution.benchmarks import report
from plum_core.execution.benchmarks.peers import tree_cpu_ms
from plum_core.execution.benchmarks.tasks import trivial
from plum_core.execution.inside import frames
from plum_core.execution.workers import Worker
from plum_core.records.types import Program

ANSWER = {
    "token": 0,
    "gone": False,
    "outcome": "passed",
    "passed": [True, True, True],
    "detail": "",
    "wall_s": 0.00123,
    "cpu_s": 0.00123,
    "peak_mib": 12.5,
    "attested": True,
    "values": [],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How much is measured, and for which machines the model is asked."""

    programs: int = 4000  # small ones with three tests, no two alike
    handed: int = 40_000  # programs for the handing thread alone
    rounds: int = 5
    machines: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 96)  # cores
    save: bool = False  # keep the table under results/


class Echo(Worker):
    """Takes jobs as a worker does, and answers without looking at them."""

    def __init__(self, *_: object) -> None:
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _echo(theirs.fileno())
        theirs.close()
        ours.setblocking(False)
        self.sock, self.layers = ours, []
        self._incoming, self._outgoing = bytearray(), bytearray()

    def kill(self) -> None:
        self.sock.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _echo(channel: int) -> None:
    try:
        frames.write(channel, {"ready": True, "layers": []})
        while True:
            frames.read(channel)
            frames.write(channel, ANSWER)
    finally:
        os._exit(0)


def programs(count: int) -> list[Program]:
    """No two alike: equal ones would share a verdict."""
    tasks = trivial(400)
    return [Program(id=str(n), code=f"{tasks[n % 400].code}# {n}\n", tests=tasks[n % 400].tests) for n in range(count)]


def of_rounds(rounds: int, once: Callable[[], float]) -> float:
    """The median; a first turn warms up."""
    return statistics.median([once() for _ in range(rounds + 1)][1:])


def handing_us(config: Config, workers: int) -> float:
    """CPU microseconds a program of the thread that hands out, beside ``workers`` that answer at once."""
    work = programs(config.handed)
    with patch("plum_core.execution.executor.Worker", Echo), Executor(workers=workers) as executor:

        def once() -> float:
            start = time.process_time()
            ran = sum(1 for _ in executor.run(work))
            return 1e6 * (time.process_time() - start) / ran

        return of_rounds(config.rounds, once)


def measured(config: Config, cores: list[int]) -> tuple[float, float]:
    """Runs a second with a worker on each of ``cores``, and CPU milliseconds a run of all processes together."""
    work = programs(config.programs)
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cores))  # the handing thread has no core of its own, as in use
    costs: list[float] = []
    try:
        with Executor(workers=len(cores)) as executor:

            def once() -> float:
                cpu, start = tree_cpu_ms(os.getpid()), time.perf_counter()
                ran = sum(1 for _ in executor.run(work))
                seconds = time.perf_counter() - start
                costs.append((tree_cpu_ms(os.getpid()) - cpu) / ran)
                return ran / seconds

            return of_rounds(config.rounds, once), statistics.median(costs[1:])
    finally:
        os.sched_setaffinity(0, mine)


def main(config: Config) -> None:
    have = sorted(os.sched_getaffinity(0))
    found: dict[int, tuple[float, float]] = {}
    for count in sorted({1, *(n for n in config.machines if n <= len(have)), len(have)}):
        found[count] = measured(config, have[:count])
        print(f"{count} cores: {found[count][0]:.0f} runs/s, {found[count][1]:.2f} ms of CPU a run", flush=True)
    handing = {workers: handing_us(config, workers) for workers in (1, 8, max(config.machines))}
    for workers, cost in handing.items():
        print(f"handing out to {workers} workers: {cost:.1f} us of CPU a program", flush=True)
    run_s, hand_s = found[len(have)][1] / 1e3, handing[max(config.machines)] / 1e6
    rows = [row(count, run_s, hand_s, found) for count in config.machines]
    told = ", ".join(f"{cost:.0f} us beside {workers}" for workers, cost in handing.items())
    text = (
        f"{report.machine()}\n\n{config.programs} small programs of three tests, {1e3 * run_s:.2f} ms of CPU a run in "
        f"all. The handing thread alone, a program: {told} workers that answer at once.\n\n{report.table(rows)}"
    )
    print(text)
    if config.save:
        report.save("scaling", text, {"rows": rows, "handing_us": handing, "measured": found})


def row(cores: int, run_s: float, hand_s: float, found: dict[int, tuple[float, float]]) -> dict[str, Any]:
    """The model's answer for a machine, beside what was measured on as many cores."""
    rate = min(cores / run_s, 1 / hand_s)
    return {
        "cores": cores,
        "runs/s, model": round(rate),
        "of linear": f"{100 * rate * run_s / cores:.0f} %",
        "handing thread busy": f"{100 * rate * hand_s:.0f} %",
        "runs/s, measured": round(found[cores][0]) if cores in found else "not measured",
    }


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
