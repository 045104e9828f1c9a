"""The ways in which a program's run ends before its answers are complete, and whose fault each is."""

from __future__ import annotations

import os
import signal
from typing import Any

from plum_core.execution.inside.zygote import STILL_ALIVE, Reaped


class Ending(Exception):
    """The program's run is over before its answers were complete."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(outcome, detail)
        self.outcome = outcome
        self.detail = detail


class Forged(Ending):
    """The child spoke out of turn. None of its answers counts: how many it had written is a matter of moments."""


class Overrun(Ending):
    """A test passed its own deadline; those behind it may still run, in another process."""


class Closed(Exception):
    """The child closed its socket: how it ended is told by its wait status."""


class SandboxFault(Exception):
    """Something of ours failed: says nothing about the program."""


class ZygoteGone(SandboxFault):
    """The zygote died: this worker cannot go on."""


class ParentGone(BaseException):
    """Whoever started this worker is dead."""


def ending_of(reaped: Reaped, limits: dict[str, Any], used_s: float) -> Ending:
    """How a child that closed its socket by itself ended.

    No child can send SIGKILL, not even to itself: it comes from the kernel, at the CPU limit or because the machine
    has no memory left, or from somebody else.
    """
    status = reaped.status
    if status == STILL_ALIVE:
        return Ending("exit", "closed its answer channel before the tests were done")
    if os.WIFEXITED(status):
        return Ending("exit", f"left with status {os.WEXITSTATUS(status)} before the tests were done")
    number = os.WTERMSIG(status)
    if number == signal.SIGSYS:
        return Ending("violation", "a forbidden system call")
    if number == signal.SIGXCPU or used_s >= limits["cpu_s"]:
        return Ending("timeout", f"more than {limits['cpu_s']:g} CPU seconds")
    if number == signal.SIGKILL:  # no limit but that of CPU kills
        raise SandboxFault("a child was killed from outside")
    return Ending("crash", f"died by {signal.Signals(number).name}")
