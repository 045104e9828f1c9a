"""Solutions to graded records, one line each, as they finish; and those records to figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plum_core.evaluation.benchmark import Task
from plum_core.evaluation.intervals import Interval
from plum_core.evaluation.results import TaskResult, greedy_gain, sampled_gain
from plum_core.evaluation.samples import Solution
from plum_core.execution import Executor
from plum_core.records import Outcome, read_jsonl


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """One solution's judgement. ``right``: by level, empty where the sandbox failed (that says nothing about it)."""

    task: str
    index: str
    right: dict[str, Any]
    outcome: str
    detail: str
    cpu_s: float
    attested: bool
    code: str
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        return self.task, self.index


def grade(tasks: Sequence[Task], solutions: Iterable[Solution], executor: Executor) -> Iterator[Graded]:
    """As they finish. Equal programs run once (the executor shares them)."""
    by_id = {task.id: task for task in tasks}
    held: dict[str, Solution] = {}

    def programs() -> Iterator[Any]:
        for solution in solutions:
            name = f"{solution.task}\n{solution.index}"
            if name in held:
                raise ValueError(
                    f"sample {solution.index} of {solution.task} comes twice: number them, or drop 'index'"
                )
            held[name] = solution
            yield by_id[solution.task].program(name, solution.code)

    for verdict in executor.run(programs()):
        solution = held[verdict.id]
        ours = verdict.outcome == Outcome.SANDBOX_ERROR
        yield Graded(
            task=solution.task,
            index=solution.index,
            right={} if ours else by_id[solution.task].judge(verdict),
            outcome=verdict.outcome.value,
            detail=verdict.detail,
            cpu_s=verdict.cpu_s,
            attested=verdict.attested,
            code=solution.code,
        )


def read_graded(path: Path) -> list[Graded]:
    """A results file. Raises ValueError where a sample comes twice."""
    rows = list(read_jsonl(path, Graded))
    if len({row.key for row in rows}) != len(rows):
        raise ValueError(f"{path}: a sample comes twice: was the file joined with itself?")
    return rows


def levels_of(rows: Sequence[Graded]) -> list[str]:
    """``base``, and ``plus`` where the benchmark has it."""
    return list(dict.fromkeys(level for row in rows for level in row.right))


def results_at(rows: Sequence[Graded], level: str, task_ids: Sequence[str] | None = None) -> list[TaskResult]:
    """One result a task, in the order of ``task_ids`` or of the file's tasks by name."""
    names = list(task_ids) if task_ids is not None else sorted({row.task for row in rows})
    by_task: dict[str, list[Graded]] = {name: [] for name in names}
    for row in rows:
        by_task[row.task].append(row)
    out = []
    for name, of_task in by_task.items():
        judged = [row for row in of_task if level in row.right]
        sampled = [bool(row.right[level]) for row in judged if row.index != "greedy"]
        greedy = next((bool(row.right[level]) for row in judged if row.index == "greedy"), None)
        lost = len(of_task) - len(judged)
        out.append(TaskResult(id=name, n=len(sampled), passed=sum(sampled), greedy=greedy, lost=lost))
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs task by task on the tasks of both. ``better`` and ``worse``: (task, before, after) in pass rates."""

    level: str
    tasks: int
    better: list[tuple[str, float, float]]
    worse: list[tuple[str, float, float]]
    gain: Interval | None
    greedy: Interval | None
    only_before: int
    only_after: int


def compare(before: Sequence[Graded], after: Sequence[Graded], level: str) -> Comparison:
    """Paired over tasks. Raises ValueError where the runs have no task in common."""
    old = {r.id: r for r in results_at(before, level)}
    new = {r.id: r for r in results_at(after, level)}
    both = [name for name in old if name in new]
    if not both:
        raise ValueError("the two runs have no task in common: are they of one benchmark?")
    rates = [(name, _rate(old[name]), _rate(new[name])) for name in both]
    left, right = [old[n] for n in both], [new[n] for n in both]
    return Comparison(
        level=level,
        tasks=len(both),
        better=[row for row in rates if row[2] > row[1]],
        worse=[row for row in rates if row[2] < row[1]],
        gain=sampled_gain(left, right),
        greedy=greedy_gain(left, right),
        only_before=len(old) - len(both),
        only_after=len(new) - len(both),
    )


def _rate(result: TaskResult) -> float:
    if result.n:
        return result.passed / result.n
    return float(bool(result.greedy))
