"""Reading a reference and its tests as syntax trees; nothing here runs them."""

from __future__ import annotations

import ast

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)


def parse(code: str) -> ast.Module | None:
    """The tree; None for what is no Python, or too deep to read."""
    try:
        tree = ast.parse(code)
        ast.unparse(tree)  # what cannot be written again cannot be changed either
    except UNREADABLE:
        return None
    return tree


def definition(tree: ast.Module, name: str) -> Definition | None:
    """The last top-level function or class of that name."""
    found = [node for node in tree.body if isinstance(node, DEFINITIONS) and node.name == name]
    return found[-1] if found else None


def essence(test: ast.Module, name: str, *, is_class: bool) -> frozenset[str]:
    """What makes a test another test: the calls of the function ``name`` with their arguments; all that is done where
    these are no literals, or a class is tested. In a form that spaces and quotes do not change."""
    calls = [node for node in ast.walk(test) if isinstance(node, ast.Call) and mentions(node.func, name)]
    given = [value for call in calls for value in (*call.args, *(k.value for k in call.keywords))]
    if is_class or not given or not all(map(is_literal, given)):
        return frozenset([ast.dump(test)])
    return frozenset(map(ast.dump, calls))


def is_literal(node: ast.AST) -> bool:
    """Whether it is a value that is written down."""
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    return True


def mentions(tree: ast.AST, name: str) -> bool:
    """Whether ``name`` is read anywhere in it."""
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(tree))


def called_functions(found: Definition) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The function itself; of a class its methods, those with double underscores left out unless it has no others."""
    if isinstance(found, FUNCTIONS):
        return [found]
    methods = [node for node in found.body if isinstance(node, FUNCTIONS)]
    return [node for node in methods if not node.name.startswith("__")] or methods
