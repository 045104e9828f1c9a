"""Benchmarks whose tests are test code in the file: HumanEval, MBPP (full and sanitized), LeetCodeDataset."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from plum_core.evaluation import humaneval
from plum_core.evaluation.benchmark import Task, checked
from plum_core.evaluation.files import read_rows, text_field
from plum_core.records import Program

MBPP_CPU_S = 10.0  # the reference of Mbpp/123 takes more than 3
LEETCODE_CPU_S = 60.0  # a program, of about a hundred calls; one reference takes more than 20
ONE_BLOCK = "Answer with the whole program in one Python code block."


def load_humaneval(path: Path) -> list[Task]:
    """``HumanEval.jsonl.gz``: a completion follows the prompt; ``check`` is one test."""
    return [
        Task(
            id=problem.task_id,
            prefix=problem.prompt,
            request=f"Complete this function. {ONE_BLOCK}\n\n{problem.prompt.strip()}\n",
            program=partial(_checked, problem.test, problem.entry_point),
            entry_point=problem.entry_point,
            canonical=problem.prompt + problem.canonical_solution,
        )
        for problem in humaneval.read_problems(path)
    ]


def load_leetcode(path: Path) -> list[Task]:
    """LeetCodeDataset: the prompt has imports and helper classes; ``check`` has about a hundred asserts.

    The method's class comes in the answer, so a base model continues the prompt and the starter code. A task id may
    stand in the file twice; the second gets ``#2``.
    """
    tasks, seen = [], dict[str, int]()
    for row in read_rows(path):
        name, prompt = text_field(row, "task_id", path), text_field(row, "prompt", path)
        entry, test = text_field(row, "entry_point", path), text_field(row, "test", path)
        seen[name] = seen.get(name, 0) + 1
        tasks.append(
            Task(
                id=name if seen[name] == 1 else f"{name}#{seen[name]}",
                prefix=prompt + "\n" + row.get("starter_code", ""),
                request=str(row.get("query") or row.get("problem_description") or prompt),
                program=partial(_leetcode, prompt, test, entry),
                entry_point=entry,
                canonical=prompt + "\n" + text_field(row, "completion", path),
                stops=("\nclass ", "\ndef ", "\n#", "\nif __name__", "\nprint(", "\n```"),
                meta={"date": str(row.get("estimated_date", "")), "difficulty": str(row.get("difficulty", ""))},
            )
        )
    return tasks


def load_mbpp(path: Path) -> list[Task]:
    """``mbpp.jsonl`` (974; ids 11 to 510 are the test split) or ``sanitized-mbpp.json`` (427); one test an assert."""
    return [_mbpp(row, path) for row in read_rows(path)]


def _mbpp(row: Mapping[str, Any], path: Path) -> Task:
    if not isinstance(row.get("task_id"), int) or not isinstance(row.get("test_list"), list):
        raise ValueError(f"{path}: wants MBPP's rows with 'task_id' and 'test_list', got {sorted(row)}")
    words = text_field(row, "prompt" if "prompt" in row else "text", path)
    setup = row["test_setup_code"] if "test_setup_code" in row else "\n".join(row["test_imports"])
    tests = tuple(row["test_list"])
    shown = "\n".join(tests)
    return Task(
        id=f"Mbpp/{row['task_id']}",
        prefix=f'"""\n{words}\n{shown}\n"""\n',
        request=f"{words}\nThe code must pass these tests:\n```python\n{shown}\n```\n{ONE_BLOCK}\n",
        program=lambda name, code: Program(id=name, code=code, tests=tests, setup=setup, limits={"cpu_s": MBPP_CPU_S}),
        canonical=text_field(row, "code", path),
        stops=('\n"""', "\nassert", "\n# Test", "\nprint(", "\nif __name__", "\n```"),
        continues=False,
    )


def _checked(test: str, entry: str, name: str, code: str) -> Program:
    return checked(name, code, test, entry)


def _leetcode(prompt: str, test: str, entry: str, name: str, code: str) -> Program:
    """Answers take the prompt's imports for granted, so they are there whoever wrote the answer."""
    whole = code if code.startswith(prompt) else f"{prompt}\n{code}"
    return checked(name, whole, test, entry, LEETCODE_CPU_S)
