"""A program's syntax tree without what does not matter: docstrings, comments, layout and the names of locals.

Parsed, never executed. Names are replaced within each outermost function alone: module names, attributes, keyword
arguments, and names that are declared ``global`` or ``nonlocal`` stay, since others can see them.
"""

from __future__ import annotations

import ast


def normal_dump(tree: ast.Module) -> str:
    """``ast.dump`` of ``tree`` after the changes above. The tree is changed in place.

    Equal dumps: equal programs up to locals' names (parameters keep theirs: callers may pass them by keyword).
    A function that could look its names up at run time (``locals``, ``eval``, ``exec``, ``vars``, ``dir``) keeps them,
    as does one that holds a class (its names are attributes), an import, or a ``match``.
    Raises RecursionError for trees too deep to walk.
    """
    _drop_docstrings(tree)
    for function in _outermost(tree):
        _rename(function)
    return ast.dump(tree)


_LOOKUPS = {"locals", "eval", "exec", "vars", "dir"}
_KEEP = (ast.ClassDef, ast.Import, ast.ImportFrom, ast.Match, ast.Global, ast.Nonlocal)
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _drop_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            value = first.value if isinstance(first, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                node.body = node.body[1:] or [ast.Pass()]


def _outermost(node: ast.AST) -> list[_Function]:
    found: list[_Function] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(child)
        else:
            found += _outermost(child)
    return found


def _rename(function: _Function) -> None:
    """Names stored in ``function``, in order of first appearance, become ``%0``, ``%1`` ... (no identifier is)."""
    nodes = [node for statement in function.body for node in _preorder(statement)]
    if any(isinstance(n, _KEEP) or (isinstance(n, ast.Name) and n.id in _LOOKUPS) for n in nodes):
        return
    fixed = {n.arg for n in ast.walk(function) if isinstance(n, ast.arg)}
    fixed |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
    fixed |= {n.name for n in nodes if isinstance(n, ast.ExceptHandler) and n.name}
    # A name stored only in an inner scope may be a global in the outer one: renamed there it would hide a difference.
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp)
    for scope in nodes:
        if isinstance(scope, (*inner, ast.GeneratorExp)):
            fixed |= {n.id for n in ast.walk(scope) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    names: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id not in fixed:
            names.setdefault(node.id, f"%{len(names)}")
    for node in nodes:
        if isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)


def _preorder(node: ast.AST) -> list[ast.AST]:
    out = [node]
    for child in ast.iter_child_nodes(node):
        out += _preorder(child)
    return out
