"""Verdicts to one result a task, and a table of results to the figures that are reported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from plum_core.evaluation.intervals import Interval, mean_interval, paired_gain
from plum_core.evaluation.passk import pass_at_k
from plum_core.records import Outcome, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """``passed`` of ``n`` samples; ``greedy`` is the verdict on the most likely program, where one was drawn.

    ``lost`` counts sandbox errors: they are in neither ``n`` nor ``passed``.
    """

    id: str
    n: int
    passed: int
    greedy: bool | None = None
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The figures of one policy on one set of tasks. ``pass_at``: unbiased pass@k by k, a mean over tasks."""

    sampled: Interval | None
    greedy: Interval | None
    pass_at: dict[int, float]
    tasks: int
    samples: int
    lost: int


def split_id(verdict_id: str) -> tuple[str, str]:
    """``task/3`` or ``task/greedy`` into task and sample. Raises ValueError without a slash."""
    task, slash, sample = verdict_id.rpartition("/")
    if not slash:
        raise ValueError(f"verdict id {verdict_id!r} is not TASK/SAMPLE, so its task is unknown")
    return task, sample


def task_results(task_ids: Sequence[str], verdicts: Iterable[Verdict]) -> list[TaskResult]:
    """One result a task, in the order of ``task_ids``; ValueError for a verdict of another task."""
    sampled: dict[str, list[bool]] = {task: [] for task in task_ids}
    greedy: dict[str, bool] = {}
    lost = dict.fromkeys(task_ids, 0)
    for verdict in verdicts:
        task, sample = split_id(verdict.id)
        if task not in sampled:
            raise ValueError(f"verdict {verdict.id!r} is of a task that is not evaluated: use the same tasks file")
        if verdict.outcome == Outcome.SANDBOX_ERROR:
            lost[task] += 1
        elif sample == "greedy":
            greedy[task] = verdict.outcome == Outcome.PASSED
        else:
            sampled[task].append(verdict.outcome == Outcome.PASSED)
    return [
        TaskResult(id=task, n=len(hits), passed=sum(hits), greedy=greedy.get(task), lost=lost[task])
        for task, hits in sampled.items()
    ]


def score(results: Sequence[TaskResult], ks: Sequence[int] = ()) -> Score:
    """Mean pass rate at the sampling temperature, greedy pass@1, and pass@k for each k that every task allows."""
    drawn = [r for r in results if r.n]
    greedy = [float(r.greedy) for r in results if r.greedy is not None]
    fewest = min((r.n for r in drawn), default=0)
    return Score(
        sampled=mean_interval([r.passed / r.n for r in drawn]) if len(drawn) > 1 else None,
        greedy=mean_interval(greedy) if len(greedy) > 1 else None,
        pass_at={k: sum(pass_at_k(r.n, r.passed, k) for r in drawn) / len(drawn) for k in ks if 1 <= k <= fewest},
        tasks=len(results),
        samples=sum(r.n for r in results),
        lost=sum(r.lost for r in results),
    )


def sampled_gain(before: Sequence[TaskResult], after: Sequence[TaskResult]) -> Interval | None:
    """Paired gain in mean pass rate over the tasks that both have samples of; None for fewer than two."""
    old = {r.id: r.passed / r.n for r in before if r.n}
    new = {r.id: r.passed / r.n for r in after if r.n}
    return _paired(old, new)


def greedy_gain(before: Sequence[TaskResult], after: Sequence[TaskResult]) -> Interval | None:
    """Paired gain in greedy pass@1 over the tasks that both have; None for fewer than two."""
    old = {r.id: float(r.greedy) for r in before if r.greedy is not None}
    new = {r.id: float(r.greedy) for r in after if r.greedy is not None}
    return _paired(old, new)


def _paired(old: dict[str, float], new: dict[str, float]) -> Interval | None:
    both = [task for task in old if task in new]
    return paired_gain([old[t] for t in both], [new[t] for t in both]) if len(both) > 1 else None
