"""Typed inputs: small, with repeats, and with the edge cases (empty, one element, zero) often enough."""

from __future__ import annotations

import random
from typing import Any

from plum_core.grammar.compose import Task

WORDS = [
    "apple",
    "bee",
    "cat",
    "civic",
    "dog",
    "echo",
    "eel",
    "egg",
    "fig",
    "gate",
    "hill",
    "ink",
    "iris",
    "jam",
    "kayak",
    "kite",
    "leaf",
    "level",
    "lime",
    "moon",
    "noon",
    "note",
    "oak",
    "onion",
    "opal",
    "otter",
    "pear",
    "pen",
    "pine",
    "plum",
    "pop",
    "radar",
    "rain",
    "ring",
    "rose",
    "sand",
    "sea",
    "seed",
    "ship",
    "silk",
    "star",
    "stats",
    "stone",
    "sun",
    "tea",
    "tree",
    "tulip",
    "under",
    "unit",
    "vase",
    "wave",
    "wind",
    "yarn",
    "zebra",
]
CHARACTERS = "aabbccdeeefghiilmnooprrsttu  ABDEMRS0123579"


def _ints(rng: random.Random) -> list[int]:
    size = rng.choice((0, 1, 2, 3, 4, 5, 5, 6, 6, 7, 8))
    low, high = rng.choice(((-9, 12), (0, 9), (0, 25), (-20, 20), (1, 6)))
    return [rng.randint(low, high) for _ in range(size)]


def _words(rng: random.Random) -> list[str]:
    pool = rng.sample(WORDS, 6)
    return [rng.choice(pool) for _ in range(rng.choice((0, 1, 2, 3, 4, 5, 5, 6, 7)))]


def _value(source: str, rng: random.Random) -> Any:
    if source in ("nums", "two"):
        return _ints(rng)
    if source == "words":
        return _words(rng)
    if source == "sentence":
        return " ".join(_words(rng))
    if source == "string":
        if rng.random() < 0.15:
            return rng.choice([w for w in WORDS if w == w[::-1]])
        return "".join(rng.choice(CHARACTERS) for _ in range(rng.choice((0, 1, 3, 5, 7, 9, 11))))
    if source == "scores":
        return {w: rng.randint(0, 15) for w in rng.sample(WORDS, rng.choice((0, 1, 2, 3, 4, 5, 6)))}
    if source == "rows":
        return [[rng.randint(-3, 9) for _ in range(rng.randint(0, 5))] for _ in range(rng.randint(0, 5))]
    if source == "digits":
        return rng.choice((0, rng.randint(1, 9), rng.randint(10, 999), rng.randint(1000, 999999)))
    return rng.randint(1, 30)


def draw_arguments(task: Task, rng: random.Random) -> tuple[Any, ...]:
    """One tuple of positional arguments for the task's function."""
    values = [_value(task.source.name, rng) for _ in task.param.split(",")]
    return (*values, *((rng.choice(task.argument),) if task.argument else ()))
