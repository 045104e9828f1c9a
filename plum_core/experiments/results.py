"""The figures of an experiment's arms, over tasks and seeds.

Tasks are the unit of the intervals: a task's rate is its mean over the seeds, for the seeds share their held-out tasks
and so are no independent evaluations. What seeds change is told beside, each seed's gain by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plum_core.evaluation import Interval, TaskResult, mean_interval, paired_gain
from plum_core.experiments.plan import Arm, Cell, Experiment
from plum_core.reporting.detail import heldout_results
from plum_core.rounds.folder import RunFolder

KINDS = ("sampled", "greedy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one arm, ``sampled`` or ``greedy``: after the last round, the gain over its first policy, the difference to
    the first arm, and the gain of each seed.
    """

    after: Interval
    gain: Interval
    against: Interval | None
    seeds: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """An arm's figures by kind, from the seeds that are done."""

    arm: Arm
    done: tuple[int, ...]
    figures: dict[str, Figures]


def rates(results: Sequence[TaskResult], kind: str) -> dict[str, float]:
    """Share of samples passed, or the greedy answer as 0 or 1, by task; tasks that were lost are left out."""
    if kind == "sampled":
        return {r.id: r.passed / r.n for r in results if r.n}
    return {r.id: float(r.greedy) for r in results if r.greedy is not None}


def mean_rates(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """A task's mean over runs, of tasks that all of them have."""
    shared = [task for task in runs[0] if all(task in run for run in runs)]
    return {task: sum(run[task] for run in runs) / len(runs) for task in shared}


def results(experiment: Experiment, cells: Sequence[Cell]) -> list[ArmResult]:
    """Each arm that has a seed done. Differences are over the seeds that both arms have done."""
    done = [cell for cell in cells if cell.done]
    before = {kind: {_key(c): rates(_results(c, 0), kind) for c in done} for kind in KINDS}
    after = {kind: {_key(c): rates(_results(c, c.config.rounds), kind) for c in done} for kind in KINDS}
    first = experiment.arms[0].name
    out = []
    for arm in experiment.arms:
        seeds = tuple(c.seed for c in done if c.arm.name == arm.name)
        if seeds:
            shared = [s for s in seeds if (first, s) in after["sampled"]] if arm.name != first else []
            found = {kind: _figures(before[kind], after[kind], arm.name, first, seeds, shared) for kind in KINDS}
            out.append(ArmResult(arm=arm, done=seeds, figures={k: f for k, f in found.items() if f is not None}))
    return out


def _key(cell: Cell) -> tuple[str, int]:
    return cell.arm.name, cell.seed


def _results(cell: Cell, number: int) -> list[TaskResult]:
    return heldout_results(RunFolder(cell.config.out), number)


def _figures(
    before: dict[tuple[str, int], dict[str, float]],
    after: dict[tuple[str, int], dict[str, float]],
    name: str,
    first: str,
    seeds: Sequence[int],
    shared: Sequence[int],
) -> Figures | None:
    old, new = (mean_rates([side[name, s] for s in seeds]) for side in (before, after))
    if len(new) < 2:
        return None
    mine, base = (mean_rates([after[n, s] for s in shared]) if shared else {} for n in (name, first))
    gains = [_paired(before[name, s], after[name, s]) for s in seeds]
    return Figures(
        after=mean_interval(list(new.values())),
        gain=_paired(old, new),
        against=_paired(base, mine) if shared else None,
        seeds=tuple(g.mean for g in gains),
    )


def _paired(old: dict[str, float], new: dict[str, float]) -> Interval:
    both = [task for task in old if task in new]
    return paired_gain([old[t] for t in both], [new[t] for t in both])
