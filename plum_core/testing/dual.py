"""Several answers to one instruction to one candidate, where none of them can be trusted alone (CodeT)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from plum_core.execution import Executor
from plum_core.records import Outcome, Program
from plum_core.testing.codet import consensus
from plum_core.testing.filters import Candidate


def agreed(
    answers: Mapping[str, Sequence[Candidate]], executor: Executor, least_share: float, cpu_s: float
) -> list[Candidate]:
    """A candidate an instruction, in order: the shortest solution of the best consensus set, and the tests of all
    answers that the set passes.

    Answers that solve under another name than most do not vote. ``why`` is "disagreement" where fewer than
    ``least_share`` of all answers are in the best set, and the most frequent reason where no answer can be read.
    cpu_s: of one solution on all tests. Raises RuntimeError where the sandbox failed.
    """
    ballots = {name: _ballot(given) for name, given in answers.items()}
    programs = [
        Program(
            id=f"{name}\n{n}",
            code=solution.reference,
            tests=tests,
            limits={"cpu_s": cpu_s},
            extra={"entry_point": solution.entry_point},
        )
        for name, (solutions, tests) in ballots.items()
        for n, solution in enumerate(solutions)
    ]
    passed = {}
    for verdict in executor.run(programs):
        if verdict.outcome is Outcome.SANDBOX_ERROR:
            raise RuntimeError(f"the sandbox failed three times on a solution of {verdict.id}: {verdict.detail}")
        passed[verdict.id] = verdict.passed if verdict.attested else (False,) * len(verdict.passed)
    out = []
    for name, (solutions, tests) in ballots.items():
        if not solutions:
            why = Counter(answer.why for answer in answers[name]).most_common(1)[0][0]
            out.append(Candidate(instruction_id=name, why=why))
            continue
        best = consensus([passed[f"{name}\n{n}"] for n in range(len(solutions))])
        if best is None or len(best.solutions) < max(2, least_share * len(answers[name])):
            out.append(Candidate(instruction_id=name, why="disagreement"))
            continue
        chosen = min((solutions[n] for n in best.solutions), key=lambda s: (len(s.reference), s.reference))
        out.append(
            Candidate(
                instruction_id=name,
                reference=chosen.reference,
                tests=tuple(tests[n] for n in best.tests),
                entry_point=chosen.entry_point,
            )
        )
    return out


def _ballot(given: Sequence[Candidate]) -> tuple[list[Candidate], tuple[str, ...]]:
    """The answers that vote, and all their tests, each once."""
    readable = [candidate for candidate in given if not candidate.why]
    if not readable:
        return [], ()
    entry = Counter(candidate.entry_point for candidate in readable).most_common(1)[0][0]
    voting = [candidate for candidate in readable if candidate.entry_point == entry]
    return voting, tuple(dict.fromkeys(test for candidate in voting for test in candidate.tests))
