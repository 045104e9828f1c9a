"""A long run of mixed benign and hostile programs: no wrong verdict, and nothing that grows.

    python plum_core/execution/benchmarks/soak.py --programs 200000 --save
    python plum_core/execution/benchmarks/soak.py --minutes 4 --save
    python plum_core/execution/benchmarks/soak.py --start 4711 --programs 1    # one case again

Between batches the executor stands still and is weighed; the end is compared with the state after the first ``warm``
programs. Ctrl-C ends the run and prints what there is; ``--start`` goes on from an index.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
from plum_core.execution import Executor
from plum_core.execution.benchmarks import report, watch
from plum_core.execution.benchmarks.ledger import Ledger, Run
from plum_core.execution.benchmarks.mix import NUMPY, WRITES_OF_HOSTILE, Case, make_case
from plum_core.execution.benchmarks.watch import Held

# MiB that a process of each role may grow between the warm state and the end, however long the run is.
GROWTH_MIB = {
    "trainer": 4.0,  # an allocator's arenas settle; verdicts are not kept
    "judge": 8.0,  # plans of 256 suites are kept, and buffers of the longest answer
    "zygote": 1.0,  # it allocates nothing after its start
    "library zygote": 1.0,
    "child": 1.0,  # at rest: forked, confined, and waiting for a job
}
MOST = {"judge": 1, "zygote": 1, "library zygote": 1, "child": 2, "zombie": 0}  # at rest, a worker
PROGRESS_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How long, how wide, and which programs."""

    programs: int = 200_000
    workers: int = 2
    seed: int = 0
    start: int = 0  # index of the first case
    minutes: float = 0.0  # stop after so many; 0: at the last program
    warm: int = 500  # programs, at least, before the state that the end is compared with
    batch: int = 500  # programs between two looks
    save: bool = False  # keep the table under results/

    def __post_init__(self) -> None:
        for name in ("programs", "workers", "warm", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(slots=True, kw_only=True)
class Soak:
    """What was seen so far."""

    config: Config
    ledger: Ledger
    began: float  # epoch seconds
    group: int | None
    warm_at: int = 0
    warm: dict[str, Held] | None = None
    warm_judges: frozenset[int] = frozenset()
    last: dict[str, Held] | None = None
    last_judges: frozenset[int] = frozenset()
    peak_mib: float = 0.0  # of trainer, judges, zygotes and children together, while programs run
    interrupted: bool = False

    def look(self) -> None:
        """Weigh the standing executor."""
        self.last = watch.held_at_rest(os.getpid())
        found = watch.roles(os.getpid())
        self.last_judges = frozenset(pid for pid, role in found.items() if role == "judge")
        zygotes, libraries = (self.last.get(role, Held()).count for role in ("zygote", "library zygote"))
        started = libraries == zygotes or not NUMPY  # each worker starts its own when a program first wants it
        if self.warm is None and self.ledger.done >= self.config.warm and started:
            self.warm, self.warm_judges, self.warm_at = self.last, self.last_judges, self.ledger.done

    def look_within(self) -> None:
        """Weigh it at work."""
        now = watch.held(os.getpid())
        weights = [role.pss_mib if role.pss_mib is not None else role.rss_mib for role in now.values()]
        self.peak_mib = max(self.peak_mib, sum(weights))

    def problems(self) -> list[str]:
        """Everything that is wrong, in words."""
        found = list(self.ledger.wrong)
        left = watch.left_behind(self.group) | {path for path in WRITES_OF_HOSTILE if Path(path).exists()}
        found += [f"left behind: {name}" for name in sorted(left)]
        if self.last is not None:
            found += crowded(self.last, self.config.workers)
        if self.warm is not None and self.last is not None:
            found += grown(self.warm, self.last)
            if gone := len(self.warm_judges - self.last_judges):
                found.append(f"{gone} workers had to be replaced")
        return found


def crowded(last: dict[str, Held], workers: int) -> list[str]:
    """Roles with more processes than ``workers`` standing still have."""
    counts = {role: last[role].count for role in MOST if role in last}
    return [
        f"{counts[role]} processes of the role {role}, at most {MOST[role] * workers} expected"
        for role in counts
        if counts[role] > MOST[role] * workers
    ]


def grown(warm: dict[str, Held], last: dict[str, Held]) -> list[str]:
    """What one process of a role holds more at the end than it may, on average over the role; and all in all."""
    found = []
    allowed = 0.0
    if (more := last.get("other", Held()).count - warm.get("other", Held()).count) > 0:
        found.append(f"{more} more processes that are neither judge, zygote nor child")
    for role in (role for role in GROWTH_MIB if role in warm and role in last):
        before, after = warm[role], last[role]
        allowed += GROWTH_MIB[role] * after.count
        if after.rss_mib / after.count - before.rss_mib / before.count > GROWTH_MIB[role]:
            found.append(f"{role}: RSS grew from {before.rss_mib:.1f} to {after.rss_mib:.1f} MiB")
        if (after.descriptors or 0) / after.count > (before.descriptors or 0) / before.count:
            found.append(f"{role}: descriptors grew from {before.descriptors} to {after.descriptors}")
    # one process's share depends on how many others share its pages, so shares are judged in sum
    shares = [_total_pss(warm), _total_pss(last)]
    if shares[1] - shares[0] > allowed:
        found.append(f"all together: PSS grew from {shares[0]:.1f} to {shares[1]:.1f} MiB")
    return found


def _total_pss(roles: dict[str, Held]) -> float:
    return sum(held.pss_mib or 0.0 for role, held in roles.items() if role in GROWTH_MIB)


def batches(config: Config) -> Iterator[list[Case]]:
    """Cases in groups, until the number or the time is reached."""
    end = time.monotonic() + config.minutes * 60 if config.minutes else float("inf")
    last = config.start + config.programs
    for first in range(config.start, last, config.batch):
        if time.monotonic() >= end:
            return
        yield [make_case(config.seed, index) for index in range(first, min(first + config.batch, last))]


def soak(config: Config, run: Run, group: int | None) -> Soak:
    """All batches; Ctrl-C ends them early."""
    state = Soak(config=config, ledger=Ledger(), began=time.time(), group=group)
    told = time.monotonic()
    try:
        for cases in batches(config):
            for place, _ in enumerate(state.ledger.follow(run, cases)):
                if place == len(cases) // 2:
                    state.look_within()
            state.look()
            if time.monotonic() - told > PROGRESS_S:
                told = time.monotonic()
                print(f"{state.ledger.done} programs, {len(state.ledger.wrong)} wrong", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        state.interrupted = True
    return state


def rows(state: Soak) -> list[dict[str, Any]]:
    """A row a role: what it held when warm and at the end, all its processes together."""
    last = state.last or {}
    warm = state.warm or last
    return [
        {
            "role": role,
            "processes": f"{warm.get(role, Held()).count} -> {held.count}",
            "RSS MiB": _change(warm.get(role, Held()).rss_mib, held.rss_mib),
            "PSS MiB": _change(warm.get(role, Held()).pss_mib, held.pss_mib),
            "descriptors": _change(warm.get(role, Held()).descriptors, held.descriptors),
            "growth allowed, MiB each": GROWTH_MIB.get(role, 0.0),
        }
        for role, held in sorted(last.items(), key=lambda item: watch.ROLES.index(item[0]))
    ]


def _change(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "not shown to this user"
    return f"{before:.1f} -> {after:.1f}" if isinstance(after, float) else f"{before} -> {after}"


def text(state: Soak, problems: list[str]) -> str:
    """The table and what it needs to be read."""
    config, ledger = state.config, state.ledger
    seconds = time.time() - state.began
    counts = ", ".join(f"{count} {name}" for name, count in ledger.outcomes.most_common())
    looked = f"Left in {', '.join(watch.PLACES)} and System V: {watched(state.group)}."
    compared = f"Compared with the state after {state.warm_at} programs, both at rest."
    if state.warm is None:
        compared = "Too short: nothing was compared with a warm state."
    head = (
        f"Soak: {ledger.done} programs of seed {config.seed} from index {config.start}, {config.workers} at a time, "
        f"{seconds:.0f} s{', interrupted' if state.interrupted else ''}: {counts}. {report.machine()}\n\n"
        f"{compared} While programs ran, trainer, judges, "
        f"zygotes and children held at most {state.peak_mib:.0f} MiB together. {looked}\n\n"
    )
    return head + (report.table(rows(state)) if state.last else "") + "\n" + report.listing(problems)


def watched(group: int | None) -> str:
    """What lies about that is ours, in words."""
    if group is None:
        return "not looked at, for that takes root"
    return ", ".join(sorted(watch.left_behind(group))) or "nothing"


def main(config: Config) -> int:
    with watch.own_group() as group, Executor(workers=config.workers) as executor:
        state = soak(config, executor.run, group)
        problems = state.problems()
        told = text(state, problems)
    print(told)
    if config.save:
        data = {"config": asdict(config), "rows": rows(state), "outcomes": state.ledger.outcomes, "wrong": problems}
        report.save("soak", told, data)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
