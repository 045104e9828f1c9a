"""Operations on dictionaries and on lists of rows."""

from __future__ import annotations

from plum_core.grammar.ops import filters, others

DICT_OPS = (
    filters(
        "dict",
        (
            "above",
            "value > {k}",
            "entries with a value above {k} | entries whose value exceeds {k}",
            {"k": range(1, 12)},
        ),
        ("below", "value < {k}", "entries with a value below {k}", {"k": range(2, 14)}),
        ("even", "value % 2 == 0", "entries with an even value | entries whose value is even"),
        ("odd", "value % 2 == 1", "entries with an odd value | entries whose value is odd"),
        ("long_key", "len(key) > {k}", "entries with a key longer than {k}", {"k": range(3, 6)}),
        ("vowel_key", "key[0] in 'aeiou'", "entries whose key starts with a vowel"),
        ("has_key", "'{c}' in key", "entries whose key contains '{c}'", {"c": "aeionrst"}),
    )
    + others(
        "step",
        "dict",
        "dict",
        (
            "double",
            "{{key: value * 2 for key, value in {x}.items()}}",
            "{x} with all values doubled",
            "double all values",
        ),
        (
            "add",
            "{{key: value + {k} for key, value in {x}.items()}}",
            "{x} with all values increased by {k}",
            "add {k} to all values",
            {"k": range(2, 9)},
        ),
        (
            "upper",
            "{{key.upper(): value for key, value in {x}.items()}}",
            "{x} with the keys in upper case",
            "put the keys in upper case",
        ),
    )
    + others(
        "step",
        "dict",
        "ints",
        ("values", "list({x}.values())", "the values of {x}", "take the values"),
    )
    + others(
        "step",
        "dict",
        "strs",
        ("keys", "list({x})", "the keys of {x}", "take the keys"),
        (
            "keys_by_value",
            "sorted({x}, key={x}.get)",
            "the keys of {x} ordered by value",
            "order the keys by value",
        ),
    )
    + others(
        "reduce",
        "dict",
        "str",
        ("best", "max({x}, key={x}.get, default='')", "the key of {x} with the largest value ('' if none)"),
        ("worst", "min({x}, key={x}.get, default='')", "the key of {x} with the smallest value ('' if none)"),
    )
    + others("reduce", "dict", "int", ("count", "len({x})", "the number of {x} | how many {x} there are"))
    + others("reduce", "dict", "dict[str, int]", ("dict", "{x}", "a dictionary of {x}"))
)

ROW_OPS = (
    filters(
        "rows",
        (
            "longer",
            "len({e}) > {k}",
            "{n} longer than {k} | {n} with more than {k} numbers",
            {"k": range(1, 4)},
        ),
        (
            "sum_above",
            "sum({e}) > {k}",
            "{n} whose sum is above {k} | {n} that add up to more than {k}",
            {"k": range(4, 16)},
        ),
        ("has", "{k} in {e}", "{n} that contain {k} | {n} with a {k}", {"k": range(0, 7)}),
    )
    + others(
        "map",
        "rows",
        "ints",
        (
            "sum",
            "sum({e})",
            "the sums of {x} | the row sums of {x}",
            "sum each row | replace each row by its sum",
        ),
        ("len", "len({e})", "the lengths of {x}", "take the length of each row"),
        (
            "max",
            "max({e}, default=0)",
            "the largest number in each of {x} (0 if empty)",
            "take the largest number of each row (0 if empty)",
        ),
    )
    + others(
        "step",
        "rows",
        "ints",
        (
            "flat",
            "[x for row in {x} for x in row]",
            "the numbers in all of {x} | the flattened {x}",
            "flatten them into one list",
        ),
    )
    + others(
        "step",
        "rows",
        "rows",
        ("reverse", "{x}[::-1]", "{x} in reverse order", "reverse the order of the rows"),
        ("by_sum", "sorted({x}, key=sum)", "{x} sorted by their sum", "sort the rows by their sum"),
    )
    + others(
        "reduce",
        "rows",
        "list[int]",
        ("longest", "max({x}, key=len, default=[])", "the longest of {x} ([] if none)"),
    )
    + others("reduce", "rows", "int", ("count", "len({x})", "the number of {x} | how many {x} there are"))
    + others("reduce", "rows", "list[list[int]]", ("list", "{x}", "{x} | the list of {x}"))
)

OPS = DICT_OPS + ROW_OPS
