"""Who is computed next under a budget of blocks: admission, chunks of prompts, preemption. Tables only, no tensors.

Requests are served in the order they came. A request's prompt is a job: its blocks are taken whole when it is
admitted, it is computed in chunks, and its samples fork from it. Where a row finds no block, the youngest holder of
blocks gives way: a job is put back, a sample is preempted with what it has drawn and comes back as a job of its own.
The oldest sample is never preempted while another holds blocks, and alone it fits: so nothing starves.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from plum_core.sampling.blocks import BlockManager, OutOfBlocks, Table
from plum_core.sampling.params import Request
from plum_core.sampling.rows import Drawn

Key = tuple[int, int]  # the request's number, the sample's: smaller is older


@dataclass(slots=True, eq=False)
class Job:
    """Tokens to be computed, and the samples that go on from the state (D,) after the last of them."""

    request: Request
    number: int
    ids: tuple[int, ...]
    samples: deque[Drawn]
    table: Table = field(default_factory=Table)
    computed: int = 0
    state: Tensor | None = None

    @property
    def key(self) -> Key:
        return self.number, self.samples[0].index


@dataclass(slots=True, eq=False)
class Line:
    """A live row. shared: the full blocks of its prompt, which the request's other samples may have too."""

    sample: Drawn
    number: int
    table: Table
    shared: tuple[int, ...]

    @property
    def key(self) -> Key:
        return self.number, self.sample.index


class Scheduler:
    """waiting: jobs without blocks, oldest first. filling: in computation. ready: computed. live: rows, in order."""

    def __init__(self, manager: BlockManager, max_rows: int, requests: Iterable[Request | None]) -> None:
        self.manager, self.max_rows = manager, max_rows
        self._arriving: Iterator[Request | None] = iter(requests)
        self._arrived, self.exhausted = 0, False
        self.waiting: list[Job] = []
        self.filling: list[Job] = []
        self.ready: list[Job] = []
        self.live: list[Line] = []
        self.preemptions = 0

    @property
    def busy(self) -> bool:
        return bool(not self.exhausted or self.waiting or self.filling or self.ready or self.live)

    def _pull(self) -> bool:
        """One request more, where there is one now."""
        while not self.exhausted:
            try:
                request = next(self._arriving)
            except StopIteration:
                self.exhausted = True
                return False
            if request is None:
                return False
            if request.seeds:
                samples = deque(Drawn(request, index) for index in range(len(request.seeds)))
                self.waiting.append(Job(request, self._arrived, request.token_ids, samples))
                self._arrived += 1
                return True
        return False

    def admit(self) -> int:
        """Blocks for waiting jobs, oldest first, as memory and rows allow; how many of their tokens were found.

        Beside live rows a block for each of them stays free, so that what was admitted is not preempted at once.
        """
        reused = 0
        while self.waiting or self._pull():
            coming = sum(len(job.samples) for job in (*self.filling, *self.ready))
            if len(self.live) + coming >= self.max_rows:
                break
            job = self.waiting[0]
            try:
                job.table, job.computed = self.manager.open(job.ids)
            except OutOfBlocks:
                break
            if (self.live or coming) and self.manager.free < len(self.live) + coming:
                self.manager.close(job.table)
                job.computed = 0
                break
            reused += job.computed
            self.filling.append(self.waiting.pop(0))
        return reused

    def chunks(self, budget: int) -> list[tuple[Job, int]]:
        """Jobs to compute now and how many tokens of each, oldest first, ``budget`` tokens in all."""
        out = []
        for job in self.filling:
            count = min(len(job.ids) - job.computed, budget)
            if count < 1:
                break
            out.append((job, count))
            budget -= count
        return out

    def computed(self, job: Job, count: int, state: Tensor) -> None:
        """``count`` tokens more of a job are in its blocks; ``state`` (D,) is the one after the last of them."""
        job.computed += count
        self.manager.publish(job.table, job.ids[: job.computed])
        if job.computed == len(job.ids):
            job.state = state
            self.filling.remove(job)
            insort(self.ready, job, key=lambda j: j.key)

    def start(self) -> list[tuple[Line, Tensor]]:
        """Samples of ready jobs become rows behind the live ones, with the state that their next draw needs."""
        out: list[tuple[Line, Tensor]] = []
        while self.ready and len(self.live) < self.max_rows:
            job, ends = self.ready[0], len(self.live) // self.manager.block_size
            if self.live and self.manager.free < len(out) + 1 + ends:  # each wants a block with its next token
                break
            sample = job.samples.popleft()
            table = self.manager.fork(job.table) if job.samples else job.table
            shared = table.blocks[: len(job.request.token_ids) // self.manager.block_size]
            line = Line(sample, job.number, table, tuple(shared))
            self.live.append(line)
            assert job.state is not None  # it is ready
            out.append((line, job.state))
            if not job.samples:
                self.ready.pop(0)
        return out

    def grow(self, more: Sequence[int]) -> tuple[list[int], list[tuple[int, int]], list[int]]:
        """Room for the next token of every live row, and for up to ``more`` of it behind where memory allows.

        Returns the tokens that each row has room for, (from, to) blocks to copy, and the rows that must leave first:
        their blocks are given back already, ``withdraw`` takes them out.
        """
        order = list(range(len(self.live)))
        if self.manager.free < len(order) + sum(more):
            order.sort(key=lambda row: self.live[row].key)
        rooms, copies = [0] * len(order), []
        gone: set[int] = set()
        for row in order:
            while row not in gone and not rooms[row]:
                try:
                    copies.append(self.manager.append(self.live[row].table))
                    rooms[row] = 1
                except OutOfBlocks:
                    self._give_way(gone)
        for row in order:
            while row not in gone and rooms[row] <= more[row]:
                try:
                    copies.append(self.manager.append(self.live[row].table))
                except OutOfBlocks:
                    return rooms, [c for c in copies if c], sorted(gone)
                rooms[row] += 1
        return rooms, [c for c in copies if c], sorted(gone)

    def _give_way(self, gone: set[int]) -> None:
        """The youngest holder gives its blocks back."""
        jobs = [(job.key, job) for job in (*self.filling, *self.ready)]
        rows = [(line.key, row) for row, line in enumerate(self.live) if row not in gone]
        assert len(rows) + len(jobs) > 1, "a sample alone does not fit, which is checked when its request comes"
        job_key, job = max(jobs, key=lambda j: j[0], default=((-1, -1), None))
        row_key, row = max(rows)
        if job is not None and job_key > row_key:
            self.put_back(job)
            return
        self.manager.close(self.live[row].table)
        self.preemptions += 1
        gone.add(row)

    def put_back(self, job: Job) -> None:
        """A job that was admitted waits again, its blocks given back."""
        (self.ready if job in self.ready else self.filling).remove(job)
        self.manager.close(job.table)
        job.computed, job.state = 0, None
        insort(self.waiting, job, key=lambda j: j.key)

    def resume(self, sample: Drawn, number: int) -> None:
        """A sample that was preempted waits to be computed again, prompt and all that it drew."""
        job = Job(sample.request, number, (*sample.request.token_ids, *sample.ids), deque([sample]))
        insort(self.waiting, job, key=lambda j: j.key)

    def release(self, holes: Sequence[int], movers: Sequence[int], live: int) -> None:
        """As ``Rows.release``: rows that left are forgotten, their blocks given back."""
        kept = set(movers) | set(range(live)) - set(holes)
        for row, line in enumerate(self.live):
            if row not in kept:
                self.manager.close(line.table)
        for hole, mover in zip(holes, movers, strict=True):
            self.live[hole] = self.live[mover]
        del self.live[live:]

    def cancel(self, ids: set[str]) -> list[Drawn]:
        """Samples of these requests that are not live; they are forgotten."""
        out: list[Drawn] = []
        for jobs in (self.waiting, self.filling, self.ready):
            for job in [job for job in jobs if job.request.id in ids]:
                self.manager.close(job.table)
                jobs.remove(job)
                out += job.samples
        return out
