"""What a statement binds, reads and asserts."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator

BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__"}
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
IMPORTS = (ast.Import, ast.ImportFrom)
FIXED = (*DEFINITIONS, *IMPORTS)  # what is there whatever ran before


def reads(node: ast.AST) -> set[str]:
    """Every name that is read or deleted anywhere in ``node``, nested functions included; more rather than less."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Store)} | {
        n.target.id for n in ast.walk(node) if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)
    }


def binds(node: ast.AST) -> set[str]:
    """Names that running ``node`` binds in its own scope."""
    found: set[str] = set()
    waiting: list[ast.AST] = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, DEFINITIONS):
            found.add(one.name)
            continue
        if isinstance(one, ast.Lambda):
            continue
        if isinstance(one, IMPORTS):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in one.names}
        elif isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
            found.add(one.id)
        elif isinstance(one, ast.ExceptHandler) and one.name:
            found.add(one.name)
        waiting.extend(ast.iter_child_nodes(one))
    return found


def outer(node: ast.AST) -> set[str]:
    """Names that ``node`` takes from where it stands: a function's parameters and own variables are not among them."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        body = node.body if isinstance(node.body, list) else [node.body]
        shared = _declared(body)
        own = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}.union(*map(binds, body)) - shared
        rest = [child for child in ast.iter_child_nodes(node) if child not in body]
        return (_union(body) - own) | _union(rest) | shared
    if isinstance(node, ast.ClassDef):
        own = set[str]().union(*map(binds, node.body))
        found = _union([*node.bases, *node.keywords, *node.decorator_list])
        return found.union(*(outer(s) - (set() if isinstance(s, DEFINITIONS) else own) for s in node.body))
    if isinstance(node, ast.Name):
        return set() if isinstance(node.ctx, ast.Store) else {node.id}
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        return {node.target.id} | outer(node.value)
    return _union(ast.iter_child_nodes(node))


def _union(nodes: Iterable[ast.AST]) -> set[str]:
    return set[str]().union(*map(outer, nodes))


def _declared(body: Iterable[ast.AST]) -> set[str]:
    return {name for s in body for n in ast.walk(s) if isinstance(n, ast.Global) for name in n.names}


def free(statements: Iterable[ast.stmt]) -> set[str]:
    """Names that a run of ``statements`` would not find. A function may use what is defined after it."""
    bound, missing = set[str](), set[str]()
    later = set[str]()
    for statement in statements:
        wanted = outer(statement) - binds(statement)
        if isinstance(statement, FUNCTIONS):
            later |= wanted
        else:
            missing |= wanted - bound
        bound |= binds(statement)
    return (missing | (later - bound)) - BUILTINS


def is_check(node: ast.AST) -> bool:
    """An assertion in one of its forms, by itself."""
    if isinstance(node, ast.Assert):
        return True
    if isinstance(node, ast.Raise):
        kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return isinstance(kind, ast.Name) and kind.id == "AssertionError"
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and called(node.value).startswith("assert")


def has_check(node: ast.AST) -> bool:
    return any(is_check(n) for n in ast.walk(node))


def called(call: ast.Call) -> str:
    """The last name of what is called: ``c`` of ``a.b.c(...)``."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def root(node: ast.AST) -> str:
    """``a`` of ``a.b[0].c(...)``."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def conjuncts(node: ast.expr) -> Iterator[ast.expr]:
    """``a`` and ``b`` of ``a and b`` and of ``all([a, b])``."""
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        for value in node.values:
            yield from conjuncts(value)
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and (node.func.id, len(node.args)) == ("all", 1)
        and isinstance(node.args[0], ast.List | ast.Tuple)
        and node.args[0].elts
    ):
        for value in node.args[0].elts:
            yield from conjuncts(value)
    else:
        yield node
