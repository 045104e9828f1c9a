"""Test functions, parametrised ones and test classes as scripts: statements to be run in order, assertions among them.

What cannot be laid out straight keeps its own form and becomes a script of one call: ``test_x()``, or unittest's
``debug()`` of one method, which lets its failure out as an exception.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from plum_core.testing.answers.names import (
    FUNCTIONS,
    Definition,
    called,
    has_check,
    root,
)
from plum_core.testing.answers.parameters import (
    Body,
    decorated_by,
    elements,
    parameters,
    starts,
    straight,
    without_docstring,
)
from plum_core.testing.answers.rewrites import Unsupported, plain

MOST_TURNS = 128  # of a loop, those of the loops around it together
STEPS = ("setUpClass", "setup_class", "setUp", "setup_method", "asyncSetUp")


@dataclass(frozen=True, slots=True)
class Script:
    """Statements in order. ``whole``: one test, whose last statement is a call that fails by raising."""

    body: Body
    whole: bool = False


def is_test(node: ast.stmt) -> bool:
    """A test function or test class, which is no part of a reference."""
    if isinstance(node, ast.ClassDef):
        return is_test_case(node) or (
            node.name.startswith("Test")
            and any(isinstance(m, FUNCTIONS) and m.name.startswith("test") for m in node.body)
        )
    if not isinstance(node, FUNCTIONS):
        return False
    if node.name.startswith("test") and (has_check(node) or _expects(node) or _marks(node) or not parameters(node)):
        return True
    named = any(word in node.name.lower() for word in ("test", "check", "verify"))
    return named and any(has_check(s) for s in node.body) and len(parameters(node)) <= 1


def _expects(node: ast.AST) -> bool:
    """An assertion that is a call of unittest's or pytest's."""
    names = (called(n) for n in ast.walk(node) if isinstance(n, ast.Call))
    return any(name.startswith("assert") or name == "raises" for name in names)


def is_test_case(node: ast.ClassDef) -> bool:
    return any(name.endswith("TestCase") for name in (getattr(b, "attr", getattr(b, "id", "")) for b in node.bases))


def scripts_of(node: Definition, module: Sequence[ast.stmt], calls: Sequence[ast.Call]) -> Iterator[Script]:
    """The scripts of one test function or test class.

    module: the answer's statements, for fixtures and lists of rows. calls: of ``node`` at the top level, which give
    a ``check(candidate)`` its argument. What is skipped, or needs a fixture that is not here, gives none.
    """
    node = copy.deepcopy(node)
    if isinstance(node, ast.ClassDef):
        yield from _of_class(node, module)
    elif not _skipped(node):
        if calls and all(isinstance(a, ast.Name) for a in calls[0].args):
            names = {p: a.id for p, a in zip(parameters(node), calls[0].args, strict=False) if isinstance(a, ast.Name)}
            node.body = [_Renamed(names).visit(s) for s in node.body]
        for before in starts(node, module, calls):
            yield from _of_function(node, before)


def _of_function(node: ast.FunctionDef | ast.AsyncFunctionDef, before: Body) -> Iterator[Script]:
    if isinstance(node, ast.FunctionDef) and straight(node.body):
        try:
            yield Script(unrolled([*before, *plain(without_docstring(node.body))]))
            return
        except Unsupported:
            pass
    bare = copy.deepcopy(node)
    bare.decorator_list = []
    call = ast.Call(_read(node.name), [_read(name) for name in parameters(node)], [])
    if isinstance(node, ast.AsyncFunctionDef):
        run = ast.Call(ast.Attribute(_read("asyncio"), "run", ast.Load()), [call], [])
        yield Script([*before, ast.Import([ast.alias("asyncio")]), bare, ast.Expr(run)], whole=True)
    else:
        yield Script([*before, bare, ast.Expr(call)], whole=True)


def _of_class(node: ast.ClassDef, module: Sequence[ast.stmt]) -> Iterator[Script]:
    methods = {m.name: m for m in node.body if isinstance(m, FUNCTIONS)}
    steps = [methods[name] for name in STEPS if name in methods]
    fields = [copy.deepcopy(s) for s in node.body if isinstance(s, ast.Assign | ast.AnnAssign)]
    own = {n.id for s in fields for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for name, method in methods.items():
        if not name.startswith("test") or _skipped(method) or _skipped(node):
            continue
        parts = [*steps, method]
        helpers = any(
            isinstance(n, ast.Attribute) and n.attr in methods and getattr(n.value, "id", "") in ("self", "cls")
            for part in parts for n in ast.walk(part)
        )  # fmt: skip
        laid_out = all(isinstance(p, ast.FunctionDef) and straight(p.body) for p in parts) and not helpers
        for before in starts(method, module, ()) if laid_out else ():
            body = [s for part in parts for s in without_docstring(part.body)]
            flat = _Fields(own | {"self", "cls"})
            try:
                body = plain(body)
                yield Script(unrolled([flat.visit(copy.deepcopy(s)) for s in [*fields, *before, *body]]))
            except Unsupported:
                laid_out = False
        if not laid_out and is_test_case(node):
            debug = ast.Attribute(ast.Call(_read(node.name), [ast.Constant(name)], []), "debug", ast.Load())
            yield Script([node, ast.Expr(ast.Call(debug, [], []))], whole=True)


class _Renamed(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


class _Fields(ast.NodeTransformer):
    """``self.x`` as the plain variable ``self_x``, and a class's own fields as the same."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "self_self", "self_cls"):
            return ast.Name(f"self_{node.attr}", node.ctx)
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self.names - {"self", "cls"}:
            return ast.Name(f"self_{node.id}", node.ctx)
        return node


def unrolled(body: Iterable[ast.stmt], room: int = MOST_TURNS) -> Body:
    """A loop over a list that is written out, with assertions in it, becomes its turns, ``room`` of them at most."""
    script: Body = []
    for statement in body:
        if not (isinstance(statement, ast.For) and has_check(statement) and not statement.orelse):
            script.append(statement)
            continue
        values = elements(statement.iter, script)
        jumps = any(isinstance(n, ast.Break | ast.Continue) for n in ast.walk(statement))
        if values is None or jumps or len(values) > room:
            script.append(statement)
            continue
        for value in values:
            script.append(ast.Assign([copy.deepcopy(statement.target)], copy.deepcopy(value)))
            script += unrolled(copy.deepcopy(statement.body), room // len(values))
    return script


def _marks(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(root(d) == "pytest" for d in node.decorator_list)


def _skipped(node: Definition) -> bool:
    """Not meant to run, or decorated with something that is not understood here."""
    for decorator in node.decorator_list:
        name = decorated_by(decorator)
        if name.startswith(("skip", "xfail", "expectedFailure")):
            return True
        if name != "parametrize" and not (root(decorator) == "pytest" and "mark" in ast.dump(decorator)):
            return True
    return False


def _read(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())
