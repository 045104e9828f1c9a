"""HumanEval+ and MBPP+ from EvalPlus's own files: base and plus inputs, expected answers from its references."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from plum_core.evaluation.benchmark import Task
from plum_core.evaluation.files import read_rows, text_field
from plum_core.evaluation.plus_harness import HARNESS, PIECE, joined, pieces, with_inputs
from plum_core.evaluation.plus_rules import all_right, own_mode
from plum_core.evaluation.plus_types import CONVERT
from plum_core.execution import Executor
from plum_core.records import Outcome, Program, Verdict, write_atomic

BOTH = (0, 1)  # the levels: base inputs, plus inputs
FACTOR = 4  # EvalPlus's: what a sample may take, in times of the reference
LEAST_INPUT_S, LEAST_CPU_S = 1.0, 4.0  # but at least so many seconds, for one input and for all together
REFERENCE_CPU_S = 120.0
# The reference of Mbpp/255 takes more than 3 GiB; EvalPlus grants 4, too.
ROOM = {"output_kib": 1 << 16, "source_kib": 1 << 14, "memory_mib": 4096}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One row of the file, arguments with their types put right."""

    id: str
    prompt: str
    entry: str
    reference: str  # a whole solution
    atol: float
    inputs: tuple[list[Any], list[Any]]  # base, plus

    def program(self, name: str, code: str, cpu_s: float, input_s: float, **asked: Any) -> Program:
        """``code`` with the inputs of both levels; ``asked``: the program's tests or calls."""
        return Program(
            id=name,
            code=with_inputs(code, self.entry, list(self.inputs), input_s),
            limits={**ROOM, "cpu_s": cpu_s, "wall_s": max(20.0, cpu_s)},
            **asked,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the reference answers by level: a digest in the modes "exact" and "found", all tokens in mode "value"."""

    mode: str
    answers: tuple[str | tuple[str, ...], ...]
    sizes: tuple[int, ...]  # characters of all tokens, in mode "value"
    cpu_s: float  # of the reference
    slowest_s: float  # CPU seconds of its slowest input


def read_problems(path: Path) -> list[Problem]:
    """Raises ValueError for a file of another layout."""
    problems = []
    for row in read_rows(path):
        name, prompt = text_field(row, "task_id", path), text_field(row, "prompt", path)
        solution = text_field(row, "canonical_solution", path)
        convert = CONVERT.get(name, list)
        if not isinstance(row.get("base_input"), list):
            raise ValueError(f"{path}: {name} has no list under 'base_input': is it EvalPlus's own file?")
        inputs = [[convert(args) for args in row[f"{level}_input"] or []] for level in ("base", "plus")]
        problems.append(
            Problem(
                id=name,
                prompt=prompt,
                entry=text_field(row, "entry_point", path),
                reference=prompt + solution if name.startswith("HumanEval") else solution,
                atol=float(row["atol"]),
                inputs=(inputs[0], inputs[1]),
            )
        )
    return problems


def expected_answers(path: Path, problems: list[Problem], executor: Executor, cache: Path) -> dict[str, Expected]:
    """What the references answer, from ``cache`` or by running them; written there for the next time."""
    salt = json.dumps([HARNESS, sys.version_info[:2]]).encode()
    file = cache / f"evalplus-{hashlib.sha256(path.read_bytes() + salt).hexdigest()[:16]}.json"
    if file.exists():
        return {name: Expected(**_frozen(row)) for name, row in json.loads(file.read_text(encoding="utf-8")).items()}
    found = _references(problems, executor)
    cache.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps({name: asdict(expected) for name, expected in found.items()}))
    return found


def _frozen(row: dict[str, Any]) -> dict[str, Any]:
    answers = tuple(a if isinstance(a, str) else tuple(a) for a in row["answers"])
    return {**row, "answers": answers, "sizes": tuple(row["sizes"])}


def _references(problems: list[Problem], executor: Executor) -> dict[str, Expected]:
    """Digests first; where floats or a rule of its own need the values, their size and then the values."""
    modes = {p.id: own_mode(p.entry) or ("exact" if p.atol == 0 else "value") for p in problems}
    plain = [p for p in problems if modes[p.id] != "value"]
    first = _asked(
        executor,
        plain,
        lambda p: [
            *(f"_plum_digest({i}, {modes[p.id]!r})" for i in BOTH),
            *(f"_plum_floats({i})" for i in BOTH),
            f"_plum_slowest({modes[p.id]!r})",
        ],
    )
    found = {}
    for p in plain:
        base, plus, *floating, slowest = (ast.literal_eval(value) for value in first[p.id].extra["values"])
        for answer in (base, plus):
            if answer.startswith("!"):
                raise ValueError(f"the reference of {p.id} does not answer its own inputs: {answer}")
        if modes[p.id] == "exact" and any(floating):
            modes[p.id] = "value"
        else:
            cpu_s = first[p.id].cpu_s
            found[p.id] = Expected(mode=modes[p.id], answers=(base, plus), sizes=(), cpu_s=cpu_s, slowest_s=slowest)
    valued = [p for p in problems if modes[p.id] == "value"]
    second = _asked(executor, valued, lambda p: [*(f"_plum_size({i})" for i in BOTH), "_plum_slowest('value')"])
    told = {p.id: [ast.literal_eval(v) for v in second[p.id].extra["values"]] for p in valued}
    sizes = {name: tuple(values[:-1]) for name, values in told.items()}
    third = _asked(executor, valued, lambda p: [c for i in BOTH for c in pieces(i, sizes[p.id][i])])
    for p in valued:
        answers = _levels(third[p.id], sizes[p.id])
        broken = [token for tokens in answers for token in tokens if token.startswith("!")]
        if broken or any(len(a) != len(given) for a, given in zip(answers, p.inputs, strict=True)):
            raise ValueError(f"the reference of {p.id} does not answer its own inputs: {broken[:1]}")
        cpu_s, slowest = third[p.id].cpu_s, told[p.id][-1]
        found[p.id] = Expected(mode="value", answers=answers, sizes=sizes[p.id], cpu_s=cpu_s, slowest_s=slowest)
    return found


def _asked(executor: Executor, problems: list[Problem], calls: Callable[[Problem], list[str]]) -> dict[str, Verdict]:
    """The references' verdicts, each with the values of ``calls``. Raises ValueError where one does not run."""
    programs = (
        p.program(p.id, p.reference, REFERENCE_CPU_S, REFERENCE_CPU_S, calls=tuple({"call": call} for call in calls(p)))
        for p in problems
    )
    verdicts = {v.id: v for v in executor.run(programs)}
    for name, verdict in verdicts.items():
        if verdict.outcome != Outcome.PASSED:
            raise ValueError(f"the reference of {name} does not run: {verdict.outcome.value}, {verdict.detail}")
    return verdicts


def _levels(verdict: Verdict, sizes: tuple[int, ...]) -> tuple[tuple[str, ...], ...]:
    """Each level's tokens, from the pieces that were asked for."""
    values, out = list(verdict.extra.get("values") or []), []
    for size in sizes:
        count = len(pieces(0, size))
        out.append(tuple(joined(values[:count])))
        values = values[count:]
    return tuple(out)


def _room(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Other right answers may take more characters than the reference's: floats with more digits."""
    return tuple(2 * size + 2 * PIECE for size in sizes)


def sampled_program(problem: Problem, expected: Expected, name: str, code: str) -> Program:
    """A sample's program: told nothing but the inputs."""
    cpu_s = max(LEAST_CPU_S, FACTOR * expected.cpu_s)
    input_s = max(LEAST_INPUT_S, FACTOR * expected.slowest_s)
    if expected.mode == "value":
        room = _room(expected.sizes)
        calls = tuple({"call": call} for level in BOTH for call in pieces(level, room[level]))
        return problem.program(name, code, cpu_s, input_s, calls=calls)
    tests = tuple(f"assert _plum_digest({i}, {expected.mode!r}) == {expected.answers[i]!r}" for i in BOTH)
    return problem.program(name, code, cpu_s, input_s, tests=tests)


def judge(problem: Problem, expected: Expected, exact_floats: bool, verdict: Verdict) -> dict[str, bool]:
    """Right on the base inputs; right on both."""
    if expected.mode != "value":
        right = list(verdict.passed)
    else:
        answers = _levels(verdict, _room(expected.sizes))
        right = [
            all_right(problem.entry, problem.atol, given, wanted, tokens, exact_floats=exact_floats)
            for given, wanted, tokens in zip(problem.inputs, expected.answers, answers, strict=True)
        ]
    return {"base": right[0], "plus": all(right)}


def load(path: Path, executor: Executor, cache: Path, *, exact_floats: bool = False) -> list[Task]:
    """The tasks, each judged on both levels. exact_floats: see ``plus_rules.all_right``."""
    problems = read_problems(path)
    answers = expected_answers(path, problems, executor, cache)
    return [_task(problem, answers[problem.id], exact_floats) for problem in problems]


def _task(problem: Problem, expected: Expected, exact_floats: bool) -> Task:
    is_humaneval = problem.id.startswith("HumanEval")
    lead = "Complete this function" if is_humaneval else f"Write a function {problem.entry} for this task"
    return Task(
        id=problem.id,
        prefix=problem.prompt,
        request=f"{lead} and answer with the whole function in one Python code block.\n\n{problem.prompt.strip()}\n",
        program=partial(sampled_program, problem, expected),
        entry_point=problem.entry,
        canonical=problem.reference,
        judge=partial(judge, problem, expected, exact_floats),
        continues=is_humaneval,
        cost=expected.cpu_s,
    )
