"""LiveCodeBench from its own file (code_generation_lite's ``test*.jsonl``): stdin and functional problems, by date."""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import zlib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from plum_core.evaluation.benchmark import Task
from plum_core.evaluation.files import read_rows, text_field
from plum_core.records import Program, StdinTest

PLAIN_OPCODES = frozenset(
    ("PROTO", "FRAME", "EMPTY_DICT", "MEMOIZE", "BINPUT", "SHORT_BINUNICODE", "BINUNICODE", "SETITEM", "STOP")
)
CPU_S = 6.0  # a test
LIMITS = {"cpu_s": CPU_S, "wall_s": 10.0, "output_kib": 1 << 14}


def unpacked(text: str) -> Any:
    """Hidden tests: base64 of zlib of JSON, which may be pickled: a string, or the one value of a dict.

    A pickle's opcodes are read, never run. Raises ValueError for anything else.
    """
    try:
        raw = zlib.decompress(base64.b64decode(text, validate=True))
    except (binascii.Error, zlib.error) as problem:
        raise ValueError(f"hidden tests that are no base64 of zlib: {problem}") from None
    if raw[:1] == b"\x80":
        read = list(pickletools.genops(raw))
        strange = sorted({code.name for code, _, _ in read} - PLAIN_OPCODES)
        strings = [value for _, value, _ in read if isinstance(value, str)]
        if strange or not strings:
            raise ValueError(f"hidden tests pickled with {', '.join(strange) or 'no string'}: only text is read")
        raw = strings[-1].encode()
    return json.loads(raw)


def load(path: Path, since: date | None = None, until: date | None = None) -> list[Task]:
    """Problems whose contest was in [since, until]."""
    found = []
    for row in read_rows(path):
        day = date.fromisoformat(text_field(row, "contest_date", path)[:10])
        if (since is None or day >= since) and (until is None or day <= until):
            found.append(_task(row, day, path))
    return found


def _cases(text: str) -> list[dict[str, str]]:
    cases = json.loads(text) if text.lstrip()[:1] == "[" else unpacked(text)
    if not isinstance(cases, list):
        raise ValueError("tests that are no list of {input, output, testtype}")
    return cases


def _task(row: Mapping[str, Any], day: date, path: Path) -> Task:
    name, starter = text_field(row, "question_id", path), text_field(row, "starter_code", path)
    try:
        cases = _cases(text_field(row, "public_test_cases", path)) + _cases(text_field(row, "private_test_cases", path))
    except ValueError as problem:
        raise ValueError(f"{path}: {name}: {problem}") from None
    function = json.loads(row.get("metadata") or "{}").get("func_name")
    functional = cases[0]["testtype"] == "functional" if cases else bool(function)
    how = (
        f"Complete this class:\n```python\n{starter}\n```\n"
        if starter
        else "The program reads standard input and writes standard output.\n"
    )
    content = text_field(row, "question_content", path)
    return Task(
        id=name,
        prefix="",
        request=f"{content}\n\n{how}Answer with the whole program in one Python code block.\n",
        program=lambda id, code: program(id, code, cases, function if functional else None),
        entry_point="Solution" if functional and "class Solution" in starter else (function or "") * functional,
        continues=False,
        meta={"date": day.isoformat(), "difficulty": str(row.get("difficulty", ""))},
    )


def program(name: str, code: str, cases: list[dict[str, str]], function: str | None) -> Program:
    """All cases of one problem. A function's arguments stand in JSON, one a line; so does its answer."""
    if function is None:
        tests = tuple(StdinTest(input=case["input"], output=case["output"]) for case in cases)
        return Program(id=name, code=code, stdin_tests=tests, limits=LIMITS)
    owner = "Solution()." if "class Solution" in code else ""
    calls = tuple(
        {"call": f"{owner}{function}({_arguments(case['input'])})", "expected": json.loads(case["output"])}
        for case in cases
    )
    limits = {**LIMITS, "cpu_s": CPU_S * min(len(calls), 10)}  # the executor's limit is of all calls together
    return Program(id=name, code=IMPORTS + code, calls=calls, limits=limits, extra={"entry_point": owner + function})


def _arguments(text: str) -> str:
    return ", ".join(repr(json.loads(line)) for line in text.splitlines() if line)


# What LiveCodeBench's own runner puts before a solution
IMPORTS = "".join(
    f"from {module} import *\n"
    for module in (
        *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
        *("itertools", "functools", "operator", "io", "json", "typing"),
    )
)
