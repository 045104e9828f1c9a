"""What became of one test, and how an exception that a child reports becomes that."""

from __future__ import annotations

from typing import Any, NamedTuple

from plum_core.execution.inside.endings import Ending

_BY_EXCEPTION = {"AssertionError": "failed", "MemoryError": "memory", "SystemExit": "exit"}


class Result(NamedTuple):
    """``outcome`` is one of records.Outcome's values."""

    outcome: str
    detail: str


def exception_result(names: Any, text: Any) -> Result:
    """The outcome of an exception: type names, nearest first, and its message. Raises Ending on another form."""
    if type(names) is not list or not all(type(name) is str for name in [*names, text]):
        raise Ending("violation", "a message of another form")
    outcome = next((_BY_EXCEPTION[name] for name in names if name in _BY_EXCEPTION), "error")
    if "OSError" in names and text.startswith("[Errno 12]"):
        outcome = "memory"
    name = names[0] if names else "Exception"
    return Result(outcome, f"{name}: {text}" if text else name)
