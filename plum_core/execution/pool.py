"""The workers of one executor: jobs in, answers out, replacement of workers that fail. Never waits for a start."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from plum_core.execution.jobs import Job
from plum_core.execution.limits import SandboxUnavailable
from plum_core.execution.workers import START_S, Worker, WorkerDied

ATTEMPTS = 3  # a sandbox_error is ours: the program gets two more tries
QUEUED_PER_WORKER = 2  # one running, one waiting, so that a worker never waits for us
CHECK_S = 0.5  # how often deadlines are looked at; the shortest of a program that is waited for is minutes
GRACE_S = 0.2  # an abandoned program may end by itself: that is cheaper than a new worker

News = list[tuple[Job, dict[str, Any]]]  # a job that ended, and its answer; one with "fault" after the last try


@dataclass(slots=True, eq=False)
class Slot:
    """A worker's place. ``open`` places of it stand in the pool's line."""

    worker: Worker
    number: int
    jobs: deque[Job] = field(default_factory=deque)
    ready: bool = True
    alive: bool = True
    started_at: float = 0.0
    failed_starts: int = 0  # in a row


class Pool:
    """``count`` workers, which ``spawn`` starts by their number.

    Raises SandboxUnavailable when one cannot start; later, when none is left and none can. ``fileno`` is readable when
    ``step`` has something to do.
    """

    def __init__(self, count: int, spawn: Callable[[int], Worker]) -> None:
        self.slots: list[Slot] = []
        self._spawn = spawn
        self._waiting: deque[Job] = deque()
        self._held = 0  # jobs that wait or run
        self._look_at = 0.0
        self._epoll = select.epoll()
        self._by_fd: dict[int, Slot] = {}
        try:
            for number in range(count):
                self.slots.append(Slot(spawn(number), number))
            for slot in self.slots:
                slot.worker.await_ready()
                self._register(slot)
        except BaseException:
            self.close()
            raise
        self._open = deque(self.slots * QUEUED_PER_WORKER)  # a slot for each free place, emptier ones first

    def fileno(self) -> int:
        """For selectors and event loops."""
        return self._epoll.fileno()

    @property
    def held(self) -> int:
        """Jobs that wait or run, abandoned ones that still run included."""
        return self._held

    @property
    def has_room(self) -> bool:
        """Whether a worker could take one more job."""
        return self._held < QUEUED_PER_WORKER * len(self.slots)

    def close(self) -> None:
        """End all workers and what they run. May be called twice."""
        for slot in self.slots:
            slot.worker.kill()
        self.slots.clear()
        self._epoll.close()

    def revive(self) -> None:
        """Start anew what ``cancel`` or a failure stopped, with all tries."""
        for slot in self.slots:
            slot.failed_starts = 0
            if not slot.alive:
                self._start(slot)

    def add(self, job: Job) -> None:
        """Take a job, whether or not there is room."""
        self._held += 1
        self._waiting.append(job)
        self._deal()

    def drop(self, job: Job) -> None:
        """Nobody waits for ``job`` any more. Where it runs already, it has a moment left to end by itself."""
        if not job.dealt:
            self._held -= 1  # it leaves the line when its turn comes
            return
        now = time.monotonic()
        job.sent_at, job.deadline_s = now, GRACE_S
        self._look_at = min(self._look_at, now + GRACE_S)

    def cancel(self) -> None:
        """Drop all jobs, and stop the workers that run one; ``revive`` has them back."""
        self._waiting.clear()
        self._held = 0
        for slot in self.slots:
            if slot.jobs:
                slot.jobs.clear()
                self._stop(slot)

    def step(self, timeout_s: float) -> News:
        """Wait for something to happen, at most ``timeout_s`` seconds, and carry it out."""
        news: News = []
        for fd, _ in self._epoll.poll(timeout_s):
            self._hear(self._by_fd[fd], news)
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + CHECK_S
            self._look(now, news)
        if self._waiting:
            self._deal()
        return news

    def _hear(self, slot: Slot, news: News) -> None:
        worker = slot.worker
        try:
            if worker.wants_to_write:
                worker.flush()
                self._watch(slot)
            messages = worker.receive()
        except WorkerDied:
            if slot.ready and slot.jobs and worker.overran:
                self._settle(slot, {"overrun": True}, news)
                self._uncharge(slot)
            return self._lose(slot, "a sandbox worker died" + " at its start" * (not slot.ready), news)
        for message in messages:
            if "unavailable" in message:  # at its start; or its zygote died, and the worker is about to end
                return self._lose(slot, message["unavailable"], news)
            if slot.ready:
                self._settle(slot, message, news)
                if message["gone"]:
                    self._uncharge(slot)
            else:
                self._welcome(slot, message)

    def _welcome(self, slot: Slot, message: dict[str, Any]) -> None:
        slot.worker.greet(message)
        slot.ready, slot.failed_starts = True, 0
        self._open.appendleft(slot)
        self._open.extend([slot] * (QUEUED_PER_WORKER - 1))

    def _settle(self, slot: Slot, message: dict[str, Any], news: News) -> None:
        job = slot.jobs.popleft()
        if slot.jobs:
            slot.jobs[0].sent_at = time.monotonic()
            slot.jobs[0].attempts += 1
            self._open.append(slot)
        else:
            self._open.appendleft(slot)
        if "fault" in message:
            return self._again(job, message["fault"], news)
        self._held -= 1
        if job.tickets:
            news.append((job, message))

    def _uncharge(self, slot: Slot) -> None:
        """The worker ends, and never came to its next job."""
        if slot.jobs:
            slot.jobs[0].attempts -= 1

    def _again(self, job: Job, fault: str, news: News) -> None:
        """Try a program again that our own failure struck; after the last try the answer says so."""
        job.dealt = False
        if job.tickets and job.attempts < ATTEMPTS:
            self._waiting.appendleft(job)
            return
        self._held -= 1
        if job.tickets:
            news.append((job, {"fault": fault}))

    def _deal(self) -> None:
        while self._waiting and self._open:
            job = self._waiting.popleft()
            if not job.tickets:
                continue
            slot = self._open.popleft()
            job.sent_at, job.dealt = time.monotonic(), True
            slot.jobs.append(job)
            try:
                slot.worker.send(job.frame)
                if slot.worker.wants_to_write:
                    self._watch(slot)
                job.attempts += slot.jobs[0] is job
            except WorkerDied:
                pass  # the next step meets the same death and replaces the worker; it costs the job no try

    def _look(self, now: float, news: News) -> None:
        for slot in self.slots:
            if slot.jobs and now - slot.jobs[0].sent_at > slot.jobs[0].deadline_s:
                self._lose(slot, "a sandbox worker hung", news)
            elif slot.alive and not slot.ready and now - slot.started_at > START_S:
                self._lose(slot, f"a sandbox worker did not start within {START_S:g} seconds", news)
            elif not slot.alive:
                self._start(slot)

    def _lose(self, slot: Slot, fault: str, news: News) -> None:
        """A new worker in the place of one that failed. Only the job that it was running has counted a try."""
        jobs, slot.jobs = slot.jobs, deque()
        for job in reversed(jobs):
            self._again(job, fault, news)
        slot.failed_starts += not slot.ready
        self._stop(slot)
        if slot.failed_starts < ATTEMPTS:
            self._start(slot)
        elif not any(other.ready for other in self.slots):
            raise SandboxUnavailable(fault)  # else the others go on, and the next look tries again

    def _start(self, slot: Slot) -> None:
        slot.worker = self._spawn(slot.number)
        slot.started_at, slot.ready, slot.alive = time.monotonic(), False, True
        self._register(slot)

    def _stop(self, slot: Slot) -> None:
        fd = slot.worker.fileno()
        self._epoll.unregister(fd)  # closing is not enough where a fork of this process holds the socket too
        del self._by_fd[fd]
        slot.worker.kill()
        slot.ready = slot.alive = False
        self._open = deque(other for other in self._open if other is not slot)

    def _register(self, slot: Slot) -> None:
        fd = slot.worker.fileno()
        self._by_fd[fd] = slot
        self._epoll.register(fd, select.EPOLLIN)

    def _watch(self, slot: Slot) -> None:
        """Ask for the moment at which the socket takes more, where something is left to write."""
        events = select.EPOLLIN | (select.EPOLLOUT if slot.worker.wants_to_write else 0)
        self._epoll.modify(slot.worker.fileno(), events)
