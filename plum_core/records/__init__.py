"""The records that the stages hand to each other, and their files."""

from plum_core.records.files import append_jsonl, read_jsonl, write_atomic, write_jsonl
from plum_core.records.types import (
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
    "Instruction",
    "Label",
    "Outcome",
    "Pair",
    "Program",
    "Sample",
    "StdinTest",
    "TestSuite",
    "Verdict",
    "append_jsonl",
    "read_jsonl",
    "write_atomic",
    "write_jsonl",
]
