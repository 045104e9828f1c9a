"""The judge's own evaluator: the part of a test around its calls, compiled to closures over the calls' answers.

``assert abs(f(2) - 1.5) < 1e-6`` becomes: answer 0, minus 1.5, abs, less than. Only plain data and a list of
harmless functions occur, each with a bound; any other form is ``Unsupported`` and the test goes to a tester process.
"""

from __future__ import annotations

import ast
import math
import operator
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from plum_core.execution.inside import bounded
from plum_core.execution.inside.bounded import Excessive

Answers = Sequence[Callable[[], Any]]
Closure = Callable[[Answers], Any]
KEPT_WEIGHT = 64  # items of a folded constant that a plan keeps: plans are kept by the hundred


class Unsupported(ValueError):
    """A form of test that the judge does not evaluate itself."""


class Hole(ast.expr):
    """Stands in a test's expression for the answer to one call."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index


BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: bounded.add,
    ast.Sub: operator.sub,
    ast.Mult: bounded.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: bounded.floordiv,
    ast.Mod: bounded.mod,
    ast.Pow: bounded.power,
    ast.LShift: bounded.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor,
}
UNARY: dict[type, Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
}
COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
# Functions that consume an iterable: a lazy answer is spelt out by the child for these.
CONSUMERS: dict[str, Callable[..., Any]] = {
    "all": all,
    "any": any,
    "dict": bounded.hashed(dict),
    "frozenset": bounded.hashed(frozenset),
    "list": list,
    "max": max,
    "min": min,
    "set": bounded.hashed(set),
    "sorted": sorted,
    "sum": bounded.bounded_sum,
    "tuple": tuple,
}
# Constructors of the standard library whose values travel: an expected value may be written with them.
LIBRARY: dict[str, Callable[..., Any]] = {
    kind.__name__: kind for kind in (Counter, Decimal, Fraction, OrderedDict, date, datetime, deque, timedelta)
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **CONSUMERS,
    **LIBRARY,
    "Counter": bounded.hashed(Counter),
    "OrderedDict": bounded.hashed(OrderedDict),
    "Decimal": bounded.bounded_decimal,
    "Fraction": bounded.bounded_fraction,
    "abs": abs,
    "bool": bool,
    "complex": complex,
    "divmod": divmod,
    "float": float,
    "int": int,
    "isinstance": isinstance,
    "len": len,
    "range": bounded.bounded_range,
    "round": bounded.bounded_round,
    "str": str,
    "type": lambda value: type(value),
}
MATH = {"isclose", "isnan", "isinf", "isfinite", "sqrt", "floor", "ceil", "fabs", "pi", "e", "inf", "nan", "tau"}
TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range)
}


def constant(node: ast.expr) -> Any:
    """The value of a constant expression without sets. Raises Unsupported, or TypeError (an unhashable key)."""
    kind = type(node)
    if kind is ast.Constant:
        return node.value  # type: ignore[attr-defined]
    if isinstance(node, ast.List):
        return [constant(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple([constant(item) for item in node.elts])
    if isinstance(node, ast.Dict):
        return {constant(k): constant(v) for k, v in zip(node.keys, node.values, strict=True)}  # type: ignore[arg-type]
    if isinstance(node, ast.UnaryOp) and type(node.op) in (ast.USub, ast.UAdd):
        value = constant(node.operand)
        if type(value) in (int, float, complex):
            return -value if type(node.op) is ast.USub else value
    raise Unsupported("not a constant")


def compile_test(node: ast.expr) -> Closure:
    """A closure that evaluates ``node`` over the answers of its holes. Raises Unsupported."""
    if isinstance(node, Hole):
        return _hole(node)
    try:
        value = _spelt_out(node) if isinstance(node, ast.Set) else constant(node)
    except (Unsupported, TypeError):
        compiler = _COMPILERS.get(type(node))
        if compiler is None:
            raise Unsupported(f"{type(node).__name__} in a test") from None
        return _folded(node, compiler(node))
    return lambda answers: value


def _spelt_out(node: ast.Set) -> Any:
    """The same constants by the compiler: a set then iterates in the order that it has in a program."""
    for item in node.elts:
        constant(item)
    expression = ast.fix_missing_locations(ast.Expression(node))
    return eval(compile(expression, "<constant>", "eval"), {"__builtins__": {}})


def _folded(node: ast.expr, closure: Closure) -> Closure:
    """A closure without holes is evaluated now. What exceeds the bounds is left to a tester and its limits."""
    if any(isinstance(part, Hole) for part in ast.walk(node)):
        return closure
    try:
        value = bounded.checked(closure([]))
    except Excessive as problem:
        raise Unsupported(str(problem)) from None
    except Exception:
        return closure  # it is the test that raises, each time it is evaluated
    return closure if bounded.weight(value) > KEPT_WEIGHT else lambda answers: value


def _hole(node: Hole) -> Closure:
    index = node.index
    return lambda answers: answers[index]()


def _compare(node: ast.Compare) -> Closure:
    first = compile_test(node.left)
    rest = [(COMPARE[type(op)], compile_test(item)) for op, item in zip(node.ops, node.comparators, strict=True)]
    if len(rest) == 1:
        apply, second = rest[0]
        return lambda answers: apply(first(answers), second(answers))

    def chained(answers: Answers) -> Any:
        left = first(answers)
        result: Any = True
        for apply, closure in rest:
            right = closure(answers)
            result = apply(left, right)
            if not result:
                return result
            left = right
        return result

    return chained


def _boolean(node: ast.BoolOp) -> Closure:
    parts = [compile_test(value) for value in node.values]
    stops_at = isinstance(node.op, ast.Or)

    def evaluate(answers: Answers) -> Any:
        value: Any = None
        for part in parts:
            value = part(answers)
            if bool(value) is stops_at:
                return value
        return value

    return evaluate


def _unary(node: ast.UnaryOp) -> Closure:
    apply, operand = UNARY[type(node.op)], compile_test(node.operand)
    return lambda answers: apply(operand(answers))


def _binary(node: ast.BinOp) -> Closure:
    if type(node.op) not in BINARY:
        raise Unsupported("an operator that the judge does not apply")
    apply, left, right = BINARY[type(node.op)], compile_test(node.left), compile_test(node.right)
    return lambda answers: apply(left(answers), right(answers))


def _sequence(node: ast.List | ast.Tuple | ast.Set) -> Closure:
    kinds: dict[type, Callable[..., Any]] = {ast.List: list, ast.Tuple: tuple, ast.Set: bounded.hashed(set)}
    kind = kinds[type(node)]
    parts = [compile_test(item) for item in node.elts]
    return lambda answers: bounded.checked(kind([part(answers) for part in parts]))


def _dict(node: ast.Dict) -> Closure:
    if None in node.keys:
        raise Unsupported("** in a dictionary")
    keys = [compile_test(key) for key in node.keys if key is not None]
    values = [compile_test(value) for value in node.values]
    return lambda answers: bounded.checked({k(answers): v(answers) for k, v in zip(keys, values, strict=True)})


def _name(node: ast.Name) -> Closure:
    if node.id not in TYPES:
        raise Unsupported(f"the name {node.id}")
    kind = TYPES[node.id]
    return lambda answers: kind


def _attribute(node: ast.Attribute) -> Closure:
    if not (isinstance(node.value, ast.Name) and node.value.id == "math" and node.attr in MATH):
        raise Unsupported("an attribute")
    value = getattr(math, node.attr)
    return lambda answers: value


def _subscript(node: ast.Subscript) -> Closure:
    base = compile_test(node.value)
    if isinstance(node.slice, ast.Slice):
        bounds = [
            compile_test(part) if part is not None else _none
            for part in (node.slice.lower, node.slice.upper, node.slice.step)
        ]
        return lambda answers: base(answers)[slice(*(bound(answers) for bound in bounds))]
    index = compile_test(node.slice)
    return lambda answers: base(answers)[index(answers)]


def _none(answers: Answers) -> None:
    return None


def _call(node: ast.Call) -> Closure:
    if isinstance(node.func, ast.Attribute):
        function = _attribute(node.func)([])
    elif isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
        function = FUNCTIONS[node.func.id]
    else:
        raise Unsupported("a function that the judge does not call")
    if not callable(function) or any(isinstance(arg, ast.Starred) for arg in node.args):
        raise Unsupported("a call of this form")
    args = [compile_test(arg) for arg in node.args]
    kwargs = {keyword.arg: compile_test(keyword.value) for keyword in node.keywords if keyword.arg is not None}
    if len(kwargs) != len(node.keywords) or "key" in kwargs:
        raise Unsupported("** or a key function in a call")
    return lambda answers: function(
        *(arg(answers) for arg in args), **{name: arg(answers) for name, arg in kwargs.items()}
    )


_COMPILERS: Mapping[type, Callable[[Any], Closure]] = {
    Hole: _hole,
    ast.Compare: _compare,
    ast.BoolOp: _boolean,
    ast.UnaryOp: _unary,
    ast.BinOp: _binary,
    ast.List: _sequence,
    ast.Tuple: _sequence,
    ast.Set: _sequence,
    ast.Dict: _dict,
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Subscript: _subscript,
    ast.Call: _call,
}
