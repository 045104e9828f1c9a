"""unittest, pytest and doctest written as plain asserts."""

from __future__ import annotations

import ast
import copy
import doctest
from collections.abc import Callable, Mapping, Sequence

from plum_core.testing.filters.source import FUNCTIONS, is_literal, parse

Unary = Callable[[list[ast.expr]], str]
COMPARED = {
    **dict.fromkeys(("assertEqual", "assertEquals", "assertListEqual", "assertDictEqual", "assertTupleEqual"), "=="),
    **dict.fromkeys(("assertSetEqual", "assertSequenceEqual", "assertMultiLineEqual"), "=="),
    **{"assertNotEqual": "!=", "assertIs": "is", "assertIsNot": "is not", "assertIn": "in", "assertNotIn": "not in"},
    **{"assertGreater": ">", "assertGreaterEqual": ">=", "assertLess": "<", "assertLessEqual": "<="},
}
STATED = {
    "assertTrue": "{0}",
    "assertFalse": "not {0}",
    "assertIsNone": "{0} is None",
    "assertIsNotNone": "{0} is not None",
    "assertIsInstance": "isinstance({0}, {1})",
    "assertNotIsInstance": "not isinstance({0}, {1})",
    "assertCountEqual": "sorted({0}) == sorted({1})",
}
OF_THE_CASE = ("subTest", "fail", "skipTest")
RAISES = ("assertRaises", "assertRaisesRegex", "raises")


def plain(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """The statements with the calls of unittest and pytest as asserts; a ``self.x`` becomes a variable."""
    out: list[ast.stmt] = []
    for node in body:
        changed = _Plain().visit(copy.deepcopy(node))
        out += changed if isinstance(changed, list) else [changed]
    return out


class _Plain(ast.NodeTransformer):
    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        ours = isinstance(node.value, ast.Name) and node.value.id == "self"
        if ours and not node.attr.startswith("assert") and node.attr not in OF_THE_CASE:
            return ast.Name(f"self_{node.attr}", node.ctx)
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | list[ast.stmt]:
        node.value = self.visit(node.value)
        call = node.value
        if not isinstance(call, ast.Call) or _name(call.func) is None:
            return node
        name, args = _name(call.func), call.args
        if name in COMPARED and len(args) >= 2:
            return _assert(f"({ast.unparse(args[0])}) {COMPARED[name]} ({ast.unparse(args[1])})")
        if name in STATED and len(args) >= STATED[name].count("{"):
            return _assert(STATED[name].format(*(f"({ast.unparse(a)})" for a in args)))
        if name in ("assertAlmostEqual", "assertNotAlmostEqual") and len(args) >= 2:
            return _assert(("not " if "Not" in name else "") + _close(call))
        if name in RAISES and len(args) >= 2:
            tried = ast.Call(args[1], args[2:], call.keywords)
            return _raising(args[0], [ast.Expr(tried)])
        return node

    def visit_With(self, node: ast.With) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        manager = node.items[0].context_expr
        name = _name(manager.func) if isinstance(manager, ast.Call) else None
        if isinstance(manager, ast.Call) and name in RAISES and manager.args:
            return _raising(manager.args[0], node.body)
        return list(node.body) if name == "subTest" else node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """``x == pytest.approx(y)``."""
        self.generic_visit(node)
        sides = [node.left, *node.comparators]
        if len(sides) != 2 or not isinstance(node.ops[0], ast.Eq | ast.NotEq):
            return node
        for this, other in (sides, sides[::-1]):
            if isinstance(this, ast.Call) and _name(this.func) == "approx" and this.args:
                told = {k.arg: ast.unparse(k.value) for k in this.keywords if k.arg in ("rel", "abs")}
                rel, near = told.get("rel", "0.0" if "abs" in told else "1e-06"), told.get("abs", "1e-12")
                test = _near(ast.unparse(other), this.args[0], rel, near)
                return ast.parse(f"not ({test})" if isinstance(node.ops[0], ast.NotEq) else test, mode="eval").body
        return node


def _near(value: str, wanted: ast.expr, rel: str, near: str) -> str:
    """pytest.approx: within ``rel`` of what is wanted, or ``near``; of lists item by item."""

    def one(a: str, b: str) -> str:
        return f"abs({a} - {b}) <= max({rel} * abs({b}), {near})"

    if isinstance(wanted, ast.List | ast.Tuple):
        pairs = f"zip({value}, {ast.unparse(wanted)})"
        return f"len({value}) == {len(wanted.elts)} and all({one('a', 'b')} for a, b in {pairs})"
    return one(f"({value})", f"({ast.unparse(wanted)})")


def _close(call: ast.Call) -> str:
    """assertAlmostEqual: rounded to 7 places, or ``places``, or within ``delta``."""
    told = {k.arg: ast.unparse(k.value) for k in call.keywords}
    difference = f"({ast.unparse(call.args[0])}) - ({ast.unparse(call.args[1])})"
    if "delta" in told:
        return f"abs({difference}) <= {told['delta']}"
    places = told.get("places") or (ast.unparse(call.args[2]) if len(call.args) > 2 else "7")
    return f"round({difference}, {places}) == 0"


def _assert(text: str) -> ast.stmt:
    return ast.parse(f"assert {text}").body[0]


def _raising(kind: ast.expr, body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """What passes only where ``body`` raises ``kind``."""
    told = f"try:\n    pass\nexcept {ast.unparse(kind)}:\n    pass\nelse:\n    raise AssertionError"
    node = ast.parse(told).body[0]
    assert isinstance(node, ast.Try)
    node.body = list(body)
    return [node]


def _name(function: ast.expr) -> str | None:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else None


def is_test_class(node: ast.stmt) -> bool:
    """A unittest.TestCase, or a class of pytest's."""
    if not isinstance(node, ast.ClassDef):
        return False
    bases = {_name(base) for base in node.bases}
    return bool(bases & {"TestCase", "IsolatedAsyncioTestCase"}) or (
        node.name.startswith("Test")
        and any(isinstance(inner, FUNCTIONS) and inner.name.startswith("test") for inner in node.body)
    )


def is_test_function(node: ast.stmt) -> bool:
    """One of pytest's."""
    return isinstance(node, FUNCTIONS) and node.name.startswith("test")


def fixtures(body: Sequence[ast.stmt]) -> dict[str, list[ast.stmt]]:
    """What pytest's fixtures without arguments do, each ending in an assignment to its name."""
    found = {}
    for node in body:
        if isinstance(node, FUNCTIONS) and not node.args.args and node.body and _is_fixture(node):
            last = node.body[-1]
            value = last.value if isinstance(last, ast.Return | ast.Expr) else None
            value = value.value if isinstance(value, ast.Yield) else value
            if value is not None:
                assign = ast.parse(f"{node.name} = 0").body[0]
                assert isinstance(assign, ast.Assign)
                assign.value = value
                found[node.name] = [*node.body[:-1], assign]
    return found


def _is_fixture(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    marks = (mark.func if isinstance(mark, ast.Call) else mark for mark in node.decorator_list)
    return any(_name(mark) == "fixture" for mark in marks)


def bodies(node: ast.stmt, known: Mapping[str, list[ast.stmt]]) -> list[list[ast.stmt]]:
    """The straight-line bodies of a test class, what setUp does first, or of a test function. known: fixtures."""
    if isinstance(node, ast.ClassDef):
        methods = {inner.name: inner for inner in node.body if isinstance(inner, FUNCTIONS)}
        first = [s for name in ("setUpClass", "setUp", "setup_method") if name in methods for s in methods[name].body]
        return [[*first, *body] for name, m in methods.items() if name.startswith("test") for body in _cases(m, known)]
    return _cases(node, known) if isinstance(node, FUNCTIONS) else []


def _cases(
    function: ast.FunctionDef | ast.AsyncFunctionDef, known: Mapping[str, list[ast.stmt]]
) -> list[list[ast.stmt]]:
    """The body after its fixtures, once for each row of ``parametrize``; other arguments cannot be read."""
    asked = [a.arg for a in function.args.args if a.arg not in ("self", "cls")]
    first = [statement for name in asked if name in known for statement in known[name]]
    given = [name for name in asked if name not in known]
    if not given:
        return [[*first, *function.body]]
    for mark in function.decorator_list:
        if isinstance(mark, ast.Call) and _name(mark.func) == "parametrize" and len(mark.args) >= 2:
            names, rows = mark.args[:2]
            if is_literal(names) and isinstance(rows, ast.List | ast.Tuple):
                told = ast.literal_eval(names)
                listed = [n.strip() for n in told.split(",")] if isinstance(told, str) else list(told)
                if set(listed) == set(given):
                    target = ast.parse(f"{', '.join(listed)} = 0").body[0].targets[0]  # type: ignore[attr-defined]
                    return [[*first, ast.Assign([target], row), *function.body] for row in rows.elts]
    return []


def doctests(tree: ast.Module) -> list[list[ast.stmt]]:
    """The examples of each docstring as statements and asserts."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=True)
            if text and ">>>" in text:
                found.append(examples(text))
    return [body for body in found if body]


def examples(text: str) -> list[ast.stmt]:
    """``>>> f(2)`` and what it prints, as an assert; examples that cannot be read are left out."""
    try:
        read = doctest.DocTestParser().get_examples(text)
    except ValueError:
        return []
    out: list[ast.stmt] = []
    for example in read:
        tree = parse(example.source)
        if tree is None:
            continue
        want = example.want.strip()
        if len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr) and want and example.exc_msg is None:
            answer = parse(want)
            literal = answer is not None and len(answer.body) == 1 and isinstance(answer.body[0], ast.Expr)
            if literal and is_literal(answer.body[0].value):  # type: ignore[union-attr]
                out.append(_assert(f"({example.source.strip()}) == {want}"))
            else:
                out.append(_assert(f"repr({example.source.strip()}) == {want!r}"))
        elif example.exc_msg is not None:
            out += _raising(ast.Name(example.exc_msg.split(":")[0].split(".")[-1].strip() or "Exception"), tree.body)
        else:
            out += tree.body
    return out
