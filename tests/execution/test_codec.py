"""Values as tagged JSON: what goes in comes out, and what no honest encoder writes is refused."""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_core.execution.inside import codec, frames

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 5000), 1 << 5000)
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.dates()
    | st.timedeltas()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(SCALARS, inner, max_size=4)
        | st.sets(SCALARS, max_size=4)
        | st.frozensets(SCALARS, max_size=4)
    ),
    max_leaves=12,
)


def there_and_back(value: Any) -> Any:
    return codec.decode(json.loads(frames.dumps(codec.encode(value, codec.opaque))))


def same(a: Any, b: Any) -> bool:
    """Equal, and of equal types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple, deque)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(map(repr, a)) == list(map(repr, b)) and all(map(same, a.values(), b.values()))
    return bool(a == b)


@given(VALUES)
@settings(max_examples=100, deadline=None)
def test_round_trip(value: Any) -> None:
    assert same(there_and_back(value), value)


@pytest.mark.parametrize(
    "value",
    [
        Counter("abca"),
        OrderedDict([(2, 1), (1, 2)]),
        deque([1, [2]]),
        range(3, 9, 2),
        bytearray(b"xy"),
        datetime(2024, 2, 29, 12, 30),
        date(2024, 2, 29),
        timedelta(days=-1, microseconds=3),
        Decimal("1.50"),
        Fraction(-1, 3),
        "\ud83d\ude00",
        -0.0,
        float("inf"),
        ...,
    ],
    ids=repr,
)
def test_other_types(value: Any) -> None:
    back = there_and_back(value)
    assert same(back, value)
    assert repr(back) == repr(value)


def test_nan_and_defaultdict() -> None:
    assert math.isnan(there_and_back(float("nan")))
    assert there_and_back(defaultdict(int, {1: 2})) == {1: 2}


class AlwaysEqual(list):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class Plain(list):
    pass


def test_subclasses_travel_as_data_unless_they_compare_by_themselves() -> None:
    assert same(there_and_back(Plain([1])), [1])
    assert isinstance(there_and_back(AlwaysEqual([1])), codec.Opaque)
    assert there_and_back(AlwaysEqual()) != []


@pytest.mark.parametrize("truth", [True, False])
def test_opaque_keeps_its_truth_and_equals_nothing(truth: bool) -> None:
    class Thing:
        def __bool__(self) -> bool:
            return truth

    back = there_and_back(Thing())
    assert isinstance(back, codec.Opaque)
    assert bool(back) is truth
    assert back != there_and_back(Thing())


def test_what_is_too_large_to_travel_is_opaque() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    assert isinstance(there_and_back(1 << (codec.MAX_INT_BITS + 1)), codec.Opaque)
    assert isinstance(there_and_back(range(codec.MAX_RANGE + 1)), codec.Opaque)
    assert isinstance(there_and_back(Decimal("1e9999")), codec.Opaque)
    assert there_and_back(cycle) != cycle


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"t": [1], "l": [2]},
        {"zz": 1},
        {"t": 3},
        {"d": [[1]]},
        {"d": [[[1], 2]]},
        {"s": [[1]]},
        {"i": "0x" + "f" * (codec.MAX_INT_BITS // 4 + 9)},
        {"i": 3},
        {"D": "1e999999"},
        {"F": ["0x1", "0x0"]},
        {"F": ["0x1"]},
        {"r": [1, 2]},
        {"b": "xyz"},
        {"u": "ff"},
        {"o": ["name", 1]},
        {"h": [0]},
        {"y": "2024-02-30"},
        {"s": [i * ((1 << 61) - 1) for i in range(codec.MAX_SAME_HASH + 1)]},
    ],
    ids=lambda tree: str(tree)[:30],
)
def test_what_no_encoder_writes_is_refused(tree: Any) -> None:
    with pytest.raises(codec.Malformed):
        codec.decode(tree)


def test_nesting_is_bounded() -> None:
    tree: Any = 0
    for _ in range(3 * codec.MAX_DEPTH):
        tree = [tree]
    with pytest.raises(codec.Malformed):
        codec.decode(tree)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*"tdCOsfqbacriuDFmykeEoNh"]) | st.text(max_size=2), inner, max_size=2)
        ),
        max_leaves=20,
    )
)
@settings(max_examples=200, deadline=None)
def test_any_tree_is_read_or_refused(tree: Any) -> None:
    """Fuzzing the decoder: no other exception, whatever a child sends."""
    try:
        value = codec.decode(tree)
    except codec.Malformed:
        return
    codec.encode(value, codec.opaque)
