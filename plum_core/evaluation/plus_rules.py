"""EvalPlus's rules of comparison (evalplus 0.3.1): which answer counts as the expected one.

Exact equality; numpy's closeness (rtol 1e-7) where a task has a tolerance or the expected answer is floating; and the
rules that single tasks have of their own.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from plum_core.evaluation.plus_harness import LONGEST_VALUE

FOUND = frozenset({"check_str", "text_match_three", "text_starta_endb"})  # only whether there is an answer
SETS = frozenset(
    (
        *("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum"),
        *("intersection_array", "find_dissimilar", "Diff"),
    )
)
OWN = frozenset({"find_zero", "are_equivalent", "sum_div", "surface_Area", "digit_distance_nums"})
RTOL, FLOAT_ATOL = 1e-7, 1e-6


class Unreadable(Exception):
    """An answer that is no plain data."""


def own_mode(entry: str) -> str:
    """How answers must be written for a task's own rule; '' where the answers themselves decide."""
    if entry in FOUND:
        return "found"
    return "value" if entry in SETS or entry in OWN else ""


def all_right(
    entry: str,
    atol: float,
    inputs: Sequence[Any],
    expected: Sequence[str],
    tokens: Sequence[str],
    *,
    exact_floats: bool = False,
) -> bool:
    """Whether every answer counts; answers are values as Python writes them, in the order of ``inputs``.

    exact_floats: without the tolerances, as EvalPlus's releases of early 2024 compared.
    """
    if len(tokens) != len(expected):
        return False
    for given, wanted, token in zip(inputs, expected, tokens, strict=True):
        try:
            exp = _value(wanted)
            atol = FLOAT_ATOL if atol == 0 and _floating(exp) else atol  # stays, as it does there
            if token == wanted and entry != "find_zero":
                continue
            near = 0.0 if exact_floats and entry not in OWN else atol
            if token.startswith("!") or not _counts(entry, near, given, exp, _value(token)):
                return False
        except (Unreadable, TypeError, ValueError, OverflowError, ArithmeticError):
            return False
    return True


def _counts(entry: str, atol: float, given: Any, exp: Any, out: Any) -> bool:
    if entry == "find_zero":
        return abs(sum(c * math.pow(out, i) for i, c in enumerate(given[0]))) <= atol
    exact = bool(out == exp)
    if entry == "are_equivalent":
        exact = True
    elif entry == "sum_div":
        exact = exact or out == 0
    elif entry == "surface_Area":
        exact = exact or abs(out - _surface_area(*given)) <= atol
    elif entry == "digit_distance_nums":
        exact = exact or out == _digit_distance(*given)
    elif entry in SETS:
        exact = set(out) == set(exp)
    if exact or atol == 0:
        return exact
    if type(out) is not type(exp) or (isinstance(exp, list | tuple) and len(out) != len(exp)):
        return False
    return bool(np.allclose(out, exp, rtol=RTOL, atol=atol))


def _value(text: str) -> Any:
    if len(text) > LONGEST_VALUE:
        raise Unreadable(f"an answer of more than {LONGEST_VALUE} characters")
    try:
        return ast.literal_eval(text)
    except (SyntaxError, MemoryError, RecursionError):
        raise Unreadable(text[:80]) from None
    except ValueError:
        if "inf" not in text and "nan" not in text:
            raise Unreadable(text[:80]) from None
    return ast.literal_eval(_Constants().visit(ast.parse(text, mode="eval")))


class _Constants(ast.NodeTransformer):
    """``inf`` and ``nan``, as Python writes them, are no literals."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(float(node.id)) if node.id in ("inf", "nan") else node


def _floating(value: Any) -> bool:
    if isinstance(value, list | tuple) and value:
        return all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _surface_area(edge: float, height: float) -> int:
    """Of a square pyramid whose height is the perpendicular one."""
    return round(edge**2 + 2 * edge * math.sqrt((edge / 2) ** 2 + height**2))


def _digit_distance(a: int, b: int) -> int:
    """Sum of the differences of digits, the shorter number filled up with zeros."""
    width = max(len(str(a)), len(str(b)))
    return sum(abs(int(x) - int(y)) for x, y in zip(str(a).zfill(width), str(b).zfill(width), strict=True))
