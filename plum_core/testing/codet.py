"""Dual execution agreement: solutions and tests vote for each other where no reference can be trusted.

Chen et al. 2022, "CodeT: Code Generation with Generated Tests", arXiv 2207.10397, section 2: solutions that pass the
same tests are one consensus set; its score is the number of its solutions times the number of those tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Consensus:
    """The best set: indices of its solutions and of the tests that they pass; ``share`` of all solutions are in it.

    ``score`` and ``second``: of this set and of the next best one, 0 where there is none.
    """

    solutions: tuple[int, ...]
    tests: tuple[int, ...]
    share: float
    score: int
    second: int


def consensus(passed: Sequence[Sequence[bool]]) -> Consensus | None:
    """The best consensus set of a matrix ``passed[solution][test]``; None where no solution passes any test.

    Ties go to more tests, then to the solution that comes first, so that the order of votes does not matter beyond
    the order of solutions. Raises ValueError where the rows have different lengths.
    """
    if len({len(row) for row in passed}) > 1:
        raise ValueError(f"every solution must have a verdict on every test, got rows of {sorted(map(len, passed))}")
    sets: dict[tuple[int, ...], list[int]] = {}
    for solution, row in enumerate(passed):
        if tests := tuple(n for n, right in enumerate(row) if right):
            sets.setdefault(tests, []).append(solution)
    ranked = sorted(sets.items(), key=lambda s: (-len(s[0]) * len(s[1]), -len(s[0]), s[1][0]))
    if not ranked:
        return None
    tests, solutions = ranked[0]
    return Consensus(
        solutions=tuple(solutions),
        tests=tests,
        share=len(solutions) / len(passed),
        score=len(tests) * len(solutions),
        second=len(ranked[1][0]) * len(ranked[1][1]) if len(ranked) > 1 else 0,
    )
