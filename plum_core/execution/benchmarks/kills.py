"""kill -9 at random moments: every program ends with exactly one verdict, the right one, and nothing survives.

    python plum_core/execution/benchmarks/kills.py --kills 200 --save

Judges, zygotes and children are killed while a run of mixed programs goes on. A trainer is runners/execute.py: it is
killed, looked after, and the same command run again, until its file of verdicts is complete.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import count, takewhile
from pathlib import Path
from signal import SIGKILL
from typing import Any

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
from plum_core.execution import Executor, SandboxUnavailable
from plum_core.execution.benchmarks import report, trainers, watch
from plum_core.execution.benchmarks.ledger import Ledger, Run
from plum_core.execution.benchmarks.mix import Case, make_case

WITHIN = ("child", "judge", "zygote")
CLASSES = (*WITHIN, "trainer")
LONGEST_PAUSE_S = 0.5  # between two kills: a worker needs about half of it to start anew
STALLED_S = 30.0  # no verdict of any program for so long means that something hangs


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How often, and what runs meanwhile."""

    kills: int = 200
    workers: int = 2
    seed: int = 0
    programs: int = 150  # of one trainer's file
    save: bool = False  # keep the table under results/

    def __post_init__(self) -> None:
        for name in ("kills", "workers", "programs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(slots=True, kw_only=True)
class Found:
    """Counts, and what is wrong in words."""

    struck: Counter[str] = field(default_factory=Counter)
    verdicts: int = 0
    sandbox_errors: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, more: Found) -> None:
        self.struck += more.struck
        self.verdicts += more.verdicts
        self.sandbox_errors += more.sandbox_errors
        self.problems += more.problems


class Killer(threading.Thread):
    """Kills a process of each of ``victims``' roles in turn, at random moments; ``struck`` counts them."""

    def __init__(self, victims: Sequence[str], draw: random.Random) -> None:
        super().__init__(daemon=True)
        self._victims = victims
        self._draw = draw
        self._over = threading.Event()
        self.struck: Counter[str] = Counter()

    @property
    def busy(self) -> bool:
        """Whether more is to come."""
        return self.is_alive() and not self._over.is_set()

    def stop(self) -> None:
        """Leave the rest alive."""
        self._over.set()
        self.join()

    def run(self) -> None:
        for role in self._victims:
            struck = False
            while not struck and not self._over.is_set():
                time.sleep(self._draw.uniform(0.01, LONGEST_PAUSE_S))
                struck = self._strike(role)
            self.struck[role] += struck

    def _strike(self, role: str) -> bool:
        """Whether one was there. A zygote is the base's or the library's."""
        alive = [pid for pid, found in watch.roles(os.getpid()).items() if found.removeprefix("library ") == role]
        if not alive:
            return False
        try:
            os.kill(self._draw.choice(sorted(alive)), SIGKILL)
        except ProcessLookupError:  # it ended by itself meanwhile
            return False
        return True


def endless(seed: int) -> Iterator[Case]:
    """The mix without end."""
    return (make_case(seed, index) for index in count())


def kill_within(run: Run, victims: Sequence[str], seed: int) -> Found:
    """Kill ``victims`` while ``run`` is fed with programs; it gets no more once all are dead."""
    ledger, killer = Ledger(killed=True), Killer(victims, random.Random(seed))
    killer.start()
    problems = []
    try:
        for _ in ledger.follow(run, takewhile(lambda _: killer.busy, endless(seed))):
            pass
    except SandboxUnavailable as gone:
        problems.append(f"the run broke off: {gone}")
    finally:
        killer.stop()
    problems += ledger.wrong
    if ledger.longest_silence_s > STALLED_S:
        problems.append(f"no verdict for {ledger.longest_silence_s:.0f} s")
    return Found(struck=killer.struck, verdicts=ledger.done, sandbox_errors=ledger.sandbox_errors, problems=problems)


def present() -> frozenset[int]:
    """Processes below this one, zombies and orphans included."""
    return frozenset({*watch.roles(os.getpid()), *watch.family(os.getpid())})


def remains(before: frozenset[int], descriptors: int) -> list[str]:
    """What a closed executor of this process has left: living processes, zombies, descriptors."""
    found = [f"process {pid} survived" for pid in sorted(watch.await_end(os.getpid(), before))]
    zombies = {pid for pid, role in watch.roles(os.getpid()).items() if role == "zombie"}
    found += [f"process {pid} is a zombie" for pid in sorted(zombies - before)]
    if (now := len(os.listdir("/proc/self/fd"))) > descriptors:
        found.append(f"{now - descriptors} more descriptors than before")
    return found


def processes_of_ours(config: Config, victims: Sequence[str]) -> Found:
    """The part with a living trainer: this process."""
    before, descriptors = present(), len(os.listdir("/proc/self/fd"))
    with Executor(workers=config.workers) as executor:
        found = kill_within(executor.run, victims, config.seed)
    found.problems += remains(before, descriptors)
    return found


def trainers_of_ours(config: Config, kills: int) -> Found:
    """The part in which trainers die."""
    with tempfile.TemporaryDirectory() as folder:
        series = trainers.Series(Path(folder), config.programs, config.workers, config.seed)
        for _ in range(kills):
            series.kill_once()
        series.finish()
    return Found(struck=Counter(trainer=series.killed), verdicts=series.verdicts, problems=series.problems)


def measure(config: Config) -> Found:
    """Draw the victims, kill them, look what is left."""
    drawn = [CLASSES[n % len(CLASSES)] for n in range(config.kills)]
    random.Random(config.seed).shuffle(drawn)
    found = Found()
    with watch.own_group() as group:
        found.add(processes_of_ours(config, [role for role in drawn if role != "trainer"]))
        found.add(trainers_of_ours(config, drawn.count("trainer")))
        found.problems += [f"left behind: {name}" for name in sorted(watch.left_behind(group))]
    return found


def row(found: Found) -> dict[str, Any]:
    """The table's only row."""
    return {
        "kills": found.struck.total(),
        **{role: found.struck[role] for role in CLASSES},
        "verdicts": found.verdicts,
        "sandbox_error": found.sandbox_errors,
        "wrong": len(found.problems),
    }


def main(config: Config) -> int:
    began = time.monotonic()
    found = measure(config)
    seconds = time.monotonic() - began
    head = f"kill -9 at random moments, seed {config.seed}, {config.workers} at a time, {seconds:.0f} s. "
    text = f"{head}{report.machine()}\n\n{report.table([row(found)])}\n{report.listing(found.problems)}"
    print(text)
    if config.save:
        report.save("kills", text, {"config": asdict(config), "row": row(found), "wrong": found.problems})
    return 1 if found.problems else 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main(tyro.cli(Config, description=__doc__)))
    sys.exit(130)
