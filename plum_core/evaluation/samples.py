"""Samples files of other tools, read and written: human-eval and EvalPlus (``task_id`` with ``completion`` or
``solution``), LiveCodeBench (``question_id``, ``code_list``), CRUXEval (one JSON object ``id: [answers]``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from plum_core.evaluation.benchmark import Task
from plum_core.evaluation.files import read_rows, read_text
from plum_core.evaluation.prompts import from_answer
from plum_core.records import write_atomic

Layout = Literal["evalplus", "human-eval", "livecodebench", "cruxeval"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A whole program of one task; ``index`` is a number, or "greedy"."""

    task: str
    index: str
    code: str


def read_solutions(path: Path, tasks: Sequence[Task]) -> tuple[list[Solution], list[str]]:
    """All solutions for ``tasks``, in the file's order, and the ids in the file that are none of theirs.

    Of one task the n-th has the index n, unless the row says its ``index``. Raises ValueError for an unknown layout.
    """
    by_id = {task.id: task for task in tasks}
    seen: dict[str, int] = {}
    found, strange = [], list[str]()
    for name, kind, text, index in _entries(path):
        key = name if name in by_id else _other_spelling(name)
        if key not in by_id:
            strange.append(name)
            continue
        number = seen[key] = seen.get(key, -1) + 1
        code = _whole(by_id[key], kind, text)
        found.append(Solution(task=key, index=str(number) if index is None else index, code=code))
    return found, list(dict.fromkeys(strange))


def _other_spelling(name: str) -> str:
    """MBPP's tasks are ``Mbpp/2`` at EvalPlus, ``MBPP/2`` and ``2`` elsewhere."""
    number = name.rpartition("/")[2].rpartition("_")[2]
    return f"Mbpp/{number}" if number.isdecimal() else name


def _whole(task: Task, kind: str, text: str) -> str:
    if kind == "completion" and task.continues:
        return task.prefix + text
    return from_answer(task, text) if kind == "answer" else text


def _entries(path: Path) -> Iterable[tuple[str, str, str, str | None]]:
    text = read_text(path)
    if text.lstrip()[:1] == "{" and "\n" not in text.strip():
        try:
            whole = json.loads(text)
        except ValueError:
            whole = None
        if isinstance(whole, dict) and whole and all(isinstance(v, list) for v in whole.values()):
            for name, answers in whole.items():
                yield from ((name, "solution", answer, None) for answer in answers)
            return
    for number, row in enumerate(read_rows(path), 1):
        yield from _row_entries(row, f"{path}:{number}")


def _row_entries(row: dict[str, Any], place: str) -> Iterable[tuple[str, str, str, str | None]]:
    if "question_id" in row and isinstance(row.get("code_list"), list):
        for code in row["code_list"]:
            yield str(row["question_id"]), "solution", str(code), None
        return
    kind = next((key for key in ("solution", "completion", "answer") if isinstance(row.get(key), str)), None)
    if "task_id" not in row or kind is None:
        raise ValueError(
            f"{place}: wants task_id with completion, solution or answer, or question_id with code_list; got "
            f"{', '.join(sorted(row)) or 'nothing'}"
        )
    index = row.get("index")
    yield str(row["task_id"]), kind, row[kind], None if index is None else str(index)


def write_solutions(path: Path, solutions: Sequence[Solution], tasks: Sequence[Task], layout: Layout) -> None:
    """For another tool to grade. ``human-eval`` wants what follows the prompt: ValueError where a program does not
    begin with it.
    """
    prefixes = {task.id: task.prefix for task in tasks}
    if layout in ("livecodebench", "cruxeval"):
        lists: dict[str, list[str]] = {}
        for s in solutions:
            lists.setdefault(s.task, []).append(s.code)
        rows_of_lists = [{"question_id": name, "code_list": codes} for name, codes in lists.items()]
        write_atomic(path, json.dumps(lists if layout == "cruxeval" else rows_of_lists))
        return
    rows = []
    for s in solutions:
        if layout == "evalplus":
            rows.append({"task_id": s.task, "solution": s.code})
            continue
        if not s.code.startswith(prefixes[s.task]):
            raise ValueError(f"{s.task}/{s.index} does not begin with the prompt: write layout evalplus instead")
        rows.append({"task_id": s.task, "completion": s.code[len(prefixes[s.task]) :]})
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows))
