"""The answer file of a child, read as what it is: data of an untrusted writer, bounded, checked for nonce and order."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from plum_core.execution.inside import codec
from plum_core.execution.inside.endings import Ending
from plum_core.execution.inside.processes import ANSWERS_TOGETHER
from plum_core.execution.inside.results import exception_result

_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # typeshed lacks it; decode, less its search for spaces


class Answers(NamedTuple):
    """``values``: of the calls in order, a Result where one raised. ``ending``: why there are no more of them."""

    values: list[Any]
    ending: Ending | None


def read(written: bytes, nonce: str, count: int, limits: dict[str, Any]) -> Answers:
    """The answers to ``count`` calls, as far as they are there. What no honest child writes is a violation."""
    longest = int(limits["output_kib"] * 1024)
    *lines, rest = written.split(b"\n")
    values: list[Any] = []
    try:
        for line in lines:
            if len(line) > longest:
                raise Ending("output", "an answer longer than the output limit")
            values.append(_value(_message(line), nonce, len(values), count))
        if len(rest) > longest or len(written) >= ANSWERS_TOGETHER * longest:
            raise Ending("output", "answers longer than the output limit")
    except Ending as ending:
        return Answers(values, ending.with_traceback(None))  # it leads by this frame to whoever keeps the ending
    return Answers(values, None)


def _message(line: bytes) -> list[Any]:
    try:
        text = line.decode()
        message, end = _scan(text, 0)
    except (ValueError, RecursionError, StopIteration):
        raise Ending("violation", "a message that is not JSON") from None
    if end != len(text):
        raise Ending("violation", "a message that is not JSON")
    if type(message) is not list or not 4 <= len(message) <= 5:
        raise Ending("violation", "a message of another form")
    return message


def _value(message: list[Any], nonce: str, index: int, count: int) -> Any:
    """The value of call ``index``, or the Result of its exception. Raises Ending when the code itself raised."""
    if message[0] != nonce or message[1] not in (index, -1) or type(message[1]) is not int:
        raise Ending("violation", "a message out of order")
    if message[1] == count:
        raise Ending("violation", "more answers than calls")
    if message[2] == "v" and len(message) == 4 and message[1] == index:
        try:
            return codec.decode(message[3])
        except (codec.Malformed, RecursionError):
            raise Ending("violation", "a value that cannot be read") from None
    if message[2] == "e" and len(message) == 5:
        result = exception_result(message[3], message[4])
        if message[1] == -1:
            raise Ending(*result)
        return result
    raise Ending("violation", "a message of another form")
