"""Inputs proposed from a signature's annotations: small, with repeats, and edge cases often enough.

The inputs are not written by a model. A policy of half a million parameters writes asserts too poorly, and an input
needs no knowledge of the task: its expected output does, and that comes from the solutions' agreement.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Callable
from typing import Any

WORDS = (  # noqa: SIM905 - a paragraph is easier to read and to add to
    "apple bee cat civic dog echo eel egg fig gate hill ink iris jam kayak kite leaf level lime moon noon note "
    "oak onion opal otter pear pen pine plum pop radar rain ring rose sand sea seed ship silk star stats stone "
    "sun tea tree tulip under unit vase wave wind yarn zebra"
).split()
CHARACTERS = "aabbccdeeefghiilmnooprrsttu  ABDEMRS0123579"


def propose_calls(starter: str, entry_point: str, count: int, seed: int) -> list[str]:
    """Up to ``count`` different call expressions ``entry_point(...)`` for the function that ``starter`` begins.

    Raises ValueError for a starter that is not a function's first lines, or a type that no generator knows.
    """
    annotations = _annotations(starter, entry_point)
    rng = random.Random(seed)
    calls: dict[str, None] = {}
    for _ in range(4 * count):
        arguments = ", ".join(repr(draw(annotation, rng)) for annotation in annotations)
        calls.setdefault(f"{entry_point}({arguments})")
        if len(calls) == count:
            break
    return list(calls)


def _annotations(starter: str, entry_point: str) -> list[str]:
    try:
        functions = [n for n in ast.parse(starter + "    pass\n").body if isinstance(n, ast.FunctionDef)]
    except SyntaxError as error:
        raise ValueError(f"the starter {starter!r} is not the beginning of a function: {error.msg}") from error
    for function in functions:
        if function.name == entry_point:
            return [ast.unparse(a.annotation) if a.annotation else "" for a in function.args.args]
    raise ValueError(f"the starter {starter!r} does not define {entry_point}: tests need a function to call")


def draw(annotation: str, rng: random.Random) -> Any:
    """One value of the annotated type."""
    if annotation not in GENERATORS:
        raise ValueError(
            f"no input generator for the type {annotation!r}: annotate arguments with one of {', '.join(GENERATORS)}"
        )
    return GENERATORS[annotation](rng)


def small(rng: random.Random) -> int:
    return rng.choice((rng.randint(0, 9), rng.randint(1, 30), rng.randint(1, 30), rng.randint(10, 4000)))


def ints(rng: random.Random) -> list[int]:
    size = rng.choice((0, 1, 2, 3, 4, 5, 5, 6, 6, 7, 8))
    low, high = rng.choice(((-9, 12), (0, 9), (0, 25), (-20, 20), (1, 6)))
    return [rng.randint(low, high) for _ in range(size)]


def words(rng: random.Random) -> list[str]:
    pool = rng.sample(WORDS, 6)
    return [rng.choice(pool) for _ in range(rng.choice((0, 1, 2, 3, 4, 5, 5, 6, 7)))]


def text(rng: random.Random) -> str:
    if rng.random() < 0.6:
        return " ".join(words(rng))
    return "".join(rng.choice(CHARACTERS) for _ in range(rng.choice((1, 3, 5, 7, 9, 11))))


def counts(rng: random.Random) -> dict[str, int]:
    return {w: rng.randint(0, 15) for w in rng.sample(WORDS, rng.choice((0, 1, 2, 3, 4, 5, 6)))}


def rows(rng: random.Random) -> list[list[int]]:
    return [[rng.randint(-3, 9) for _ in range(rng.randint(0, 5))] for _ in range(rng.randint(0, 5))]


GENERATORS: dict[str, Callable[[random.Random], Any]] = {
    "int": small,
    "str": text,
    "list[int]": ints,
    "list[str]": words,
    "dict[str, int]": counts,
    "list[list[int]]": rows,
    "bool": lambda rng: rng.random() < 0.5,
}
