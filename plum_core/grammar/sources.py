"""What a task's function takes, and how a pipeline starts from it."""

from __future__ import annotations

from dataclasses import dataclass

from plum_core.grammar.ops import Op, others


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A parameter (or two), its type, the kind of value it starts as, and the first step where one is needed."""

    name: str
    annotation: str
    params: tuple[str, ...]  # names to choose from; with two parameters, "a,b"
    described: str  # "a list of integers {p}"
    kind: str
    start: tuple[Op, ...] = ()  # one of these comes first; says hold the parameter as {x}
    weight: int = 1


def _starts(kind: str, *rows: tuple) -> tuple[Op, ...]:
    return tuple(others("step", "source", kind, *rows))


NUMBERS, DIGITS = ("nums", "values", "data"), ("n", "number")

SOURCES = (
    Source(name="nums", annotation="list[int]", params=NUMBERS, described="a list of integers {p}", kind="ints", weight=34),
    Source(
        name="words",
        annotation="list[str]",
        params=("words", "names", "items"),
        described="a list of words {p}",
        kind="strs",
        weight=16,
    ),
    Source(
        name="sentence",
        annotation="str",
        params=("sentence", "phrase"),
        described="a string {p} of words separated by spaces",
        kind="strs",
        start=_starts("strs", ("split", "{x}.split()", "the words of {x} | the words in {x}", "split {x} into words")),
        weight=9,
    ),
    Source(name="string", annotation="str", params=("s", "text", "line"), described="a string {p}", kind="chars", weight=14),
    Source(
        name="scores",
        annotation="dict[str, int]",
        params=("scores", "stock", "ages"),
        described="a dictionary {p} from strings to integers",
        kind="dict",
        weight=11,
    ),
    Source(
        name="rows",
        annotation="list[list[int]]",
        params=("rows", "grid", "table"),
        described="a list of rows {p}, each a list of integers",
        kind="rows",
        weight=7,
    ),
    Source(
        name="digits",
        annotation="int",
        params=DIGITS,
        described="a non-negative integer {p}",
        kind="ints",
        start=_starts("ints", ("digits", "[int(d) for d in str({x})]", "the digits of {x}", "split {x} into its digits")),
        weight=4,
    ),
    Source(
        name="range",
        annotation="int",
        params=DIGITS,
        described="a positive integer {p}",
        kind="ints",
        start=_starts(
            "ints",
            ("range", "list(range(1, {x} + 1))", "the numbers from 1 to {x}", "list the numbers from 1 to {x}"),
            ("divisors", "[d for d in range(1, {x} + 1) if {x} % d == 0]", "the divisors of {x}", "list the divisors of {x}"),
        ),
        weight=4,
    ),
    Source(
        name="two",
        annotation="list[int]",
        params=("a,b",),
        described="two lists of integers {p}",
        kind="ints",
        start=_starts(
            "ints",
            ("plus", "[x + y for x, y in zip(a, b)]", "the pairwise sums of a and b", "add a and b pair by pair"),
            ("minus", "[x - y for x, y in zip(a, b)]", "the pairwise differences of a and b", "subtract b from a pair by pair"),
            ("times", "[x * y for x, y in zip(a, b)]", "the pairwise products of a and b", "multiply a and b pair by pair"),
            ("larger", "[max(x, y) for x, y in zip(a, b)]", "the larger of each pair from a and b", "take the larger of each pair from a and b"),
            ("common", "[x for x in a if x in b]", "the numbers of a that are also in b", "keep the numbers of a that are also in b"),
            ("only", "[x for x in a if x not in b]", "the numbers of a that are not in b", "keep the numbers of a that are not in b"),
            ("joined", "a + b", "a followed by b", "append b to a"),
        ),
        weight=5,
    ),
)  # fmt: skip
