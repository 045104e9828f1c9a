"""Small faults put into a reference, one at a time: the share that a suite notices is its strength.

Operators after Offutt et al. 1996, "An experimental determination of sufficient mutant operators": relations,
arithmetic, connectives, constants and statements; beside them returned values, conditions and calls left out.
"""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable, Iterator

from plum_core.seeds import coordinate_seed
from plum_core.testing.filters.source import parse

Change = Callable[[ast.AST], ast.AST | None]  # a node's replacement; None: leave the statement out
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr},
    **{ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.Break: ast.Continue, ast.Continue: ast.Break},
}
UNWRAPPED = frozenset({"sorted", "abs", "set", "list", "reversed", "len", "sum", "max", "min", "str", "int", "tuple"})


def mutants(reference: str, most: int, *coordinates: int | str) -> list[str]:
    """Up to ``most`` different programs; which of all there are is drawn by ``coordinates``."""
    tree = parse(reference)
    if tree is None:
        return []
    places = [(n, k) for n, node in enumerate(_nodes(tree)) for k in range(len(_changes(node)))]
    random.Random(coordinate_seed(*coordinates, "mutants")).shuffle(places)
    found: dict[str, None] = {ast.unparse(tree): None}
    for n, k in places:
        if len(found) > most:
            break
        if (text := _mutant(tree, n, k)) is not None:
            found[text] = None
    return list(found)[1:]


def _mutant(tree: ast.Module, number: int, which: int) -> str | None:
    copied = copy.deepcopy(tree)
    target = next(node for n, node in enumerate(_nodes(copied)) if n == number)
    changed = _Replace(target, _changes(target)[which](target)).visit(copied)
    try:
        return ast.unparse(ast.fix_missing_locations(changed))
    except (ValueError, RecursionError):
        return None


def _nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes that may be changed, in the order of the source: no annotation, docstring, or what runs as a script."""
    stack: list[ast.AST] = list(reversed(tree.body))
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import | ast.ImportFrom) or _is_main(node) or _is_text(node):
            continue
        yield node
        skipped = {"annotation", "returns", "decorator_list", "type_params"}
        children: list[ast.AST] = []
        for name, value in ast.iter_fields(node):
            if name not in skipped:
                children += [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, ast.AST)]
        stack += reversed(children)


def _is_main(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes(node: ast.AST) -> list[Change]:
    """What can be done to one node."""
    if type(node) in SWAPS:
        return [lambda n: SWAPS[type(n)]()]
    if isinstance(node, ast.Constant):
        return [lambda n, v=value: ast.Constant(v) for value in _other_values(node.value)]  # type: ignore[misc]
    if isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        return [lambda n: ast.Return(ast.Constant(None))]
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        return [_negated]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        return [lambda n: n.operand]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in UNWRAPPED and node.args:
        return [lambda n: n.args[0]]
    if isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return [lambda n: None]
    return []


def _negated(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.If | ast.While | ast.IfExp)
    node.test = ast.UnaryOp(ast.Not(), node.test)
    return node


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _other_values(value: object) -> list[object]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, float):
        return [value + 1.0]
    if isinstance(value, str):
        return [value + "x"] if value else ["x"]
    return []


class _Replace(ast.NodeTransformer):
    """Puts something else in the place of one node."""

    def __init__(self, target: ast.AST, by: ast.AST | None) -> None:
        self.target, self.by = target, by

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self.target:
            return self.by or ast.Pass()
        return super().generic_visit(node)
