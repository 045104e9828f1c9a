"""Programs to jobs, once for equal ones: those in flight are joined, those that ended are remembered."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from plum_core.execution.cache import Cache, MemoryCache, is_lasting
from plum_core.execution.jobs import Job, JobMaker, Ticket, named, verdict_of
from plum_core.execution.pool import Pool
from plum_core.records.types import Verdict

CLOSED = "this executor is closed; make a new one"
REMEMBERED = 4096  # verdicts of one run that later programs of it may share
AHEAD_PER_WORKER = 32  # programs read and not yet handed out: duplicates that wait, verdicts that are not in turn


@dataclass(slots=True, kw_only=True)
class Counts:
    """Where an executor's verdicts came from. ``ran`` counts programs, not tries."""

    ran: int = 0
    shared: int = 0  # with an equal program of the same run
    cached: int = 0


class Desk:
    """Takes tickets and delivers them. With ``share`` off, each program runs unless the cache has it."""

    def __init__(self, pool: Pool, maker: JobMaker, cache: Cache | None, share: bool) -> None:
        self.pool, self.counts = pool, Counts()
        self.is_iterated = False  # by somebody who does not share it with an event loop
        self._maker, self._cache, self._share = maker, cache, share
        self._jobs: set[Job] = set()
        self._in_flight: dict[bytes, Job] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not self.pool.held

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for what runs."""
        return bool(self._jobs)

    @property
    def is_closed(self) -> bool:
        """Whether the pool has gone."""
        return not self.pool.slots

    @property
    def window(self) -> int:
        """How many programs a run may have read and not handed out."""
        return AHEAD_PER_WORKER * len(self.pool.slots)

    def memory(self) -> MemoryCache | None:
        """What one run remembers, where equal programs share."""
        return MemoryCache(REMEMBERED) if self._share else None

    def submit(self, ticket: Ticket) -> None:
        """Deliver ``ticket``, at once or later. Raises ValueError on a bad program."""
        job = self._maker.job(ticket)
        running = self._in_flight.get(job.key) if self._share else None
        if running is not None:
            self.counts.shared += 1
            ticket.job = running
            return running.tickets.append(ticket)
        if (verdict := self._known(job, ticket.recent)) is not None:
            return ticket.deliver(ticket, named(verdict, ticket.program))
        self._put(job)

    def _known(self, job: Job, recent: MemoryCache | None) -> Verdict | None:
        if recent is not None and (verdict := recent.get(job.key)) is not None:
            self.counts.shared += 1
            return verdict
        if self._cache is not None and (verdict := self._cache.get(job.key)) is not None:
            self.counts.cached += 1
            return verdict
        return None

    def _put(self, job: Job) -> None:
        for ticket in job.tickets:
            ticket.job = job
        self.counts.ran += 1
        self._jobs.add(job)
        if self._share:
            self._in_flight[job.key] = job
        self.pool.add(job)

    def withdraw(self, ticket: Ticket) -> None:
        """Nobody waits for ``ticket`` any more; it is not delivered. May come after its delivery."""
        job = ticket.job
        if job is None or ticket not in job.tickets:
            return
        job.tickets.remove(ticket)
        if not job.tickets:
            self._forget(job)
            self.pool.drop(job)

    def step(self, timeout_s: float) -> None:
        """Wait for verdicts, at most ``timeout_s`` seconds, and deliver them. Raises SandboxUnavailable."""
        if self.is_closed:
            raise ValueError(CLOSED)
        for job, message in self.pool.step(timeout_s):
            self._settle(job, message)

    def _settle(self, job: Job, message: dict[str, Any]) -> None:
        self._forget(job)
        tickets, job.tickets = job.tickets, []
        verdict = verdict_of(tickets[0].program, message)
        if "fault" in message:  # is of this run alone: whoever shared it gets tries of his own
            if len(tickets) > 1:
                self._put(Job(job.key, job.frame, job.limits, job.deadline_s, tickets[1:]))
            return tickets[0].deliver(tickets[0], verdict)
        if self._cache is not None and is_lasting(verdict, job.limits):
            self._cache.put(job.key, verdict)
        for ticket in tickets:
            if ticket.recent is not None:
                ticket.recent.put(job.key, verdict)
            ticket.deliver(ticket, named(verdict, ticket.program))

    def _forget(self, job: Job) -> None:
        self._jobs.discard(job)
        if self._in_flight.get(job.key) is job:
            del self._in_flight[job.key]

    def cancel(self) -> list[Ticket]:
        """Drop all that waits or runs; the tickets that will not be delivered."""
        tickets: list[Ticket] = []
        for job in self._jobs:
            tickets += job.tickets
            job.tickets = []
        self._jobs.clear()
        self._in_flight.clear()
        self.pool.cancel()
        return tickets


class Line:
    """Verdicts of one run on their way out: as they come, or in the order of the programs."""

    def __init__(self, ordered: bool) -> None:
        self.handed_out = 0
        self._ordered = ordered
        self._ready: deque[Verdict] = deque()
        self._early: dict[int, Verdict] = {}
        self._turn = 0

    def add(self, ticket: Ticket, verdict: Verdict) -> None:
        """What was delivered for ``ticket``."""
        if not self._ordered:
            return self._ready.append(verdict)
        self._early[ticket.index] = verdict
        while self._turn in self._early:
            self._ready.append(self._early.pop(self._turn))
            self._turn += 1

    @property
    def is_ready(self) -> bool:
        """Whether ``take`` has something."""
        return bool(self._ready)

    def take(self) -> Iterator[Verdict]:
        """Those whose turn it is."""
        while self._ready:
            self.handed_out += 1
            yield self._ready.popleft()
