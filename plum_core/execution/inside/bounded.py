"""Operations of the judge's evaluator, each with a bound on time and memory.

Test code is written by a model and answers come from hostile programs, so size is counted through all nesting: a list
that holds one list a thousand times weighs what a thousand lists weigh, because comparing it takes as long.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from itertools import chain
from typing import Any

from plum_core.execution.inside.codec import MAX_DECIMAL_EXPONENT, check_hashes

MAX_WEIGHT = 200_000  # items of a value that an operation makes
MAX_BITS = 1 << 18
_NESTING = (list, tuple, set, frozenset, deque)
_TEXT = (str, bytes, bytearray)


class Excessive(ValueError):
    """A test that would take unbounded time or memory to evaluate."""


def weight(value: Any, most: int = MAX_WEIGHT) -> int:
    """Items of a value through all its nesting, text at 4 characters an item. Gives up past ``most``."""
    total, left = 0, [value]
    while left and total <= most:
        item = left.pop()
        if isinstance(item, _NESTING):
            total += len(item)
            left.extend(item)
        elif isinstance(item, dict):
            total += 2 * len(item)
            left.extend(item.keys())
            left.extend(item.values())
        elif isinstance(item, _TEXT):
            total += len(item) >> 2
    return total


def checked(value: Any) -> Any:
    """``value`` unless it is too large."""
    if weight(value) > MAX_WEIGHT:
        raise Excessive(f"a value of more than {MAX_WEIGHT} items")
    return value


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (*_NESTING, *_TEXT))


def add(a: Any, b: Any) -> Any:
    if _is_sequence(a) and weight(a) + weight(b) > MAX_WEIGHT:
        raise Excessive(f"a sequence of more than {MAX_WEIGHT} items")
    return a + b


def mul(a: Any, b: Any) -> Any:
    for sequence, times in ((a, b), (b, a)):
        if _is_sequence(sequence) and isinstance(times, int):
            if max(weight(sequence), 1) * times > MAX_WEIGHT:
                raise Excessive(f"a repetition of more than {MAX_WEIGHT} items")
            return a * b
    if _bits(a) + _bits(b) > MAX_BITS:
        raise Excessive(f"a product of more than {MAX_BITS} bits")
    return a * b


def power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and a.bit_length() * abs(b) > MAX_BITS:
        raise Excessive(f"a power of more than {MAX_BITS} bits")
    if not isinstance(a, (int, float, complex)) or not isinstance(b, (int, float, complex)):
        raise TypeError("powers are for numbers")
    return a**b


def lshift(a: Any, b: Any) -> Any:
    if isinstance(b, int) and b + _bits(a) > MAX_BITS:
        raise Excessive(f"a shift by more than {MAX_BITS} bits")
    return a << b


def mod(a: Any, b: Any) -> Any:
    if isinstance(a, _TEXT):
        raise Excessive("% formatting in a test")
    return a % b


def floordiv(a: Any, b: Any) -> Any:
    if min(_bits(a), _bits(b)) > MAX_BITS // 8:  # takes quadratic time
        raise Excessive("a quotient of very long integers")
    return a // b


def bounded_range(*args: int) -> range:
    made = range(*args)
    if len(made) > MAX_WEIGHT:
        raise Excessive(f"a range of more than {MAX_WEIGHT} numbers")
    return made


def bounded_round(value: Any, digits: int | None = None) -> Any:
    if digits is not None and abs(digits) > 10_000:
        raise Excessive("rounding to more than ten thousand digits")
    return round(value, digits)


def bounded_sum(values: Iterable[Any], start: Any = 0) -> Any:
    """sum, which for lists and tuples takes quadratic time, in linear time."""
    items = list(values)
    if isinstance(start, (list, tuple)):
        if any(type(item) is not type(start) for item in items):
            raise TypeError("can only concatenate like to like")
        return type(start)(chain(start, *items))
    if len(items) > 1000 and any(isinstance(item, (Counter, deque)) for item in items):
        raise Excessive("a sum of more than 1000 counters")
    return sum(items, start)


def hashed(kind: Callable[..., Any]) -> Callable[..., Any]:
    """A constructor of sets or dictionaries that refuses what would collide into quadratic time."""

    def make(*args: Any, **kwargs: Any) -> Any:
        if len(args) != 1:
            return kind(*args, **kwargs)
        items = args[0] if isinstance(args[0], (dict, set, frozenset)) else list(args[0])
        if not isinstance(items, dict):
            check_hashes([item[0] for item in items] if kind in (dict, OrderedDict) else items)
        return kind(items, **kwargs)

    return make


def bounded_decimal(*args: Any) -> Decimal:
    made = Decimal(*args)
    if made.is_finite() and abs(made.adjusted()) > MAX_DECIMAL_EXPONENT:
        raise Excessive("a decimal with an exponent of more than 5000")
    return made


def bounded_fraction(*args: Any) -> Fraction:
    if any(isinstance(arg, str) and "e" in arg.lower() for arg in args):
        raise Excessive("a fraction with an exponent")
    return Fraction(*args)
