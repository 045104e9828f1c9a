"""What a test function is called with: rows of ``parametrize``, fixtures, arguments of a call; lists written out."""

from __future__ import annotations

import ast
import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence

from plum_core.testing.answers.names import DEFINITIONS, FUNCTIONS, called

Body = list[ast.stmt]
MOST_ROWS = 64  # of a parametrised test
UNLIKE_SCRIPTS = (ast.Return, ast.Yield, ast.YieldFrom, ast.Global, ast.Nonlocal, ast.Await)


def is_fixture(node: ast.stmt) -> bool:
    return isinstance(node, FUNCTIONS) and any(decorated_by(d) == "fixture" for d in node.decorator_list)


def starts(
    node: ast.FunctionDef | ast.AsyncFunctionDef, module: Sequence[ast.stmt], calls: Sequence[ast.Call]
) -> Iterator[Body]:
    """What binds the parameters: one script a row of values; none where nothing does."""
    rows = [_rows(d, module) for d in node.decorator_list if decorated_by(d) == "parametrize"]
    given = [calls[0].args[: len(parameters(node))]] if calls and not rows else []
    for row in itertools.islice(itertools.product(*rows), MOST_ROWS):
        bound: Body = [ast.Assign([copy.deepcopy(target)], copy.deepcopy(value)) for target, value in row]
        bound += [
            ast.Assign([ast.Name(name, ast.Store())], value)
            for values in given
            for name, value in zip(parameters(node), values, strict=False)
        ]
        have = {n.id for s in bound for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        wanted = [name for name in parameters(node) if name not in have]
        fixed = [_fixture(name, module, 0) for name in wanted]
        if all(f is not None for f in fixed):
            yield [s for f in fixed for s in f or ()] + bound


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Those without a default, ``self`` left out."""
    a = node.args
    plain_ones = [*a.posonlyargs, *a.args]
    wanted = plain_ones[: len(plain_ones) - len(a.defaults)]
    keywords = [k for k, default in zip(a.kwonlyargs, a.kw_defaults, strict=True) if default is None]
    return [p.arg for p in [*wanted, *keywords] if p.arg not in ("self", "cls")]


def _rows(decorator: ast.expr, module: Sequence[ast.stmt]) -> list[tuple[ast.expr, ast.expr]]:
    """(target, value) of each row of ``parametrize``; empty where they are no list in the answer."""
    if not isinstance(decorator, ast.Call):
        return []
    arguments = [*decorator.args, *(k.value for k in decorator.keywords if k.arg in ("argnames", "argvalues"))]
    names = _names(arguments[0]) if len(arguments) >= 2 else []
    values = elements(arguments[1], module) if names else None
    found: list[tuple[ast.expr, ast.expr]] = []
    for value in values or ():
        if isinstance(value, ast.Call) and called(value) == "param":
            value = value.args[0] if len(names) == 1 and value.args else ast.Tuple(list(value.args), ast.Load())
        stored: list[ast.expr] = [ast.Name(name, ast.Store()) for name in names]
        found.append((stored[0] if len(stored) == 1 else ast.Tuple(stored, ast.Store()), value))
    return found


def _names(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        found = [name.strip() for name in node.value.split(",") if name.strip()]
    elif isinstance(node, ast.List | ast.Tuple):
        found = [e.value for e in node.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)]
    else:
        found = []
    return found if all(name.isidentifier() for name in found) else []


def elements(node: ast.expr, statements: Iterable[ast.stmt]) -> list[ast.expr] | None:
    """Of a list or tuple, or of a name that is bound to one, once; None where it is no such thing."""
    if isinstance(node, ast.Name):
        bound = [
            s for s in statements for n in ast.walk(s)
            if isinstance(n, ast.Name) and n.id == node.id and isinstance(n.ctx, ast.Store)
        ]  # fmt: skip
        if len(bound) != 1 or not isinstance(bound[0], ast.Assign) or len(bound[0].targets) != 1:
            return None
        node = bound[0].value
    if isinstance(node, ast.List | ast.Tuple) and not any(isinstance(e, ast.Starred) for e in node.elts):
        return node.elts
    if isinstance(node, ast.Call) and not node.keywords and called(node) in ("enumerate", "zip", "items"):
        return _drawn_together(node, list(statements))
    return None


def _drawn_together(node: ast.Call, statements: Sequence[ast.stmt]) -> list[ast.expr] | None:
    """Of ``enumerate(list)``, ``zip(list, list)`` and ``{...}.items()``."""
    if isinstance(node.func, ast.Attribute):
        table = node.func.value
        if called(node) != "items" or not isinstance(table, ast.Dict) or None in table.keys:
            return None
        return [ast.Tuple([k, v], ast.Load()) for k, v in zip(table.keys, table.values, strict=True) if k is not None]
    columns = [elements(argument, statements) for argument in node.args]
    if called(node) == "enumerate" and len(columns) == 1 and columns[0] is not None:
        return [ast.Tuple([ast.Constant(n), e], ast.Load()) for n, e in enumerate(columns[0])]
    if called(node) == "zip" and columns and all(c is not None for c in columns):
        return [ast.Tuple(list(row), ast.Load()) for row in zip(*(c or [] for c in columns), strict=False)]
    return None


def _fixture(name: str, module: Sequence[ast.stmt], depth: int) -> Body | None:
    """Statements that bind ``name`` as the fixture of that name would; None where there is no simple one."""
    found = [s for s in module if is_fixture(s) and getattr(s, "name", "") == name]
    if not found or depth > 5:
        return None
    node = copy.deepcopy(found[-1])
    assert isinstance(node, FUNCTIONS)
    *body, last = without_docstring(node.body) or [ast.Pass()]
    if isinstance(last, ast.Expr) and isinstance(last.value, ast.Yield):
        value = last.value.value
    else:
        value = last.value if isinstance(last, ast.Return) else None
    if value is None or not straight(body):
        return None
    before = [_fixture(other, module, depth + 1) for other in parameters(node)]
    if any(b is None for b in before):
        return None
    return [s for b in before for s in b or ()] + body + [ast.Assign([ast.Name(name, ast.Store())], value)]


def straight(body: Sequence[ast.stmt]) -> bool:
    """Whether it can run outside its function. What nested functions return is their own."""
    waiting: list[ast.AST] = list(body)
    while waiting:
        one = waiting.pop()
        if isinstance(one, UNLIKE_SCRIPTS):
            return False
        if not isinstance(one, (*DEFINITIONS, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(one))
    return True


def without_docstring(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return list(body[1:] if text else body)


def decorated_by(node: ast.expr) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
