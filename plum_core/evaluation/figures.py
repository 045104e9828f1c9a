"""Results of tasks as lines for people."""

from __future__ import annotations

from collections.abc import Sequence

from plum_core.evaluation.results import TaskResult, greedy_gain, sampled_gain, score

SHOWN = 12  # names of tasks in a line


def figures(
    results: Sequence[TaskResult], ks: Sequence[int] = (), before: Sequence[TaskResult] | None = None
) -> list[str]:
    """Per cent with 95 % intervals over tasks; where there are results ``before``, gains, and tasks won and lost."""
    found = score(results, ks)
    out = [f"{found.tasks} tasks, {found.samples} samples, {found.lost} lost to sandbox errors"]
    for name, interval in (("pass@1 sampled", found.sampled), ("pass@1 greedy", found.greedy)):
        if interval:
            out.append(f"{name}: {interval.percent()} ({interval.method})")
    out += [f"pass@{k}: {100 * value:.1f}" for k, value in found.pass_at.items() if k > 1]
    return out + (changes(before, results) if before is not None else [])


def changes(before: Sequence[TaskResult], after: Sequence[TaskResult]) -> list[str]:
    """Paired gains over the tasks of both, and which tasks' rates went up and down."""
    out = []
    for name, gain in (("sampled", sampled_gain(before, after)), ("greedy", greedy_gain(before, after))):
        if gain:
            out.append(f"gain {name}: {gain.points()} (paired, {gain.count} tasks)")
    old, new = ({r.id: rate for r in results if (rate := _rate(r)) is not None} for results in (before, after))
    moved = {task: rate - old[task] for task, rate in new.items() if task in old}
    for word, tasks in (
        ("better", [t for t, change in moved.items() if change > 0]),
        ("worse", [t for t, change in moved.items() if change < 0]),
    ):
        more = f" and {len(tasks) - SHOWN} more" if len(tasks) > SHOWN else ""
        out.append(f"{word}: {len(tasks)} tasks" + (f" ({', '.join(tasks[:SHOWN])}{more})" if tasks else ""))
    return out


def _rate(result: TaskResult) -> float | None:
    """The share of the samples that passed; of the greedy answer where nothing was sampled."""
    if result.n:
        return result.passed / result.n
    return None if result.greedy is None else float(result.greedy)
