"""A task with its text, its solutions and its inputs; and the split that keeps the stages apart."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from plum_core.grammar.code import STYLES, signature, solution
from plum_core.grammar.compose import MIXES, Task, draw_task
from plum_core.grammar.inputs import draw_arguments
from plum_core.grammar.phrase import instruction
from plum_core.records import Instruction
from plum_core.seeds import coordinate_seed

# of 100 compositions: what the policy was taught on, what PLUM learns on, what only evaluation sees
SPLITS = {"sft": range(0, 40), "plum": range(40, 75), "heldout": range(75, 100)}
MAX_OUTPUT_CHARS = 160


@dataclass(frozen=True, slots=True)
class Problem:
    """A task in words and code. ``solutions`` are bodies of the same function, one a style, without repeats."""

    id: str
    skeleton: str
    prompt: str
    starter: str
    solutions: tuple[str, ...]
    arguments: tuple[tuple[Any, ...], ...]
    outputs: tuple[Any, ...]

    def instruction(self) -> Instruction:
        """What the policy is asked."""
        return Instruction(id=self.id, prompt=self.prompt, entry_point="solve", starter=self.starter)

    def tests(self) -> tuple[str, ...]:
        """One assert an input, with the true output."""
        return tuple(
            f"assert solve({', '.join(map(repr, args))}) == {out!r}"
            for args, out in zip(self.arguments, self.outputs, strict=True)
        )


def split_of(skeleton: str) -> str:
    """The one split that a composition belongs to, by a stable hash."""
    bucket = int.from_bytes(hashlib.sha256(skeleton.encode()).digest()[:4], "big") % 100
    return next(name for name, buckets in SPLITS.items() if bucket in buckets)


def compile_solution(starter: str, body: str) -> Any:
    """The function itself. Only for the grammar's own code: a model's code runs in the executor."""
    namespace: dict[str, Any] = {"math": math}
    exec(starter + body, namespace)
    return namespace["solve"]


def without_op(task: Task) -> Iterator[Task]:
    """The task less one operation, for each that can go: a real task changes when any of them does."""
    for p, steps in enumerate(task.pipelines):
        for i, step in enumerate(steps[:-1]):
            if step.op.takes == step.op.gives:
                shorter = (*steps[:i], *steps[i + 1 :])
                yield Task(
                    task.shape,
                    task.source,
                    task.param,
                    (*task.pipelines[:p], shorter, *task.pipelines[p + 1 :]),
                    task.argument,
                )


def make_problem(task: Task, rng: random.Random, *, name: str, tests: int) -> Problem | None:
    """Text, code and tests; None where the task is trivial, redundant or too large in its outputs."""
    arguments = _distinct_arguments(task, rng, tests)
    starter = signature(task)
    outputs = _outputs(task, arguments)
    if outputs is None or len(arguments) < tests:
        return None
    wanted = 2 if task.gives == "bool" else 3
    if len({repr(o) for o in outputs}) < wanted:
        return None
    if any(_outputs(shorter, arguments) == outputs for shorter in without_op(task)):
        return None
    solutions = tuple(dict.fromkeys(solution(task, style) for style in STYLES))
    return Problem(name, task.skeleton, instruction(task, rng), starter, solutions, tuple(arguments), tuple(outputs))


def _distinct_arguments(task: Task, rng: random.Random, count: int) -> list[tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for _ in range(count * 4):
        args = draw_arguments(task, rng)
        found.setdefault(repr(args), args)
        if len(found) == count:
            break
    return list(found.values())


def _outputs(task: Task, arguments: list[tuple[Any, ...]]) -> list[Any] | None:
    solve = compile_solution(signature(task), solution(task, "fused"))
    outputs = []
    for args in arguments:
        try:
            out = solve(*args)
        except (IndexError, ValueError, OverflowError):
            return None  # not defined on every input (the first letter of an empty word): not a task
        if len(repr(out)) > MAX_OUTPUT_CHARS:
            return None
        outputs.append(out)
    return outputs


def problems(split: str, seed: int, *, mix: str = "short", tests: int = 8) -> Iterator[Problem]:
    """An endless stream of problems of one split; the i-th depends on the arguments and nothing else.

    mix: one of MIXES, how long the pipelines are. No two have the same instruction.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if mix not in MIXES:
        raise ValueError(f"unknown mix {mix!r}: choose one of {', '.join(MIXES)}")
    rng = random.Random(coordinate_seed("grammar", split, seed))
    seen: set[str] = set()
    count = 0
    while True:
        task = draw_task(rng, MIXES[mix])
        if split_of(task.skeleton) != split:
            continue
        problem = make_problem(task, rng, name=f"{split}-{seed}-{count:06d}", tests=tests)
        if problem is None or problem.prompt in seen:
            continue
        seen.add(problem.prompt)
        count += 1
        yield problem
