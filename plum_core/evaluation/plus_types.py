"""Arguments that JSON cannot hold: which inputs of MBPP+ are tuples, sets or complex numbers.

EvalPlus's files have lists and strings in their place and its loader turns them back; the tasks are from there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Convert = Callable[[list[Any]], list[Any]]


def _all_tuples(value: Any) -> Any:
    return tuple(map(_all_tuples, value)) if isinstance(value, list) else value


def _tuples(args: list[Any]) -> list[Any]:
    return [tuple(arg) for arg in args]


def _lists_of_tuples(args: list[Any]) -> list[Any]:
    return [[tuple(item) for item in arg] for arg in args]


def _first_tuple(args: list[Any]) -> list[Any]:
    return [tuple(args[0]), *args[1:]]


_CONVERT: list[tuple[tuple[int, ...], Convert]] = [
    (
        (2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809),
        _tuples,
    ),
    ((63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780), _lists_of_tuples),
    ((75, 413, 444, 753), lambda args: [[tuple(item) for item in args[0]], args[1]]),
    ((106, 750), lambda args: [args[0], tuple(args[1])]),
    ((115,), lambda args: [[set(item) if isinstance(item, list) and item else {} for item in args[0]]]),
    ((124,), lambda args: [float(args[0]), complex(args[1])]),
    ((250, 405, 446, 617, 720, 763, 808, 307), _first_tuple),
    ((259, 401, 445), lambda args: _tuples(_lists_of_tuples(args))),
    ((278,), lambda args: [tuple(tuple(item) if isinstance(item, list) else item for item in args[0])]),
    ((722,), lambda args: [{key: tuple(item) for key, item in args[0].items()}, *args[1:]]),
    ((252,), lambda args: [complex(args[0])]),
    ((580, 615, 791), lambda args: [_all_tuples(arg) for arg in args]),
]
CONVERT = {f"Mbpp/{task}": convert for tasks, convert in _CONVERT for task in tasks}
