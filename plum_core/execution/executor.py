"""The executor: programs in, verdicts out as they finish."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from plum_core.execution.limits import Limits, SandboxUnavailable
from plum_core.execution.workers import Worker, WorkerDied, default_python
from plum_core.records.types import Outcome, Program, Verdict

ATTEMPTS = 3  # a sandbox_error is ours: the program gets two more tries
QUEUED_PER_WORKER = 2  # one running, one waiting, so that a worker never waits for us


@dataclass(slots=True)
class _Job:
    program: Program
    message: dict[str, Any]
    deadline_s: float  # seconds after which a silent worker is taken for hung
    attempts: int = 0
    sent_at: float = 0.0
    fault: str = ""


@dataclass(slots=True)
class _Slot:
    worker: Worker
    jobs: deque[_Job]


class Executor:
    """Runs untrusted programs under confinement and judges them; see the package's README for how and against whom.

    ``workers`` is the number of programs at a time (default: the processors that this process may use), ``python``
    the interpreter of the programs, ``packages`` the third-party packages that they may import. Each worker may hold
    ``limits.memory_mib`` at its peak. Use it as a context manager, or call ``close``.

    Raises SandboxUnavailable when this machine lacks a mandatory layer. ``simulate_missing`` takes layers as
    missing: it can only make the executor refuse.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        limits: Limits | None = None,
        python: str | None = None,
        packages: Sequence[str] = ("numpy",),
        simulate_missing: Sequence[str] = (),
    ) -> None:
        count = workers if workers is not None else len(os.sched_getaffinity(0))
        if count < 1:
            raise ValueError(f"workers must be at least 1, got {count}")
        self.limits = limits or Limits()
        self._spawn_args = (python or default_python(), tuple(packages), tuple(simulate_missing))
        self._slots: list[_Slot] = []
        self._token = 0
        self._running = False
        try:
            self._slots = [_Slot(Worker(*self._spawn_args), deque()) for _ in range(count)]
            for slot in self._slots:
                slot.worker.await_ready()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """End all workers and what they run. May be called twice."""
        slots, self._slots = getattr(self, "_slots", []), []
        for slot in slots:
            slot.worker.kill()

    @property
    def layers(self) -> list[str]:
        """The layers of confinement in force: the mandatory ones, and what this kernel offers beyond."""
        optional = self._slots[0].worker.layers if self._slots else []
        return ["no_new_privs", "seccomp", "rlimits", "landlock", *optional]

    def run(self, programs: Iterable[Program]) -> Iterator[Verdict]:
        """One verdict a program, as they finish. ``programs`` is read only as fast as workers become free.

        Leaving the iterator early cancels what is running. Raises ValueError on a program with a bad limit.
        """
        if not self._slots:
            raise ValueError("this executor is closed; make a new one")
        if self._running:
            raise ValueError("this executor is already iterating over run(); finish that, or make another one")
        self._running = True
        source = iter(programs)
        retries: deque[_Job] = deque()
        try:
            while True:
                more = self._fill(source, retries)
                if not more and not any(slot.jobs for slot in self._slots):
                    return
                yield from self._step(retries)
        finally:
            self._running = False
            self._cancel()

    def _fill(self, source: Iterator[Program], retries: deque[_Job]) -> bool:
        """Give every free place a job. False when there are none left to give."""
        for depth in range(QUEUED_PER_WORKER):
            for slot in self._slots:
                if len(slot.jobs) > depth:
                    continue
                job = retries.popleft() if retries else self._next_job(source)
                if job is None:
                    return False
                self._send(slot, job)
        return True

    def _next_job(self, source: Iterator[Program]) -> _Job | None:
        program = next(source, None)
        if program is None:
            return None
        try:
            limits = self.limits.overridden(program.limits)
        except ValueError as problem:
            raise ValueError(f"program {program.id!r}: {problem}") from None
        self._token += 1
        runs = 2 + len(program.stdin_tests)
        message = {
            "token": self._token,
            "code": program.code,
            "tests": list(program.tests),
            "setup": program.setup,
            "calls": list(program.calls),
            "stdin_tests": [{"input": test.input, "output": test.output} for test in program.stdin_tests],
            "entry": program.extra.get("entry_point"),
            "limits": limits.as_dict(),
        }
        return _Job(program, message, 60.0 + runs * (60.0 + 21 * (limits.cpu_s + limits.wall_s)))

    def _send(self, slot: _Slot, job: _Job) -> None:
        job.attempts += 1
        job.sent_at = time.monotonic()
        slot.jobs.append(job)
        with suppress(WorkerDied):  # the next step meets the same death and replaces the worker
            slot.worker.send(job.message)

    def _step(self, retries: deque[_Job]) -> Iterator[Verdict]:
        """Wait for news, and turn it into verdicts."""
        poll = select.poll()
        by_fd = {slot.worker.fileno(): slot for slot in self._slots}
        for fd, slot in by_fd.items():
            poll.register(fd, select.POLLIN | (select.POLLOUT if slot.worker.wants_to_write else 0))
        for fd, _ in poll.poll(1000):
            slot = by_fd[fd]
            try:
                slot.worker.flush()
                messages = slot.worker.receive()
            except WorkerDied:
                yield from self._replace(slot, retries, "a sandbox worker died")
                continue
            for message in messages:
                if "unavailable" in message:  # its zygote died between two programs: the worker is about to end
                    yield from self._replace(slot, retries, message["unavailable"])
                    break
                yield from self._settle(slot, message, retries)
        for slot in self._slots:
            if slot.jobs and time.monotonic() - slot.jobs[0].sent_at > slot.jobs[0].deadline_s:
                yield from self._replace(slot, retries, "a sandbox worker hung")

    def _settle(self, slot: _Slot, message: dict[str, Any], retries: deque[_Job]) -> Iterator[Verdict]:
        job = slot.jobs.popleft()
        if slot.jobs:
            slot.jobs[0].sent_at = time.monotonic()
        if "fault" in message:
            yield from self._again(job, message["fault"], retries)
            return
        yield Verdict(
            id=job.program.id,
            outcome=Outcome(message["outcome"]),
            passed=tuple(message["passed"]),
            detail=message["detail"],
            wall_s=message["wall_s"],
            cpu_s=message["cpu_s"],
            peak_mib=message["peak_mib"],
            attested=message["attested"],
            extra={"values": message["values"]} if message["values"] else {},
        )

    def _again(self, job: _Job, fault: str, retries: deque[_Job]) -> Iterator[Verdict]:
        """Try a program again that our own failure struck; after the last try its verdict says so."""
        if job.attempts < ATTEMPTS:
            retries.append(job)
            return
        count = len(job.program.tests) + len(job.program.calls) + len(job.program.stdin_tests)
        yield Verdict(
            id=job.program.id,
            outcome=Outcome.SANDBOX_ERROR,
            passed=(False,) * count,
            detail=fault,
            wall_s=0.0,
            cpu_s=0.0,
            peak_mib=0.0,
        )

    def _replace(self, slot: _Slot, retries: deque[_Job], fault: str) -> Iterator[Verdict]:
        """A new worker in the place of one that died. Only the job that it was running counts a try."""
        jobs = list(slot.jobs)
        slot.jobs.clear()
        self._renew(slot)
        for job in jobs[1:]:
            job.attempts -= 1
        retries.extend(jobs[1:])
        if jobs:
            yield from self._again(jobs[0], fault, retries)

    def _cancel(self) -> None:
        """Workers that still run something are replaced; their programs get no verdict."""
        for slot in self._slots:
            if slot.jobs:
                slot.jobs.clear()
                self._renew(slot)

    def _renew(self, slot: _Slot) -> None:
        """A worker that worked before may be killed again at its start; the last try says why it cannot be had."""
        for attempt in range(1, ATTEMPTS + 1):
            slot.worker.kill()
            slot.worker = Worker(*self._spawn_args)
            try:
                return slot.worker.await_ready()
            except SandboxUnavailable:
                if attempt == ATTEMPTS:
                    raise
