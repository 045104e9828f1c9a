"""Inputs of a task for its hidden tests: by type, and a little closer to what the source is about."""

from __future__ import annotations

import random
from typing import Any

from plum_core.grammar.compose import Task
from plum_core.typed_inputs import CHARACTERS, WORDS, draw, words


def _string(rng: random.Random) -> str:
    if rng.random() < 0.15:
        return rng.choice([w for w in WORDS if w == w[::-1]])
    return "".join(rng.choice(CHARACTERS) for _ in range(rng.choice((0, 1, 3, 5, 7, 9, 11))))


def _digits(rng: random.Random) -> int:
    return rng.choice((0, rng.randint(1, 9), rng.randint(10, 999), rng.randint(1000, 999999)))


SPECIAL = {
    "sentence": lambda rng: " ".join(words(rng)),
    "string": _string,
    "digits": _digits,
    "range": lambda rng: rng.randint(1, 30),
}


def draw_arguments(task: Task, rng: random.Random) -> tuple[Any, ...]:
    """One tuple of positional arguments for the task's function."""
    special = SPECIAL.get(task.source.name)
    values = [special(rng) if special else draw(task.source.annotation, rng) for _ in task.param.split(",")]
    return (*values, *((rng.choice(task.argument),) if task.argument else ()))
