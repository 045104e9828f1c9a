"""``raises`` and ``approx``, which generated tests take from pytest, without pytest."""

from __future__ import annotations

import math
import re
import types
from typing import Any


class raises:
    """Context manager: the block must raise one of ``kinds`` (and its text match ``match``)."""

    def __init__(self, kinds: Any, match: str | None = None) -> None:
        self.kinds = kinds
        self.match = match
        self.value: BaseException | None = None

    def __enter__(self) -> raises:
        return self

    def __exit__(self, kind: Any, value: BaseException | None, _: Any) -> bool:
        if kind is None:
            raise AssertionError("DID NOT RAISE")
        if not issubclass(kind, self.kinds):
            return False
        if self.match is not None and not re.search(self.match, str(value)):
            raise AssertionError(f"the message does not match {self.match!r}")
        self.value = value
        return True


class approx:
    """Equal within ``rel`` (1e-6) of the expected number or ``abs`` (1e-12), through lists, tuples and dicts."""

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None) -> None:
        self.expected = expected
        self.rel = 0.0 if rel is None and abs is not None else 1e-6 if rel is None else rel
        self.abs = 1e-12 if abs is None else abs

    def __eq__(self, actual: object) -> bool:
        return self._close(actual, self.expected)

    __hash__ = None  # type: ignore[assignment]

    def _close(self, actual: Any, expected: Any) -> bool:
        if isinstance(expected, (list, tuple)):
            same = type(actual) is type(expected) and len(actual) == len(expected)
            return same and all(map(self._close, actual, expected))
        if isinstance(expected, dict):
            same = isinstance(actual, dict) and actual.keys() == expected.keys()
            return same and all(self._close(actual[key], expected[key]) for key in expected)
        if isinstance(expected, (int, float)) and isinstance(actual, (int, float)):
            return actual == expected or math.isclose(actual, expected, rel_tol=self.rel, abs_tol=self.abs)
        return bool(actual == expected)


def module() -> types.ModuleType:
    """A module object to stand under the name ``pytest``."""
    made = types.ModuleType("pytest")
    made.raises = raises  # type: ignore[attr-defined]
    made.approx = approx  # type: ignore[attr-defined]
    return made
