"""The records that the stages hand to each other, and their files."""

from __future__ import annotations

from plum_core.records.codec import from_json, to_json
from plum_core.records.files import JsonlWriter, append_jsonl, read_jsonl, write_atomic, write_jsonl
from plum_core.records.types import (
    Grade,
    Instruction,
    Label,
    Outcome,
    Pair,
    Program,
    Sample,
    StdinTest,
    TestSuite,
    Verdict,
)

__all__ = [
    "Grade",
    "Instruction",
    "JsonlWriter",
    "Label",
    "Outcome",
    "Pair",
    "Program",
    "Sample",
    "StdinTest",
    "TestSuite",
    "Verdict",
    "append_jsonl",
    "from_json",
    "read_jsonl",
    "to_json",
    "write_atomic",
    "write_jsonl",
]
