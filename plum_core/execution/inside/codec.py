"""Python values as bounded, tagged JSON: what a child returns, and how the judge reads it.

None, booleans, integers up to 256 bits, floats and strings stand for themselves and a JSON array is a list. All
else is an object with one key, its tag. What has no tag becomes ``Opaque``: unequal to everything. A subclass of a
built-in travels as the data of its base, unless it brings its own ``__eq__``: then it is opaque.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_DEPTH = 100
PLAIN_INT = 1 << 256
MAX_INT_BITS = 1 << 20
MAX_FRACTION_BITS = 1 << 14
MAX_DECIMAL_EXPONENT = 5000
MAX_DECIMAL_DIGITS = 5000
MAX_RANGE = 1_000_000
MAX_ARRAY = 100_000
MAX_LITERAL_CHARS = 4096
MAX_SAME_HASH = 64  # a set of equal hashes takes quadratic time to build


class Malformed(ValueError):
    """The other side sent what no honest encoder writes."""


class Opaque:
    """A value that does not travel. ``truth`` is what the child says of ``bool(value)``."""

    __slots__ = ("kind", "truth")

    def __init__(self, kind: str, truth: bool = True) -> None:
        self.kind = kind
        self.truth = truth

    def __bool__(self) -> bool:
        return self.truth

    def __repr__(self) -> str:
        return f"<{self.kind} object>"


def encode(value: Any, opaque: Callable[[Any], Any], depth: int = 0) -> Any:
    """``value`` as a JSON-able tree; ``opaque`` encodes what has no tag."""
    kind = type(value)
    if value is None or kind is bool or kind is float:
        return value
    if kind is int:
        return value if -PLAIN_INT < value < PLAIN_INT else _big(value)
    if kind is str:
        return value if value.isascii() else _text(value)
    if depth > MAX_DEPTH:
        return {"o": ["deep", True]}
    if kind is list:
        return [encode(item, opaque, depth + 1) for item in value]
    writer = _WRITERS.get(kind)
    if writer is None and kind.__module__ == "numpy" and kind.__name__ == "ndarray":
        return _array(value)
    if writer is None:
        base = _base(value, kind)
        return opaque(value) if base is None else encode(base, opaque, depth + 1)
    return writer(value, lambda item: encode(item, opaque, depth + 1))


def opaque(value: Any) -> Any:
    """The default for values without a tag: the type's name and the value's truth."""
    try:
        truth = bool(value)
    except Exception:
        truth = True
    return {"o": [type_name(value), truth]}


def literal(value: Any) -> str | None:
    """``value`` as a Python literal that reads back as the same data; None where there is none of bounded size."""
    if isinstance(value, Opaque):
        return None
    try:
        text = repr(value)
        if len(text) > MAX_LITERAL_CHARS:
            return None
        back = ast.literal_eval(text)
        return text if type(back) is type(value) and back == value else None
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def type_name(value: Any) -> str:
    """The name of the value's type, whatever its metaclass does."""
    try:
        return str(type.__dict__["__name__"].__get__(type(value)))[:100]
    except Exception:
        return "object"


def iterated(value: Any) -> Any:
    """A lazy iterable or an array as a list, for tests that consume it; anything else unchanged."""
    if type(value).__name__ in _LAZY or (hasattr(type(value), "__next__") and hasattr(type(value), "__iter__")):
        return list(value)
    return value


_LAZY = {"dict_keys", "dict_values", "dict_items", "odict_keys", "odict_values", "odict_items", "ndarray"}


def _text(value: str) -> Any:
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON would join two lone surrogates into one character
        return {"u": value.encode("utf-8", "surrogatepass").hex()}
    return value


def _big(value: int) -> Any:
    if value.bit_length() > MAX_INT_BITS:
        return {"o": [f"{value.bit_length()}-bit integer", True]}
    return {"i": hex(value)}


def _base(value: Any, kind: type) -> Any:
    """The plain data beneath an instance of a built-in's subclass; None when it compares in its own way."""
    for base, convert in _BASES:
        if isinstance(value, base) and issubclass(kind, base):
            own: Any = kind.__eq__
            return convert(value) if own is base.__eq__ else None
    if type(kind) is type and kind.__module__ == "numpy" and hasattr(kind, "item") and value.ndim == 0:
        plain = value.item()
        return plain if type(plain) in (bool, int, float, complex, str, bytes) else None
    return None


def _array(value: Any) -> Any:
    """A numpy array of numbers, booleans or strings; anything else is opaque."""
    if value.dtype.kind not in "biufcU" or value.size > MAX_ARRAY:
        return {"o": ["ndarray", True]}
    return {"N": [value.dtype.str, list(value.shape), encode(value.tolist(), opaque)]}


def _read_array(body: Any, item: Item) -> Any:
    """An array again where numpy is loaded, which it never is in the judge."""
    name, shape, values = body
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return Opaque("ndarray")
    if type(name) is not str or len(name) > 20:
        raise Malformed("bad array")
    return numpy.array(item(values), dtype=name).reshape(item(shape))


_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, lambda v: int.__add__(v, 0)),
    (str, lambda v: str.__add__("", v)),
    (float, lambda v: float.__add__(v, 0.0)),
    (tuple, lambda v: tuple(tuple.__iter__(v))),
    (list, lambda v: list(list.__iter__(v))),
    (dict, lambda v: dict(dict.items(v))),
    (set, lambda v: set(set.__iter__(v))),
    (frozenset, lambda v: frozenset(frozenset.__iter__(v))),
)

Item = Callable[[Any], Any]


def _pairs(value: Any, item: Item) -> list[Any]:
    return [[item(key), item(entry)] for key, entry in dict.items(value)]


def _decimal(value: Decimal) -> Any:
    _, digits, exponent = value.as_tuple()
    too_long = isinstance(exponent, int) and abs(exponent) > MAX_DECIMAL_EXPONENT
    if too_long or len(digits) > MAX_DECIMAL_DIGITS:
        return {"o": ["Decimal", bool(value)]}
    return {"D": str(value)}


def _fraction(value: Fraction) -> Any:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_FRACTION_BITS:
        return {"o": ["Fraction", bool(value)]}
    return {"F": [hex(value.numerator), hex(value.denominator)]}


def _ordered(value: Any) -> Iterable[Any]:
    """Set elements in an order that does not depend on addresses, as far as they can be ordered."""
    try:
        return sorted(value)
    except Exception:
        return value


_WRITERS: dict[type, Callable[[Any, Item], Any]] = {
    tuple: lambda v, item: {"t": [item(x) for x in v]},
    dict: lambda v, item: {"d": _pairs(v, item)},
    defaultdict: lambda v, item: {"d": _pairs(v, item)},
    Counter: lambda v, item: {"C": _pairs(v, item)},
    OrderedDict: lambda v, item: {"O": _pairs(v, item)},
    set: lambda v, item: {"s": [item(x) for x in _ordered(v)]},
    frozenset: lambda v, item: {"f": [item(x) for x in _ordered(v)]},
    deque: lambda v, item: {"q": [item(x) for x in v]},
    bytes: lambda v, item: {"b": v.hex()},
    bytearray: lambda v, item: {"a": v.hex()},
    complex: lambda v, item: {"c": [v.real, v.imag]},
    range: lambda v, item: {"r": [item(v.start), item(v.stop), item(v.step)]},
    Decimal: lambda v, item: _decimal(v),
    Fraction: lambda v, item: _fraction(v),
    datetime: lambda v, item: {"m": v.isoformat()} if v.tzinfo is None else opaque(v),
    date: lambda v, item: {"y": v.isoformat()},
    time: lambda v, item: {"k": v.isoformat()} if v.tzinfo is None else opaque(v),
    timedelta: lambda v, item: {"e": [v.days, v.seconds, v.microseconds]},
    type(Ellipsis): lambda v, item: {"E": None},
}


def decode(tree: Any, handle: Callable[[Any], Any] | None = None, depth: int = 0) -> Any:
    """The value of a tree that an untrusted side sent. Raises ``Malformed``; ``handle`` reads the tag ``h``."""
    kind = type(tree)
    if kind is list:
        if depth > 2 * MAX_DEPTH:
            raise Malformed("nested too deeply")
        return [decode(item, handle, depth + 1) for item in tree]
    if kind is not dict:
        return tree
    if len(tree) != 1 or depth > 2 * MAX_DEPTH:
        raise Malformed("an object that is not one tag, or nested too deeply")
    ((tag, body),) = tree.items()
    if tag == "h" and handle is not None:
        return handle(body)
    reader = _READERS.get(tag)
    if reader is None:
        raise Malformed("unknown tag")
    try:
        return reader(body, lambda item: decode(item, handle, depth + 1))
    except Malformed:
        raise
    except (TypeError, ValueError, ArithmeticError, AttributeError, KeyError, IndexError):
        raise Malformed(f"bad body under tag {tag}") from None


def _items(body: Any, item: Item) -> list[Any]:
    if type(body) is not list:
        raise Malformed("a list was due")
    return [item(x) for x in body]


def check_hashes(values: Collection[Any]) -> None:
    """Raise Malformed when so many different values have one hash that a set of them would take quadratic time."""
    if len(values) > MAX_SAME_HASH:
        commonest, times = Counter(map(hash, values)).most_common(1)[0]
        if times > MAX_SAME_HASH and len({repr(v) for v in values if hash(v) == commonest}) > MAX_SAME_HASH:
            raise Malformed("colliding hashes")


def _hashable(values: list[Any]) -> list[Any]:
    check_hashes(values)
    return values


def _dict(body: Any, item: Item) -> dict[Any, Any]:
    keys = _hashable([item(pair[0]) for pair in body])
    return dict(zip(keys, [item(pair[1]) for pair in body], strict=True))


def _int(body: Any) -> int:
    if type(body) is not str or len(body) > MAX_INT_BITS // 4 + 3:
        raise Malformed("integer out of bounds")
    return int(body, 16)


def _range(body: Any, item: Item) -> Any:
    start, stop, step = (item(x) for x in body)
    made = range(start, stop, step)
    # a test may spell it out
    return made if len(made) <= MAX_RANGE else Opaque("range")


def _read_decimal(body: Any) -> Decimal:
    if type(body) is not str or len(body) > MAX_DECIMAL_DIGITS + 20:
        raise Malformed("decimal out of bounds")
    value = Decimal(body)
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and abs(exponent) > MAX_DECIMAL_EXPONENT:
        raise Malformed("decimal out of bounds")
    return value


def _read_fraction(body: Any) -> Fraction:
    numerator, denominator = (_int(x) for x in body)
    if max(numerator.bit_length(), denominator.bit_length()) > MAX_FRACTION_BITS:
        raise Malformed("fraction out of bounds")
    return Fraction(numerator, denominator)


def _opaque(body: Any) -> Opaque:
    name, truth = body
    if type(name) is not str or type(truth) is not bool or len(name) > 200:
        raise Malformed("bad opaque")
    return Opaque(name, truth)


_READERS: dict[str, Callable[[Any, Item], Any]] = {
    "t": lambda b, item: tuple(_items(b, item)),
    "d": _dict,
    "C": lambda b, item: Counter(_dict(b, item)),
    "O": lambda b, item: OrderedDict(_dict(b, item)),
    "s": lambda b, item: set(_hashable(_items(b, item))),
    "f": lambda b, item: frozenset(_hashable(_items(b, item))),
    "q": lambda b, item: deque(_items(b, item)),
    "b": lambda b, item: bytes.fromhex(b),
    "a": lambda b, item: bytearray.fromhex(b),
    "c": lambda b, item: complex(*(float(x) for x in b)),
    "r": _range,
    "i": lambda b, item: _int(b),
    "u": lambda b, item: bytes.fromhex(b).decode("utf-8", "surrogatepass"),
    "D": lambda b, item: _read_decimal(b),
    "F": lambda b, item: _read_fraction(b),
    "m": lambda b, item: datetime.fromisoformat(b),
    "y": lambda b, item: date.fromisoformat(b),
    "k": lambda b, item: time.fromisoformat(b),
    "e": lambda b, item: timedelta(*b),
    "E": lambda b, item: ...,
    "N": _read_array,
    "o": lambda b, item: _opaque(b),
}
