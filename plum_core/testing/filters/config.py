"""What is filtered, by which rules, and the words for what is thrown out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

REASONS = {
    "no-answer": "the generator did not answer",
    "no-reference": "the answer has no reference solution that is Python",
    "no-entry-point": "the reference does not define what the tests call",
    "no-tests": "the answer has no tests",
    "impure": "the reference or a test reads files, input, the clock, the network or unseeded random numbers",
    "disagreement": "too few of several solutions pass the same tests",
    "few-tests": "too few independent tests are left",
    "reference-fails": "the reference ends with an exception, or in a limit",
    "inconsistent": "the reference does not pass its own tests",
    "unattested": "the tests can only be decided inside the program that they judge",
    "flaky": "another order, hash seed or time changes a verdict on the reference",
    "vacuous": "too few tests are left that a function which only raises does not pass",
    "trivial": "None, an argument or a constant passes every test",
    "weak": "no mutant of the reference, or too few of them, fails a test",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A generator's answer, parsed: a whole program, tests that stand alone, and the name that they call.

    ``why`` is a reason that parsing found already; then nothing is run.
    """

    instruction_id: str
    reference: str = ""
    tests: tuple[str, ...] = ()
    entry_point: str = ""
    setup: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterConfig:
    """Which suites are trusted."""

    least_tests: int = 3
    """Independent tests, which call the program with different arguments."""
    wrong_tests: Literal["reject", "drop"] = "reject"
    """Of a test that the reference fails: distrust the whole answer, or go on without that test."""
    mutants: int = 12
    """Mutants of the reference that are tried, at most."""
    least_strength: float = 0.0
    """Share of the mutants that must fail a test; at least one must in any case."""
    allow_unattested: bool = False
    """Keep suites that only the program itself can decide. Their verdicts make no labels unless that is allowed too."""
    reference_cpu_s: float = 2.0
    """CPU seconds of the reference over all its tests."""

    def __post_init__(self) -> None:
        if self.least_tests < 1 or self.mutants < 1:
            raise ValueError(f"least_tests and mutants must be >= 1, got {self.least_tests} and {self.mutants}")
        if not 0 <= self.least_strength <= 1:
            raise ValueError(f"least_strength must be in [0, 1], got {self.least_strength}")
        if not 0.01 <= self.reference_cpu_s <= 3600:
            raise ValueError(f"reference_cpu_s must be in [0.01, 3600], got {self.reference_cpu_s}")
