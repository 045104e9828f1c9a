"""Candidates to suites, each filter over a whole batch at a time.

First what reading shows (nothing is run). Then the reference on its tests; once more elsewhere, in another order, under
another hash seed and at another time; then programs that solve nothing; then mutants of the reference. A suite that is
left has seen its reference pass twice, fails every trivial program, and notices at least one small fault.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plum_core.execution import Executor
from plum_core.records import Outcome, Program, TestSuite, Verdict
from plum_core.testing.filters.clock import later
from plum_core.testing.filters.config import Candidate, FilterConfig
from plum_core.testing.filters.mutants import mutants
from plum_core.testing.filters.purity import impurity
from plum_core.testing.filters.source import definition, essence, mentions, parse
from plum_core.testing.filters.trivial import RAISES, trivial_programs


@dataclass(slots=True)
class _State:
    """A candidate on its way; ``why`` ends it."""

    candidate: Candidate
    tests: tuple[str, ...]
    essences: dict[str, frozenset[str]] = field(default_factory=dict)
    why: str = ""
    detail: str = ""
    cpu_s: float = 0.0  # of the reference
    strength: float | None = None
    mutants: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def end(self, why: str, detail: str = "") -> None:
        self.why, self.detail = why, detail[:200]

    def independent(self) -> int:
        """How many of the tests that are left call the program differently."""
        return len({self.essences[test] for test in self.tests})

    def suite(self) -> TestSuite:
        told: dict[str, Any] = {"detail": self.detail} if self.detail else {}
        if self.dropped:
            told["dropped"] = dict(sorted(self.dropped.items()))
        if self.strength is not None:
            told |= {"strength": self.strength, "mutants": self.mutants}
        kept = not self.why
        return TestSuite(
            instruction_id=self.candidate.instruction_id,
            tests=self.tests if kept else (),
            setup=self.candidate.setup if kept else "",
            reference=self.candidate.reference if kept else None,
            kept=kept,
            why=self.why,
            extra=told,
        )


def filter_candidates(
    candidates: Sequence[Candidate], executor: Executor, elsewhere: Executor, config: FilterConfig, *, seed: int
) -> Iterator[TestSuite]:
    """One suite a candidate, in order; ``kept`` is false and ``why`` a word of REASONS where a filter threw it out.

    ``extra`` has ``detail``, the counts of single tests ``dropped``, and ``strength``: the share of the mutants that
    some test noticed. elsewhere: an executor with another hash seed. Raises RuntimeError where the sandbox failed,
    which says nothing about a candidate.
    """
    states = [_read(candidate, config) for candidate in candidates]
    _run_references(states, executor, config)
    _run_again(states, elsewhere)
    _run_trivial(states, executor, config)
    _run_mutants(states, executor, config, seed)
    yield from (state.suite() for state in states)


def _read(candidate: Candidate, config: FilterConfig) -> _State:
    """The filters that run nothing."""
    state = _State(candidate, candidate.tests, why=candidate.why)
    if state.why:
        return state
    tree = parse(candidate.reference)
    if tree is None or not candidate.reference.strip():
        state.end("no-reference")
    elif definition(tree, candidate.entry_point) is None:
        state.end("no-entry-point", f"no function or class {candidate.entry_point!r}")
    elif not candidate.tests:
        state.end("no-tests")
    elif what := impurity(tree) or impurity(parse(candidate.setup) or tree):
        state.end("impure", what)
    else:
        _choose_tests(state, config, is_class=isinstance(definition(tree, candidate.entry_point), ast.ClassDef))
    return state


def _choose_tests(state: _State, config: FilterConfig, *, is_class: bool) -> None:
    """Drop tests that cannot be read, that call nothing, or that stand there twice."""
    seen, name = set[str](), state.candidate.entry_point
    for test in state.tests:
        tree = parse(test)
        if tree is None:
            state.dropped["unreadable"] += 1
        elif what := impurity(tree):
            return state.end("impure", what)
        elif not mentions(tree, name):
            state.dropped["calls-nothing"] += 1
        elif (same := ast.dump(tree)) in seen:
            state.dropped["duplicate"] += 1
        else:
            seen.add(same)
            state.essences[test] = essence(tree, name, is_class=is_class)
    state.tests = tuple(state.essences)
    if state.independent() < config.least_tests:
        state.end("few-tests", f"{state.independent()} of {len(state.candidate.tests)} call the program differently")


def _alive(states: Sequence[_State]) -> list[_State]:
    return [state for state in states if not state.why]


def _program(state: _State, name: str, code: str, cpu_s: float, tests: Sequence[str] | None = None) -> Program:
    return Program(
        id=name,
        code=code,
        tests=tuple(state.tests if tests is None else tests),
        setup=state.candidate.setup,
        limits={"cpu_s": cpu_s, "wall_s": max(2.0, 2 * cpu_s)},
        extra={"entry_point": state.candidate.entry_point},
    )


def _verdicts(executor: Executor, programs: Mapping[str, Program]) -> dict[str, Verdict]:
    found = {}
    for verdict in executor.run(programs.values()):
        if verdict.outcome is Outcome.SANDBOX_ERROR:
            raise RuntimeError(f"the sandbox failed three times on {verdict.id}: {verdict.detail}")
        found[verdict.id] = verdict
    return found


def _each(states: Sequence[_State], executor: Executor, make: Any) -> Iterator[tuple[_State, Verdict]]:
    programs = {str(n): make(state, str(n)) for n, state in enumerate(states)}
    found = _verdicts(executor, programs)
    yield from ((state, found[str(n)]) for n, state in enumerate(states))


def _run_references(states: Sequence[_State], executor: Executor, config: FilterConfig) -> None:
    """The consistency filter."""
    for state, verdict in _each(
        _alive(states), executor, lambda s, n: _program(s, n, s.candidate.reference, config.reference_cpu_s)
    ):
        state.cpu_s = verdict.cpu_s
        wrong = [test for test, right in zip(state.tests, verdict.passed, strict=True) if not right]
        if not verdict.attested and not config.allow_unattested:
            state.end("unattested")
        elif wrong and (verdict.outcome is not Outcome.FAILED or len(wrong) == len(state.tests)):
            state.end("inconsistent" if verdict.outcome is Outcome.FAILED else "reference-fails", verdict.detail)
        elif wrong and config.wrong_tests == "reject":
            state.end("inconsistent", f"{len(wrong)} of {len(state.tests)} tests, {verdict.detail}")
        elif wrong:
            state.dropped["wrong"] += len(wrong)
            state.tests = tuple(test for test in state.tests if test not in wrong)
            if state.independent() < config.least_tests:
                state.end("inconsistent", f"{len(wrong)} tests are wrong, {len(state.tests)} right")


def _run_again(states: Sequence[_State], elsewhere: Executor) -> None:
    """Last test first, another hash seed, 40 days later, another state of the random numbers."""
    for state, verdict in _each(
        _alive(states),
        elsewhere,
        lambda s, n: _program(s, n, later(s.candidate.reference), 4 * s.cpu_s + 1.0, s.tests[::-1]),
    ):
        if verdict.outcome is not Outcome.PASSED:
            state.end("flaky", verdict.detail)


def _run_trivial(states: Sequence[_State], executor: Executor, config: FilterConfig) -> None:
    """Tests that a raising function passes, or every answer, are dropped; no trivial program may pass what is left."""
    programs, of = dict[str, Program](), dict[str, tuple[_State, str]]()
    alive = _alive(states)
    for number, state in enumerate(alive):
        named = trivial_programs(state.candidate.reference, state.candidate.entry_point, state.tests)
        for name, code in named.items():
            key = f"{number} {name}"
            programs[key], of[key] = _program(state, key, code, 4 * state.cpu_s + 0.2), (state, name)
    found = _verdicts(executor, programs)
    passed = {
        key: {test for test, right in zip(programs[key].tests, found[key].passed, strict=True) if right} for key in of
    }
    for number, state in enumerate(alive):
        raises = passed.get(f"{number} {RAISES}", set())
        answers = {name: passed[key] for key, (owner, name) in of.items() if owner is state and name != RAISES}
        _judge_trivial(state, raises, answers, config)


def _judge_trivial(state: _State, raises: set[str], answers: dict[str, set[str]], config: FilterConfig) -> None:
    """``raises`` and ``answers``: what the programs pass that raise, and that answer without thought."""
    vacuous = raises | (set.intersection(*answers.values()) if answers else set())
    before, left = len(state.tests), tuple(test for test in state.tests if test not in vacuous)
    if len(left) < before:
        state.dropped["vacuous"] += before - len(left)
    state.tests = left
    if state.independent() < config.least_tests:
        return state.end("vacuous", f"{len(left)} tests are left of {before}")
    name = next((name for name, right in answers.items() if right.issuperset(left)), None)
    if name is not None:
        state.end("trivial", f"a function that {name} passes")


def _run_mutants(states: Sequence[_State], executor: Executor, config: FilterConfig, seed: int) -> None:
    """How many small faults the tests notice."""
    programs, of = dict[str, Program](), dict[int, list[str]]()
    alive = _alive(states)
    for number, state in enumerate(alive):
        codes = mutants(state.candidate.reference, config.mutants, seed, state.candidate.instruction_id)
        of[number] = [f"{number} {n}" for n in range(len(codes))]
        for key, code in zip(of[number], codes, strict=True):
            programs[key] = _program(state, key, code, 4 * state.cpu_s + 0.2)
    found = _verdicts(executor, programs)
    for number, state in enumerate(alive):
        killed = sum(found[key].outcome is not Outcome.PASSED for key in of[number])
        state.mutants = len(of[number])
        state.strength = round(killed / state.mutants, 4) if state.mutants else 0.0
        if not killed or state.strength < config.least_strength:
            state.end("weak", f"{killed} of {state.mutants} mutants are noticed")
