"""What several solutions of one instruction agree on, and whether that makes tests."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """``reference`` and ``tests`` where the solutions agree; ``why`` (a word of REASONS) where they do not."""

    reference: str | None
    tests: tuple[str, ...]
    why: str
    share: float  # of the solutions that answered every input alike


REASONS = {
    "disagreement": "too few of the solutions answered alike",
    "undefined": "the solutions agreed only on too few inputs that have an answer",
    "trivial": "a constant, or the argument itself, would pass",
}


def agree(
    calls: Sequence[str],
    answers: Sequence[tuple[str, tuple[str | None, ...]]],
    *,
    least_share: float,
    least_tests: int,
    least_outputs: int,
) -> Agreement:
    """The plurality of the solutions, as tests.

    calls: the inputs, as call expressions. answers: a solution's code and its answers as literals, None where it
    gave none (an exception, a time-out, no plain value); one entry a sample, so that equal samples count each.
    """
    groups: dict[tuple[str | None, ...], list[str]] = {}
    for code, outputs in answers:
        groups.setdefault(outputs, []).append(code)
    outputs, codes = max(groups.items(), key=lambda g: (sum(o is not None for o in g[0]) > 0, len(g[1])))
    share = len(codes) / len(answers)
    answered = [(call, out) for call, out in zip(calls, outputs, strict=True) if out is not None]
    why = ""
    if share < least_share:
        why = "disagreement"
    elif len(answered) < least_tests:
        why = "undefined"
    elif is_trivial(answered, least_outputs):
        why = "trivial"
    if why:
        return Agreement(reference=None, tests=(), why=why, share=share)
    tests = tuple(f"assert {call} == {out}" for call, out in answered)
    # the shortest of the agreeing solutions, then the first in order of text: the same whoever came first
    reference = min(codes, key=lambda code: (len(code), code))
    return Agreement(reference=reference, tests=tests, why="", share=share)


def is_trivial(answered: Sequence[tuple[str, str]], least_outputs: int) -> bool:
    """Whether a constant or one of the arguments would answer every call, or the outputs hardly differ."""
    outputs = [out for _, out in answered]
    booleans = all(out in ("True", "False") for out in outputs)
    if len(set(outputs)) < (2 if booleans else least_outputs):
        return True
    arguments = [[ast.unparse(a) for a in _call(call).args] for call, _ in answered]
    plain = [_canonical(out) for out in outputs]
    return any(
        all(args[i] == out for args, out in zip(arguments, plain, strict=True)) for i in range(len(arguments[0]))
    )


def _call(expression: str) -> ast.Call:
    node = ast.parse(expression, mode="eval").body
    assert isinstance(node, ast.Call)
    return node


def _canonical(literal: str) -> str:
    return ast.unparse(ast.parse(literal, mode="eval").body)


def count_reasons(whys: Mapping[str, int]) -> str:
    """ "disagreement 12, trivial 3", for people."""
    return ", ".join(f"{why} {count}" for why, count in sorted(whys.items(), key=lambda item: -item[1]))
