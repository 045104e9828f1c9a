"""Straight-line test code to tests that stand alone: each assert with the statements that it depends on."""

from __future__ import annotations

import ast
from collections.abc import Sequence

MOST_ROUNDS = 50  # of a loop over literals that is written out


def independent(statements: Sequence[ast.stmt], known: frozenset[str]) -> list[str]:
    """One test for each assert (or block that holds one) of ``statements``, in order.

    A test begins with the earlier statements that touch the same variables, asserts among them: they may change an
    object. ``known``: names that the reference defines, which are nobody's variables.
    """
    tests = []
    before: list[ast.stmt] = []
    for statement in _written_out(statements):
        if _asserts(statement):
            tests.append(_text([*_needed(before, statement, known), statement]))
        before.append(statement)
    return tests


def _written_out(statements: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Loops over literals as assignments and their bodies, conjunctions as single asserts."""
    out: list[ast.stmt] = []
    for node in statements:
        if isinstance(node, ast.For) and _asserts(node) and (rounds := _rounds(node)):
            for value in rounds:
                assign = ast.Assign([node.target], value)
                out += [ast.copy_location(assign, node), *_written_out(node.body)]
        elif isinstance(node, ast.Assert) and isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And):
            out += [ast.copy_location(ast.Assert(part, node.msg), node) for part in node.test.values]
        else:
            out.append(node)
    return out


def _rounds(loop: ast.For) -> list[ast.expr]:
    """What it goes over, where its body can simply be repeated."""
    items = loop.iter.elts if isinstance(loop.iter, ast.List | ast.Tuple) else []
    jumps = any(isinstance(node, ast.Break | ast.Continue) for node in ast.walk(loop))
    plain = not loop.orelse and not jumps and not any(isinstance(item, ast.Starred) for item in items)
    return list(items) if plain and len(items) <= MOST_ROUNDS else []


def _asserts(statement: ast.stmt) -> bool:
    """Whether it can fail on purpose."""
    return any(isinstance(node, ast.Assert) or _raises_assertion(node) for node in ast.walk(statement))


def _raises_assertion(node: ast.AST) -> bool:
    return isinstance(node, ast.Raise) and node.exc is not None and "AssertionError" in ast.unparse(node.exc)


def _needed(before: Sequence[ast.stmt], statement: ast.stmt, known: frozenset[str]) -> list[ast.stmt]:
    """What touches its variables, back to where each of them got the value that it had."""
    bound = frozenset().union(*map(_bound, before)) - known if before else frozenset()
    wanted = _names(statement) & bound
    chosen: list[ast.stmt] = []
    for earlier in reversed(before):
        touched = _names(earlier) & bound
        if touched & wanted:
            chosen.append(earlier)
            wanted = (wanted | touched) - _set_anew(earlier)
    return chosen[::-1]


def _set_anew(statement: ast.stmt) -> frozenset[str]:
    """Names that it binds whatever they were before."""
    if not isinstance(statement, ast.Assign):
        return frozenset()
    parts = [part for target in statement.targets for part in ast.walk(target)]
    if not all(isinstance(part, ast.Name | ast.Tuple | ast.List | ast.expr_context) for part in parts):
        return frozenset()
    return _bound(statement) - {node.id for node in ast.walk(statement.value) if isinstance(node, ast.Name)}


def _names(tree: ast.AST) -> frozenset[str]:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return frozenset(names | _bound(tree))


def _bound(tree: ast.AST) -> frozenset[str]:
    """Names that it binds: assigned, imported or defined."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return frozenset(found)


def _text(statements: Sequence[ast.stmt]) -> str:
    return "\n".join(ast.unparse(ast.fix_missing_locations(node)) for node in statements)
