"""Operations on lists of integers."""

from __future__ import annotations

from plum_core.grammar.ops import filters, others

SMALL, COUNT, MOD, WIDE = range(2, 10), range(2, 5), range(2, 8), range(-3, 13)
RANGES = {"a": range(-2, 5), "b": range(6, 16)}

FILTERS = filters(
    "ints",
    ("even", "{e} % 2 == 0", "even {n} | {n} that are even"),
    ("odd", "{e} % 2 == 1", "odd {n} | {n} that are odd"),
    ("positive", "{e} > 0", "positive {n} | {n} above zero"),
    ("negative", "{e} < 0", "negative {n} | {n} below zero"),
    ("nonzero", "{e} != 0", "nonzero {n} | {n} other than zero"),
    ("greater", "{e} > {k}", "{n} greater than {k} | {n} above {k} | {n} that exceed {k}", {"k": WIDE}),
    ("less", "{e} < {k}", "{n} less than {k} | {n} below {k} | {n} smaller than {k}", {"k": WIDE}),
    ("at_least", "{e} >= {k}", "{n} that are at least {k} | {n} not below {k}", {"k": WIDE}),
    ("at_most", "{e} <= {k}", "{n} that are at most {k} | {n} not above {k}", {"k": WIDE}),
    ("divisible", "{e} % {k} == 0", "{n} divisible by {k} | multiples of {k}", {"k": MOD}),
    (
        "indivisible",
        "{e} % {k} != 0",
        "{n} not divisible by {k} | {n} that are no multiples of {k}",
        {"k": MOD},
    ),
    ("between", "{a} <= {e} <= {b}", "{n} between {a} and {b} | {n} from {a} to {b}", RANGES),
    ("not_equal", "{e} != {k}", "{n} different from {k} | {n} that are not {k}", {"k": WIDE}),
    (
        "ends_in",
        "abs({e}) % 10 == {k}",
        "{n} ending in {k} | {n} whose last digit is {k}",
        {"k": range(0, 10)},
    ),
    ("two_digit", "10 <= abs({e}) <= 99", "two-digit {n} | {n} with two digits"),
    (
        "prime",
        "{e} > 1 and all({e} % d for d in range(2, int({e} ** 0.5) + 1))",
        "prime {n} | {n} that are prime",
    ),
)

MAPS = others(
    "map",
    "ints",
    "ints",
    (
        "square",
        "{e} * {e}",
        "the squares of {x} | {x} squared",
        "square each of them | replace each by its square",
    ),
    ("cube", "{e} ** 3", "the cubes of {x} | {x} cubed", "cube each of them | replace each by its cube"),
    ("double", "{e} * 2", "the doubles of {x} | {x} doubled", "double each of them | multiply each by two"),
    (
        "halve",
        "{e} // 2",
        "the halves of {x} rounded down | {x} halved and rounded down",
        "halve each, rounding down",
    ),
    (
        "negate",
        "-{e}",
        "the negatives of {x} | {x} with the sign flipped",
        "negate each of them | flip each sign",
    ),
    ("abs", "abs({e})", "the absolute values of {x}", "take each absolute value | drop the signs"),
    (
        "add",
        "{e} + {k}",
        "{x} increased by {k} | {x} plus {k} each",
        "add {k} to each | increase each by {k}",
        {"k": SMALL},
    ),
    (
        "subtract",
        "{e} - {k}",
        "{x} decreased by {k} | {x} minus {k} each",
        "subtract {k} from each",
        {"k": SMALL},
    ),
    (
        "times",
        "{e} * {k}",
        "{x} multiplied by {k} | {x} times {k} each",
        "multiply each by {k}",
        {"k": range(3, 10)},
    ),
    (
        "modulo",
        "{e} % {k}",
        "the remainders of {x} modulo {k} | {x} modulo {k}",
        "take each modulo {k}",
        {"k": range(3, 10)},
    ),
    (
        "cap",
        "min({e}, {k})",
        "{x} capped at {k} | {x} limited to at most {k}",
        "cap each at {k}",
        {"k": range(3, 13)},
    ),
    (
        "floor",
        "max({e}, {k})",
        "{x} raised to at least {k}",
        "raise each to at least {k}",
        {"k": range(-2, 7)},
    ),
    (
        "distance",
        "abs({e} - {k})",
        "the distances of {x} from {k}",
        "take the distance of each from {k}",
        {"k": SMALL},
    ),
    (
        "digit_sum",
        "sum(int(d) for d in str(abs({e})))",
        "the digit sums of {x}",
        "replace each by its digit sum",
    ),
    (
        "last_digit",
        "abs({e}) % 10",
        "the last digits of {x}",
        "keep each last digit | replace each by its last digit",
    ),
    ("digits", "len(str(abs({e})))", "the digit counts of {x}", "count the digits of each"),
) + others(
    "map",
    "ints",
    "strs",
    (
        "text",
        "str({e})",
        "{x} as strings | {x} converted to strings",
        "turn each into a string | convert each to a string",
    ),
)

STEPS = others(
    "step",
    "ints",
    "ints",
    (
        "sort",
        "sorted({x})",
        "{x} in ascending order | {x} sorted",
        "sort them | sort them in ascending order",
    ),
    ("sort_down", "sorted({x}, reverse=True)", "{x} in descending order", "sort them in descending order"),
    ("reverse", "{x}[::-1]", "{x} in reverse order | {x} reversed", "reverse them | reverse the order"),
    (
        "distinct",
        "list(dict.fromkeys({x}))",
        "{x} without duplicates | the distinct values of {x}",
        "remove duplicates",
    ),
    ("first_k", "{x}[:{k}]", "the first {k} of {x}", "take the first {k}", {"k": COUNT}),
    ("last_k", "{x}[-{k}:]", "the last {k} of {x}", "take the last {k}", {"k": COUNT}),
    (
        "drop_k",
        "{x}[{k}:]",
        "{x} without the first {k} | all but the first {k} of {x}",
        "skip the first {k}",
        {"k": COUNT},
    ),
    ("drop_last", "{x}[:-1]", "{x} without the last one | all but the last of {x}", "drop the last one"),
    ("every_other", "{x}[::2]", "every second one of {x} | {x} at even positions", "take every second one"),
    ("odd_places", "{x}[1::2]", "{x} at odd positions", "keep those at odd positions"),
    (
        "largest_k",
        "sorted({x}, reverse=True)[:{k}]",
        "the {k} largest of {x}",
        "take the {k} largest",
        {"k": COUNT},
    ),
    ("smallest_k", "sorted({x})[:{k}]", "the {k} smallest of {x}", "take the {k} smallest", {"k": COUNT}),
    (
        "totals",
        "[sum({x}[:i + 1]) for i in range(len({x}))]",
        "the running totals of {x}",
        "form the running totals",
    ),
    (
        "maxima",
        "[max({x}[:i + 1]) for i in range(len({x}))]",
        "the running maxima of {x}",
        "form the running maxima",
    ),
    (
        "gaps",
        "[b - a for a, b in zip({x}, {x}[1:])]",
        "the differences between neighbours in {x}",
        "take the differences between neighbours",
    ),
    (
        "sums",
        "[a + b for a, b in zip({x}, {x}[1:])]",
        "the sums of neighbours in {x}",
        "add each pair of neighbours",
    ),
    ("by_abs", "sorted({x}, key=abs)", "{x} sorted by absolute value", "sort them by absolute value"),
    (
        "rotate",
        "{x}[1:] + {x}[:1]",
        "{x} rotated left by one",
        "rotate them left by one | move the first one to the end",
    ),
    (
        "repeated",
        "[x for x in {x} if {x}.count(x) > 1]",
        "the members of {x} that occur more than once",
        "keep those that occur more than once",
    ),
    (
        "single",
        "[x for x in {x} if {x}.count(x) == 1]",
        "the members of {x} that occur exactly once",
        "keep those that occur exactly once",
    ),
    (
        "indexed",
        "[i * x for i, x in enumerate({x})]",
        "{x} multiplied by their positions",
        "multiply each by its position",
    ),
)

REDUCERS = (
    others(
        "reduce",
        "ints",
        "int",
        ("sum", "sum({x})", "the sum of {x} | the total of {x}", "", {}, ("0", "out += {e}", "out")),
        ("count", "len({x})", "the number of {x} | how many {x} there are", "", {}, ("0", "out += 1", "out")),
        (
            "max",
            "max({x}, default=0)",
            "the largest of {x} (0 if none) | the maximum of {x}, or 0 if there is none",
        ),
        (
            "min",
            "min({x}, default=0)",
            "the smallest of {x} (0 if none) | the minimum of {x}, or 0 if there is none",
        ),
        ("product", "math.prod({x})", "the product of {x}", "", {}, ("1", "out *= {e}", "out")),
        (
            "spread",
            "max({x}) - min({x}) if {x} else 0",
            "the difference between the largest and the smallest of {x}",
        ),
        ("first", "{x}[0] if {x} else -1", "the first of {x}, or -1 if there is none"),
        ("last", "{x}[-1] if {x} else -1", "the last of {x}, or -1 if there is none"),
        ("mean", "sum({x}) // len({x}) if {x} else 0", "the average of {x} rounded down (0 if none)"),
        ("distinct_count", "len(set({x}))", "the number of distinct {x} | how many different {x} there are"),
        ("mode", "max({x}, key={x}.count, default=0)", "the most common of {x} (0 if none)"),
        (
            "second",
            "sorted(set({x}))[-2] if len(set({x})) > 1 else 0",
            "the second largest distinct value of {x} (0 if none)",
        ),
        (
            "rises",
            "sum(b > a for a, b in zip({x}, {x}[1:]))",
            "the number of rises in {x} | how often {x} rise from one to the next",
        ),
        (
            "where_max",
            "{x}.index(max({x})) if {x} else -1",
            "the position of the largest of {x}, or -1 if there is none",
        ),
        ("median", "sorted({x})[len({x}) // 2] if {x} else 0", "the upper median of {x} (0 if none)"),
        (
            "count_of",
            "{x}.count({k})",
            "the number of times {k} occurs in {x} | how often {k} occurs in {x}",
            "",
            {"k": range(0, 7)},
        ),
    )
    + others(
        "reduce",
        "ints",
        "bool",
        ("contains", "{k} in {x}", "{k} is among {x} | {k} occurs in {x}", "", {"k": range(0, 9)}),
        (
            "all_distinct",
            "len({x}) == len(set({x}))",
            "{x} are all different | there are no duplicates in {x}",
        ),
        ("ascending", "{x} == sorted({x})", "{x} are in ascending order | {x} are sorted"),
        ("palindrome", "{x} == {x}[::-1]", "{x} read the same backwards"),
        (
            "any_above",
            "any(x > {k} for x in {x})",
            "any of {x} is above {k} | some of {x} exceed {k}",
            "",
            {"k": SMALL},
        ),
        (
            "all_above",
            "all(x > {k} for x in {x})",
            "all of {x} are above {k} | each of {x} exceeds {k}",
            "",
            {"k": range(-3, 5)},
        ),
        ("any_even", "any(x % 2 == 0 for x in {x})", "any of {x} is even"),
        ("all_even", "all(x % 2 == 0 for x in {x})", "all of {x} are even"),
        ("even_sum", "sum({x}) % 2 == 0", "the sum of {x} is even"),
        (
            "sum_above",
            "sum({x}) > {k}",
            "the sum of {x} is above {k} | {x} add up to more than {k}",
            "",
            {"k": range(5, 25)},
        ),
        ("more_than", "len({x}) > {k}", "there are more than {k} of {x}", "", {"k": COUNT}),
    )
    + others(
        "reduce",
        "ints",
        "str",
        (
            "join",
            "'{j}'.join(map(str, {x}))",
            "{x} joined with '{j}' | a string of {x} separated by '{j}'",
            "",
            {"j": ("-", ",", "+", " ")},
        ),
    )
    + others(
        "reduce",
        "ints",
        "dict[int, int]",
        (
            "counts",
            "{{x: {x}.count(x) for x in {x}}}",
            "a dictionary of how often each of {x} occurs | the counts of {x} as a dictionary",
        ),
        ("squares_of", "{{x: x * x for x in {x}}}", "a dictionary from each of {x} to its square"),
    )
    + others(
        "reduce",
        "ints",
        "tuple[int, int]",
        (
            "extremes",
            "(min({x}), max({x})) if {x} else (0, 0)",
            "a tuple of the smallest and the largest of {x}, (0, 0) if none",
        ),
    )
    + others("reduce", "ints", "list[int]", ("list", "{x}", "{x} | the list of {x}"))
)

OPS = FILTERS + MAPS + STEPS + REDUCERS
