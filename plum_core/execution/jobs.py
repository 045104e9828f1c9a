"""A program as a worker reads it, those who wait for it, and a worker's answer as a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from plum_core.execution.cache import MemoryCache
from plum_core.execution.inside import frames
from plum_core.execution.limits import Limits
from plum_core.records.types import Outcome, Program, Verdict


@dataclass(slots=True, eq=False)
class Ticket:
    """A program that somebody waits for. ``deliver`` is called once: with its verdict, or with what prevented one."""

    program: Program
    index: int  # among the programs of its run
    deliver: Callable[[Ticket, Verdict | Exception], None]
    recent: MemoryCache | None = None  # what its run remembers
    job: Job | None = None


@dataclass(slots=True, eq=False)
class Job:
    """One run of one program, for all ``tickets``; with none left it is abandoned, and its answer is dropped."""

    key: bytes  # equal for equal programs
    frame: bytes
    limits: Limits
    deadline_s: float  # after which a silent worker is taken for hung
    tickets: list[Ticket]
    attempts: int = 0
    sent_at: float = 0.0
    dealt: bool = False  # a worker has it


class JobMaker:
    """Writes programs down for the workers. ``salt`` goes into the keys, before the program."""

    def __init__(self, limits: Limits, salt: bytes) -> None:
        self._limits, self._salt = limits, salt
        self._limits_text = frames.dumps(limits.as_dict())

    def job(self, ticket: Ticket) -> Job:
        """Raises ValueError for a bad limit, or for calls that JSON cannot hold."""
        program = ticket.program
        limits, limits_text = self._limits, self._limits_text
        try:
            if program.limits:
                limits = limits.overridden(program.limits)
                limits_text = frames.dumps(limits.as_dict())
            text = frames.dumps(_fields(program))
        except (ValueError, TypeError) as problem:
            raise ValueError(f"program {program.id!r}: {problem}") from None
        # all that decides a verdict, in a fixed order: what is sent is what is compared
        body = f'{text[:-1]},"limits":{limits_text}}}'.encode()
        runs = 2 + len(program.stdin_tests)
        deadline_s = 60.0 + runs * (60.0 + 21 * (limits.cpu_s + limits.wall_s))
        key = sha256(self._salt + body).digest()
        return Job(key, frames.HEADER.pack(len(body)) + body, limits, deadline_s, [ticket])


def _fields(program: Program) -> dict[str, Any]:
    return {
        "token": 0,  # a worker answers in the order in which it is asked, so nothing need tell answers apart
        "code": program.code,
        "tests": program.tests,
        "setup": program.setup,
        "calls": program.calls,
        "stdin_tests": [{"input": test.input, "output": test.output} for test in program.stdin_tests],
        "entry": program.extra.get("entry_point"),
    }


def verdict_of(program: Program, message: dict[str, Any]) -> Verdict:
    """A worker's answer; one with a ``fault`` is ours, and says nothing about the program."""
    if "fault" in message:
        return _without_figures(program, Outcome.SANDBOX_ERROR, message["fault"])
    if "overrun" in message:
        return _without_figures(program, Outcome.TIMEOUT, "its answers took too long to judge by these tests")
    return Verdict(
        id=program.id,
        outcome=Outcome(message["outcome"]),
        passed=tuple(message["passed"]),
        detail=message["detail"],
        wall_s=message["wall_s"],
        cpu_s=message["cpu_s"],
        peak_mib=message["peak_mib"],
        attested=message["attested"],
        extra={"values": message["values"]} if message["values"] else {},
    )


def _without_figures(program: Program, outcome: Outcome, detail: str) -> Verdict:
    count = len(program.tests) + len(program.calls) + len(program.stdin_tests)
    return Verdict(
        id=program.id,
        outcome=outcome,
        passed=(False,) * count,
        detail=detail,
        wall_s=0.0,
        cpu_s=0.0,
        peak_mib=0.0,
    )


def named(verdict: Verdict, program: Program) -> Verdict:
    """The same verdict for an equal program; nothing that can be changed is shared."""
    if verdict.id == program.id and not verdict.extra:
        return verdict
    return replace(verdict, id=program.id, extra={key: list(value) for key, value in verdict.extra.items()})
