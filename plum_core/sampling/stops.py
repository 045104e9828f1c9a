"""Where a text meets a stop string. Text, not ids: the same string can be cut into tokens in many ways."""

from __future__ import annotations

from collections.abc import Sequence


def first_stop(text: str, stop: Sequence[str]) -> tuple[int, str] | None:
    """The offset, in characters, and the string of the earliest match; the longest string where several begin there."""
    found = [(at, -len(s), s) for s in stop if (at := text.find(s)) >= 0]
    if not found:
        return None
    at, _, string = min(found)
    return at, string
