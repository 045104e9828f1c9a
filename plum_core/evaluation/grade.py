"""Solutions to graded records, one line each, as they finish; and those records to one result a task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from plum_core.evaluation.benchmark import Task
from plum_core.evaluation.results import TaskResult
from plum_core.evaluation.samples import Solution
from plum_core.execution import Executor
from plum_core.records import Outcome, Program, read_jsonl


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


def grade(
    tasks: Sequence[Task], solutions: Iterable[Solution], executor: Executor, *, patience: float = 1.0
) -> Iterator[Graded]:
    """As they finish; the costliest tasks begin first, so that no worker waits for a long one at the end.

    Equal programs run once (the executor shares them).

    patience: what the benchmark's own limits of CPU seconds are multiplied by, for a slow machine.
    """
    by_id = {task.id: task for task in tasks}
    held: dict[str, Solution] = {}

    def programs() -> Iterator[Any]:
        for solution in sorted(solutions, key=lambda s: -by_id[s.task].cost):
            name = f"{solution.task}\n{solution.index}"
            if name in held:
                raise ValueError(
                    f"sample {solution.index} of {solution.task} comes twice: number them, or drop 'index'"
                )
            held[name] = solution
            yield _patient(by_id[solution.task].program(name, solution.code), patience)

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


def _patient(program: Program, patience: float) -> Program:
    if patience == 1 or "cpu_s" not in program.limits:
        return program
    return replace(program, limits={**program.limits, "cpu_s": patience * program.limits["cpu_s"]})


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
