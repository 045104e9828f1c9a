"""Values as Python source: what a program returns, what a test expects, and whether plain Python calls them equal."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

PRELUDE = """
from collections import Counter, OrderedDict, deque
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
"""


def source(value: Any) -> str:
    """An expression for ``value`` that a test can hold: only literals and constructors that the judge knows."""
    kind = type(value)
    if kind is float:
        return repr(value) if value - value == 0 else f"float('{value!r}')"
    if kind is complex:
        return f"complex({source(value.real)}, {source(value.imag)})"
    if kind in (list, tuple):
        items = "".join(source(item) + ", " for item in value)
        return f"[{items}]" if kind is list else f"({items})"
    if kind in (set, frozenset, deque):
        return f"{kind.__name__}({source(list(value))})"
    if kind is dict:
        return "{" + ", ".join(f"{source(k)}: {source(v)}" for k, v in value.items()) + "}"
    if kind in (Counter, OrderedDict):
        return f"{kind.__name__}({source(dict(value))})"
    if kind in (date, datetime, timedelta):
        return repr(value).removeprefix("datetime.")
    return repr(value)


# No datetime: in a tester that name is the module.
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 4000), 1 << 4000)
    | st.floats()
    | st.text(st.characters(), max_size=6)
    | st.binary(max_size=6)
    | st.complex_numbers()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.dates()
    | st.timedeltas()
    | st.just(...)
    | st.sampled_from([0, 0.0, -0.0, False, 1, 1.0, True, 1 << 256, (1 << 256) - 1, -(1 << 256), 2.0**256, "", b"", ()])
    | st.binary(max_size=3).map(bytearray)
    | st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.sampled_from((1, 2, -3)))
)
_keys = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False)
    | st.text(max_size=2)
    | st.binary(max_size=2)
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=4)
    dicts = st.dictionaries(_keys, inner, max_size=4)
    sets = st.sets(_keys, max_size=4)
    return lists | lists.map(tuple) | lists.map(deque) | dicts | dicts.map(OrderedDict) | sets | sets.map(frozenset)


data = st.recursive(_scalars, _containers, max_leaves=10) | st.dictionaries(_keys, st.integers(0, 9)).map(Counter)


def _near(value: Any, how: int) -> Any:
    """Another value, or the same, that is easily mistaken for ``value``."""
    match value:
        case bool():
            return [int(value), float(value), not value][how]
        case int():
            return [value + 1, value, -value][how]
        case float():
            return [int(value) if value - value == 0 else value, value * (1 + 2e-16), -value][how]
        case list() | tuple() | deque():
            return [tuple(value), list(value), list(value)[::-1]][how]
        case dict():
            return [dict(value), OrderedDict(list(value.items())[::-1]), {**value, 99: 1}][how]
        case set() | frozenset():
            return [frozenset(value), set(value), sorted(value, key=repr)][how]
        case str():
            return [value.encode("utf-8", "surrogatepass"), value + " ", value.upper()][how]
        case bytes() | bytearray():
            return [bytearray(value), bytes(value), value[::-1]][how]
        case Decimal():
            return [Fraction(value) if abs(value) < 10**9 else value, value + 1, -value][how]
        case Fraction():
            return [Fraction(int(value)), value + 1, -value][how]
    return value


_WRAPPED = {
    "plain": "def f(): return {}\n",
    "shared": "def f():\n    x = {}\n    return [x, x]\n",
    "subclass": "class S(type({0})): pass\ndef f(): return S({0})\n",
}
_FORMS = {
    "assert f() == {}": lambda a, b: a == b,
    "assert {} == f()": lambda a, b: a == b,
    "assert not f() != {}": lambda a, b: a == b,
    "assert f() != {}": lambda a, b: a != b,
    "x = f()\nassert x == {}": lambda a, b: a == b,
    "x = f()\nassert not x != {}": lambda a, b: a == b,
    "assert [f()] == [{}]": lambda a, b: a == b,
    "assert f() in ({},)": lambda a, b: a == b,
    "assert type(f()) == type({})": lambda a, b: type(a) is type(b),
}


def _pair(value: Any, other: Any, near: int, wrapped: str, form: str) -> tuple[str, tuple[str, ...], str, bool]:
    expected = value if near == 3 else other if near == 4 else _near(value, near)
    if wrapped == "shared":
        returned, expected = [value, value], [expected, expected]
    else:
        returned = value
    if wrapped == "subclass" and (
        type(value) not in (int, str, list, tuple, dict, set) or form.startswith("assert type")
    ):
        wrapped = "plain"
    code = PRELUDE + _WRAPPED[wrapped].format(source(value))
    # built anew on both sides, for NaN equals nothing but itself
    a, b = _rebuilt(returned), _rebuilt(expected)
    return code, (form.format(source(expected)),), "", bool(_FORMS[form](a, b))


def _rebuilt(value: Any) -> Any:
    space: dict[str, Any] = {}
    exec(PRELUDE, space)
    return eval(source(value), space)


plain = st.builds(
    _pair,
    data,
    data,
    st.integers(0, 4),
    st.sampled_from(["plain", "plain", "shared", "subclass"]),
    st.sampled_from([*_FORMS]),
)
