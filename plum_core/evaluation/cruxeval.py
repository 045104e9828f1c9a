"""CRUXEval: what a function returns on an input (``output``), or an input on which it returns a value (``input``).

An answer is an expression. It is put into the program, never into the test, and compared with what the file says.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from plum_core.evaluation.benchmark import Task
from plum_core.evaluation.files import read_rows, text_field
from plum_core.records import Program

Direction = Literal["input", "output"]
LIMITS = {"cpu_s": 3.0}


def load(path: Path, direction: Direction) -> list[Task]:
    """800 tasks; ids as in the file."""
    tasks = []
    for row in read_rows(path):
        code, given, output = (text_field(row, name, path) for name in ("code", "input", "output"))
        question = f"assert f({given}) ==" if direction == "output" else "assert f("
        asked = (
            f"What does f({given}) return? Answer with `assert f({given}) == ` and the literal, in a Python code block."
            if direction == "output"
            else f"Find an input for which f returns {output}. Answer with `assert f(...) == {output}` in a code block."
        )
        tasks.append(
            Task(
                id=text_field(row, "id", path),
                prefix=f"{code}\n\n{question}",
                request=f"```python\n{code}\n```\n{asked}\n",
                program=partial(_program, direction, code, given, output),
                canonical=output if direction == "output" else f"f({given})",
                stops=("\n", "#"),
                continues=False,
            )
        )
    return tasks


def _program(direction: Direction, code: str, given: str, output: str, name: str, answer: str) -> Program:
    """The paper's rule: an output may not be computed by the same call, an input must be a call of f."""
    expression = asked_expression(direction, answer)
    fair = "f(" in expression if direction == "input" else f"f({given})" not in expression
    body = f"return ({expression}\n)" if fair else "raise ValueError('not an answer of the form that was asked for')"
    return Program(
        id=name,
        code=f"{code}\n\ndef _plum_answer():\n    {body}\n",
        tests=(f"assert _plum_answer() == {output}",),
        limits=LIMITS,
        extra={"entry_point": "_plum_answer"},
    )


def asked_expression(direction: Direction, answer: str) -> str:
    """The expression in an answer: alone, or within ``assert f(...) == ...``; fences and prose cut off."""
    text = answer.strip()
    if "assert " in text:
        text = text.rpartition("assert ")[2].split("\n")[0].removesuffix("```").strip()
        left, equals, right = text.partition("==")
        if equals:
            text = right if direction == "output" else left
    return text.strip()
