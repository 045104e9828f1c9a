"""Draws a task: a shape, and one or two pipelines of typed operations over the same parameter."""

from __future__ import annotations

import random
from dataclasses import dataclass

from plum_core.grammar import ints, strs, tables
from plum_core.grammar.ops import Op
from plum_core.grammar.sources import SOURCES, Source

BY_INPUT: dict[str, list[Op]] = {}
for _op in ints.OPS + strs.OPS + tables.OPS:
    BY_INPUT.setdefault(_op.takes, []).append(_op)

SHAPES = ("plain", "compare", "arith", "pair", "choice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """How often a pipeline has 0, 1, 2 or 3 operations before its reduction, and how often each of SHAPES is drawn."""

    lengths: tuple[int, int, int, int]
    shapes: tuple[int, int, int, int, int]


MIXES = {
    "wide": Mix(lengths=(10, 45, 38, 7), shapes=(82, 4, 5, 4, 5)),
    "short": Mix(lengths=(25, 60, 15, 0), shapes=(90, 2, 3, 2, 3)),
}
PARAMETER_SHARE = 0.12  # of the tasks with a constant {k} take it as an argument


@dataclass(frozen=True, slots=True)
class Step:
    """An operation with its constants filled in, as they read in text and in code."""

    op: Op
    consts: tuple[tuple[str, str], ...]

    def fill(self, template: str, **more: str) -> str:
        return template.format(**dict(self.consts), **more)


@dataclass(frozen=True, slots=True)
class Task:
    """A drawn task. ``pipelines`` has one entry for the shape plain, two for the others, three for choice."""

    shape: str
    source: Source
    param: str
    pipelines: tuple[tuple[Step, ...], ...]
    argument: tuple[int, ...] = ()  # where a constant is the second argument ``k``: the values it may take

    @property
    def skeleton(self) -> str:
        """The composition without its constants: what the splits are made by."""
        paths = ("+".join(step.op.name for step in pipe) for pipe in self.pipelines)
        return f"{self.shape}/{self.source.name}/{' & '.join(paths)}{'/k' if self.argument else ''}"

    @property
    def gives(self) -> str:
        """The annotation of what the function returns."""
        last = self.pipelines[-1][-1].op.gives
        return {"compare": "bool", "pair": f"tuple[{last}, {last}]"}.get(self.shape, last)


def _bind(op: Op, rng: random.Random) -> Step:
    return Step(op, tuple((name, str(rng.choice(values))) for name, values in op.consts.items()))


def _pipeline(source: Source, length: int, rng: random.Random, ends: tuple[str, ...] = ()) -> tuple[Step, ...]:
    """Operations of one pipeline; its reduction gives one of ``ends`` where that is not empty.

    Empty where a few draws found none: not every kind of value can be reduced to every type.
    """
    for _ in range(8):
        kind = source.kind
        steps = [_bind(rng.choice(source.start), rng)] if source.start else []
        for _ in range(length):
            forms = [f for f in ("filter", "map", "step") if any(o.form == f for o in BY_INPUT[kind])]
            form = rng.choice(forms)
            op = rng.choice([o for o in BY_INPUT[kind] if o.form == form])
            steps.append(_bind(op, rng))
            kind = op.gives
        last = [o for o in BY_INPUT[kind] if o.form == "reduce" and (not ends or o.gives in ends)]
        if last:
            # types first, so that the many ways to end in a number do not crowd out the others
            gives = rng.choice(sorted({o.gives for o in last}))
            steps.append(_bind(rng.choice([o for o in last if o.gives == gives]), rng))
            names = [s.op.name for s in steps]
            if len(set(names)) == len(names):
                return tuple(steps)
    return ()


def _as_argument(steps: tuple[Step, ...], rng: random.Random) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """Sometimes the one constant {k} of a pipeline becomes the function's second argument."""
    places = [i for i, s in enumerate(steps) if "k" in s.op.consts]
    if len(places) != 1 or rng.random() >= PARAMETER_SHARE:
        return steps, ()
    i = places[0]
    consts = tuple((name, "k" if name == "k" else value) for name, value in steps[i].consts)
    values = tuple(int(v) for v in steps[i].op.consts["k"])
    return (*steps[:i], Step(steps[i].op, consts), *steps[i + 1 :]), values


def draw_task(rng: random.Random, mix: Mix) -> Task:
    while True:
        task = _try_task(rng, mix)
        if task is not None:
            return task


def _try_task(rng: random.Random, mix: Mix) -> Task | None:
    source = rng.choices(SOURCES, [s.weight for s in SOURCES])[0]
    shape = rng.choices(SHAPES, mix.shapes)[0]
    param = rng.choice(source.params)
    if shape == "plain":
        length = rng.choices(range(4), mix.lengths)[0]
        steps, argument = _as_argument(_pipeline(source, length, rng), rng)
        return Task(shape, source, param, (steps,), argument) if steps else None
    short = lambda ends: _pipeline(source, rng.choice((0, 1)), rng, ends)  # noqa: E731 - three uses, one line
    if shape == "choice":
        first = short(())
        pipes: tuple[tuple[Step, ...], ...] = (short(("bool",)), first, short((first[-1].op.gives,) if first else ()))
    else:
        pipes = (short(("int",)), short(("int",)))
    if not all(pipes) or pipes[-1] == pipes[-2]:
        return None
    return Task(shape, source, param, pipes)
