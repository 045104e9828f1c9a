"""Right programs on an overloaded machine: how many are taken for endless. It has to be none.

    python plum_core/execution/benchmarks/timeouts.py --programs 10000 --save

Busy loops load every core, and more workers than cores run programs that burn a part of their CPU limit. Each verdict
also says how long the program took by the clock on the wall: those past the limit are the ones that an executor would
have struck whose timeouts are wall time.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
from plum_core.execution import Executor, Limits
from plum_core.execution.benchmarks import report
from plum_core.records.types import Outcome, Program, Verdict

# ends with its parent, however that ends
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(10**6): pass\n"
BURN = """import time
def f(a, b):
    end = time.process_time() + {seconds:.6f}
    while time.process_time() < end: pass
    return a + b
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The load, and how near to its limit a program comes."""

    programs: int = 10_000
    workers: int = 8
    busy: int = 0  # processes that do nothing but load the cores; 0: one a core
    cpu_s: float = 0.06  # a program's limit
    wall_s: float = 0.1  # and for how long it may sleep: time in the queue would pass that as well
    least: float = 0.3  # parts of the CPU limit that programs burn: drawn evenly between these
    most: float = 0.6
    seed: int = 0
    save: bool = False  # keep the table under results/

    def __post_init__(self) -> None:
        if self.programs < 1 or self.workers < 1:
            raise ValueError(f"programs and workers must be at least 1, got {self.programs} and {self.workers}")
        if not 0 < self.least <= self.most:
            raise ValueError(f"least and most must be positive and in this order, got {self.least} and {self.most}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of programs that are all right. Seconds are of one program, from its first to its last message."""

    outcomes: dict[str, int]
    past_limit: int  # took longer by the wall's clock than their CPU limit
    past_sleep: int  # spent more time not running than the limit on sleep
    median_wall_s: float
    median_cpu_s: float

    @property
    def false_timeouts(self) -> int:
        return self.outcomes.get(Outcome.TIMEOUT.value, 0)

    @property
    def wrong(self) -> int:
        """Verdicts other than ``passed``."""
        return sum(self.outcomes.values()) - self.outcomes.get(Outcome.PASSED.value, 0)


@contextmanager
def loaded(count: int) -> Iterator[None]:
    """``count`` busy processes beside us."""
    started = [subprocess.Popen([sys.executable, "-I", "-S", "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def programs(config: Config) -> Iterator[Program]:
    """Right programs that burn between ``least`` and ``most`` of their limit, and one test each."""
    draw = random.Random(config.seed)
    for n in range(config.programs):
        seconds = config.cpu_s * draw.uniform(config.least, config.most)
        yield Program(id=str(n), code=BURN.format(seconds=seconds), tests=(f"assert f({n}, 2) == {n + 2}",))


def measure(config: Config) -> Found:
    """Run all of them under load."""
    limits = Limits(cpu_s=config.cpu_s, wall_s=config.wall_s)
    busy = config.busy or len(os.sched_getaffinity(0))
    with Executor(workers=config.workers, limits=limits) as executor, loaded(busy):
        return judged(executor.run(programs(config)), config)


def judged(verdicts: Iterator[Verdict], config: Config) -> Found:
    """Count what came back."""
    outcomes: Counter[str] = Counter()
    walls, cpus = [], []
    for verdict in verdicts:
        outcomes[verdict.outcome.value] += 1
        walls.append(verdict.wall_s)
        cpus.append(verdict.cpu_s)
    return Found(
        outcomes=dict(outcomes),
        past_limit=sum(wall > config.cpu_s for wall in walls),
        past_sleep=sum(wall - cpu > config.wall_s for wall, cpu in zip(walls, cpus, strict=True)),
        median_wall_s=statistics.median(walls),
        median_cpu_s=statistics.median(cpus),
    )


def row(config: Config, found: Found) -> dict[str, Any]:
    """The table's only row."""
    return {
        "programs": sum(found.outcomes.values()),
        "false timeouts": found.false_timeouts,
        "otherwise wrong": found.wrong - found.false_timeouts,
        "past the CPU limit by the wall's clock": found.past_limit,
        "off the CPU longer than the sleep limit": found.past_sleep,
        "CPU limit ms": round(1000 * config.cpu_s),
        "median CPU ms": round(1000 * found.median_cpu_s, 1),
        "median wall ms": round(1000 * found.median_wall_s, 1),
    }


def main(config: Config) -> int:
    found = measure(config)
    told = row(config, found)
    busy = config.busy or len(os.sched_getaffinity(0))
    text = (
        f"False timeouts: {config.workers} programs at a time beside {busy} busy loops. {report.machine()}\n\n"
        + report.table([told])
    )
    print(text)
    if config.save:
        report.save("timeouts", text, {"config": asdict(config), "row": told, "outcomes": found.outcomes})
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
