"""unittest's and pytest's own forms as plain statements, so that a test needs neither of them to run."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence

from plum_core.testing.answers.names import called, root

# unittest's methods of two arguments, as the comparison that they make
COMPARED: dict[str, ast.cmpop] = {
    "assertEqual": ast.Eq(), "assertEquals": ast.Eq(), "assertListEqual": ast.Eq(), "assertTupleEqual": ast.Eq(),
    "assertDictEqual": ast.Eq(), "assertSetEqual": ast.Eq(), "assertSequenceEqual": ast.Eq(),
    "assertMultiLineEqual": ast.Eq(), "assertNotEqual": ast.NotEq(), "assertIs": ast.Is(), "assertIsNot": ast.IsNot(),
    "assertIn": ast.In(), "assertNotIn": ast.NotIn(), "assertGreater": ast.Gt(), "assertGreaterEqual": ast.GtE(),
    "assertLess": ast.Lt(), "assertLessEqual": ast.LtE(),
}  # fmt: skip
NEAR = """
def _near(got, want, rel=1e-06, tol=1e-12):
    if isinstance(want, dict):
        return got.keys() == want.keys() and all(_near(got[k], want[k], rel, tol) for k in want)
    if isinstance(want, (list, tuple)):
        return len(got) == len(want) and all(_near(g, w, rel, tol) for g, w in zip(got, want))
    return got == want or abs(got - want) <= max(rel * abs(want), tol)
"""
BODIES = ("body", "orelse", "finalbody")


class Unsupported(Exception):
    """A form that has no plain equivalent here."""


def plain(body: Iterable[ast.stmt]) -> list[ast.stmt]:
    """``body`` with assertion methods, ``raises``, ``subTest`` and ``approx`` as plain statements.

    Raises Unsupported for an assertion method that is not known.
    """
    body = list(body)
    caught = {name for s in body for n in ast.walk(s) if isinstance(n, ast.With) for name in _caught(n)}
    return [new for statement in body for new in _plain(_Values(caught).visit(statement))]


def _caught(node: ast.With) -> list[str]:
    item = node.items[0]
    return [item.optional_vars.id] if _raises(item.context_expr) and isinstance(item.optional_vars, ast.Name) else []


class _Values(ast.NodeTransformer):
    """``caught.value`` and ``caught.exception`` as the exception itself; ``a == approx(b)`` as ``_near(a, b)``."""

    def __init__(self, caught: set[str]) -> None:
        self.caught = caught

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        held = isinstance(node.value, ast.Name) and node.value.id in self.caught
        return node.value if held and node.attr in ("value", "exception") else node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) == 1 and isinstance(node.ops[0], ast.Eq | ast.NotEq):
            sides = [node.left, node.comparators[0]]
            for got, want in (sides, sides[::-1]):
                if isinstance(want, ast.Call) and called(want) == "approx" and want.args:
                    near = _near(got, want.args[0], _tolerances(want))
                    return near if isinstance(node.ops[0], ast.Eq) else ast.UnaryOp(ast.Not(), near)
        return node


def _near(got: ast.expr, want: ast.expr, tolerances: dict[str, ast.expr]) -> ast.expr:
    """One comparison for numbers that stand there; for lists, tables and names a function that looks into them."""
    if any(isinstance(n, ast.List | ast.Tuple | ast.Dict | ast.Name | ast.Call) for n in ast.walk(want)):
        return _call("_near", got, want, **tolerances)
    part = ast.BinOp(tolerances.get("rel", ast.Constant(1e-06)), ast.Mult(), _call("abs", want))
    most = _call("max", part, tolerances.get("tol", ast.Constant(1e-12)))
    return ast.Compare(_call("abs", ast.BinOp(got, ast.Sub(), want)), [ast.LtE()], [most])


def _tolerances(approx: ast.Call) -> dict[str, ast.expr]:
    """pytest's rule: an absolute tolerance alone switches the relative one off."""
    given = dict(zip(("rel", "tol"), approx.args[1:], strict=False))
    given |= {{"abs": "tol"}.get(k.arg or "", k.arg or ""): k.value for k in approx.keywords}
    if set(given) - {"rel", "tol"}:
        raise Unsupported(f"approx with {sorted(set(given) - {'rel', 'tol'})}")
    return {"rel": ast.Constant(0), **given} if set(given) == {"tol"} else given


def _plain(statement: ast.stmt) -> list[ast.stmt]:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return _plain_call(statement, statement.value)
    if isinstance(statement, ast.With) and len(statement.items) == 1:
        item = statement.items[0]
        if _is_method(item.context_expr, "subTest"):
            return plain(statement.body)
        if _raises(item.context_expr):
            return [_expecting(item.context_expr, plain(statement.body), item.optional_vars)]
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        for name in BODIES:
            if getattr(statement, name, None):
                setattr(statement, name, plain(getattr(statement, name)))
        for handler in getattr(statement, "handlers", ()):
            handler.body = plain(handler.body)
    return [statement]


def _plain_call(statement: ast.Expr, call: ast.Call) -> list[ast.stmt]:
    name, arguments = called(call), call.args
    if _raises(call) and len(arguments) >= 2 and not name.endswith("Regex"):
        ran = ast.Call(arguments[1], arguments[2:], call.keywords)
        return [_expecting(ast.Call(call.func, arguments[:1], []), [ast.Expr(ran)], None)]
    if not isinstance(call.func, ast.Attribute):
        return [statement]
    if name == "fail" and root(call) in ("self", "pytest"):
        return [failure("the test said so")]
    if name in COMPARED and len(arguments) >= 2:
        return [ast.Assert(ast.Compare(arguments[0], [COMPARED[name]], [arguments[1]]))]
    if name in METHODS and len(arguments) >= 1:
        return METHODS[name](call)
    if name.startswith("assert") and root(call) == "self":
        raise Unsupported(name)
    return [statement]


def _asserted(
    make: Callable[[Sequence[ast.expr]], ast.expr], least: int = 1, before: Sequence[ast.stmt] = ()
) -> Callable[[ast.Call], list[ast.stmt]]:
    def statements(call: ast.Call) -> list[ast.stmt]:
        if len(call.args) < least:
            raise Unsupported(called(call))
        return [*before, ast.Assert(make(call.args))]

    return statements


def _almost(call: ast.Call) -> list[ast.stmt]:
    """unittest's rule: within ``delta``, or zero once the difference is rounded to ``places``."""
    options = dict(zip(("places", "msg", "delta"), call.args[2:], strict=False))
    options |= {k.arg or "": k.value for k in call.keywords}
    if len(call.args) < 2:
        raise Unsupported("assertAlmostEqual")
    gap: ast.expr = ast.BinOp(call.args[0], ast.Sub(), call.args[1])
    if "delta" in options:
        test: ast.expr = ast.Compare(_call("abs", gap), [ast.LtE()], [options["delta"]])
    else:
        rounded = _call("round", gap, options.get("places", ast.Constant(7)))
        test = ast.Compare(rounded, [ast.Eq()], [ast.Constant(0)])
    return [ast.Assert(_not(test) if called(call).startswith("assertNot") else test)]


def _not(node: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), node)


def _is_none(node: ast.expr, op: ast.cmpop) -> ast.expr:
    return ast.Compare(node, [op], [ast.Constant(None)])


def _found(arguments: Sequence[ast.expr]) -> ast.expr:
    return ast.Call(ast.Attribute(_name("re"), "search", ast.Load()), [arguments[1], arguments[0]], [])


RE = ast.Import([ast.alias("re")])
METHODS: dict[str, Callable[[ast.Call], list[ast.stmt]]] = {
    "assertTrue": _asserted(lambda a: a[0]),
    "assertFalse": _asserted(lambda a: _not(a[0])),
    "assertIsNone": _asserted(lambda a: _is_none(a[0], ast.Is())),
    "assertIsNotNone": _asserted(lambda a: _is_none(a[0], ast.IsNot())),
    "assertIsInstance": _asserted(lambda a: _call("isinstance", a[0], a[1]), 2),
    "assertNotIsInstance": _asserted(lambda a: _not(_call("isinstance", a[0], a[1])), 2),
    "assertRegex": _asserted(_found, 2, [RE]),
    "assertNotRegex": _asserted(lambda a: _not(_found(a)), 2, [RE]),
    "assertAlmostEqual": _almost,
    "assertNotAlmostEqual": _almost,
}


def _is_method(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and called(node) == name


def _raises(node: ast.expr) -> bool:
    """``pytest.raises(E, ...)``, ``raises(E)``, ``self.assertRaises(E, ...)``, ``self.assertRaisesRegex(E, ...)``."""
    return (
        isinstance(node, ast.Call)
        and called(node) in ("raises", "assertRaises", "assertRaisesRegex")
        and root(node.func) in ("self", "pytest", "raises", "cls", "tc", "case")
        and bool(node.args)
    )


def _expecting(raises: ast.expr, body: list[ast.stmt], target: ast.expr | None) -> ast.stmt:
    """``try: body`` with an ``else`` that fails, for a call of ``raises``."""
    assert isinstance(raises, ast.Call)
    pattern = next((k.value for k in raises.keywords if k.arg == "match"), None)
    if called(raises) == "assertRaisesRegex" and len(raises.args) > 1:
        pattern = raises.args[1]
    handled: list[ast.stmt] = []
    if pattern is not None:
        handled += [RE, ast.Assert(_found([_call("str", _name("_error")), pattern]))]
    if isinstance(target, ast.Name):
        handled.append(ast.Assign([_stored(target.id)], _name("_error")))
    handler = ast.ExceptHandler(raises.args[0], "_error" if handled else None, handled or [ast.Pass()])
    return ast.Try(body, [handler], [failure("nothing was raised")], [])


def failure(words: str) -> ast.stmt:
    return ast.Raise(_call("AssertionError", ast.Constant(words)))


def _name(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def _stored(name: str) -> ast.Name:
    return ast.Name(name, ast.Store())


def _call(name: str, *arguments: ast.expr, **keywords: ast.expr) -> ast.Call:
    return ast.Call(_name(name), list(arguments), [ast.keyword(k, v) for k, v in keywords.items()])
