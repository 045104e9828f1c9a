"""Programs that solve nothing: what a suite must fail to be worth anything."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Sequence

from plum_core.testing.filters.source import called_functions, definition, is_literal, parse

RAISES = "raises"  # the program that passes no test that asks for an answer
CONSTANTS = ("None", "0", "1", "-1", "True", "False", "''", "[]", "{}", "()")
MOST_ANSWERS = 4  # constants taken from the tests, the most frequent first


def trivial_programs(reference: str, entry_point: str, tests: Sequence[str]) -> dict[str, str]:
    """By name, the reference with the bodies of what the tests call replaced: by an exception, a constant (ours, and
    the answers that the tests expect most), or an argument. Empty where the reference has no such definition."""
    tree = parse(reference)
    if tree is None or definition(tree, entry_point) is None:
        return {}
    bodies = {RAISES: "raise NotImplementedError"}
    for value in dict.fromkeys((*CONSTANTS, *expected_answers(tests, entry_point))):
        bodies[f"returns {value[:40]}"] = f"return {value}"
    programs = {name: _with_body(tree, entry_point, body) for name, body in bodies.items()}
    widest = max(len(_arguments(f)) for f in called_functions(_the(tree, entry_point)))
    for n in range(widest):
        programs[f"returns argument {n + 1}"] = _with_body(tree, entry_point, n)
    return programs


def expected_answers(tests: Sequence[str], entry_point: str) -> list[str]:
    """Literals that tests compare a call with, the most frequent first."""
    found: Counter[str] = Counter()
    for test in tests:
        for node in ast.walk(parse(test) or ast.Module([], [])):
            if isinstance(node, ast.Compare) and len(node.ops) == 1:
                for side in (node.left, node.comparators[0]):
                    if is_literal(side):
                        found[ast.unparse(side)] += 1
    return [value for value, _ in found.most_common(MOST_ANSWERS)]


def _the(tree: ast.Module, entry_point: str) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef:
    found = definition(tree, entry_point)
    assert found is not None
    return found


def _arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [a.arg for a in (*function.args.posonlyargs, *function.args.args) if a.arg not in ("self", "cls")]


def _with_body(tree: ast.Module, entry_point: str, body: str | int) -> str:
    """``body``: a statement, or the number of the argument that is returned (None where there are fewer)."""
    changed = copy.deepcopy(tree)
    for function in called_functions(_the(changed, entry_point)):
        names = _arguments(function)
        statement = body if isinstance(body, str) else f"return {names[body] if body < len(names) else None}"
        function.body = ast.parse(f"def f():\n {statement}").body[0].body  # type: ignore[attr-defined]
    return ast.unparse(ast.fix_missing_locations(changed))
