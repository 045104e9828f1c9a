"""The executor on an event loop: many coroutines share one pool, in the loop's own thread.

The pool is one descriptor to the loop. It is watched while something runs, and only then: an idle executor holds
nothing of a loop, and may serve another one next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable

from plum_core.execution.jobs import Ticket
from plum_core.execution.pool import CHECK_S
from plum_core.execution.sharing import CLOSED, Desk, Line
from plum_core.records.types import Program, Verdict

Programs = Iterable[Program] | AsyncIterable[Program]
# a delivery; or without a ticket, why no more programs are read: an error, or None at their end
Inbox = asyncio.Queue[tuple[Ticket | None, Verdict | BaseException | None]]


class Rollouts:
    """Serves the tasks of one event loop at a time. Not thread-safe."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._loop: asyncio.AbstractEventLoop | None = None  # the one that watches the pool
        self._timer: asyncio.TimerHandle | None = None
        self._for_room: list[asyncio.Future[None]] = []

    def release(self) -> bool:
        """Let the loop go if nobody on it waits any more. Whether the pool is free now."""
        if self._loop is None:
            return True
        if self._desk.is_awaited and not self._loop.is_closed():
            return False
        self._desk.cancel()  # abandoned programs, and those of a loop that was closed over them
        self._leave()
        return True

    async def check(self, program: Program) -> Verdict:
        """The verdict of one program."""
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

        def deliver(_: Ticket, result: Verdict | Exception) -> None:
            if answer.done():  # cancelled, and its task has not run since
                return
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        ticket = Ticket(program, 0, deliver)
        self._submit(ticket)
        try:
            return await answer
        finally:
            self._withdraw([ticket])

    async def run(self, programs: Programs, ordered: bool) -> AsyncGenerator[Verdict, None]:
        """Verdicts of ``programs``, which are read as there is room."""
        if self._desk.is_closed:
            raise ValueError(CLOSED)
        inbox: Inbox = asyncio.Queue()
        line, tickets = Line(ordered), set[Ticket]()
        window = asyncio.Semaphore(self._desk.window)
        feeder = asyncio.create_task(self._feed(programs, inbox, tickets, window))
        reading = True
        try:
            while reading or tickets:
                ticket, result = await inbox.get()
                if isinstance(result, BaseException):
                    raise result
                if ticket is None or result is None:
                    reading = False
                    continue
                tickets.discard(ticket)
                line.add(ticket, result)
                for verdict in line.take():
                    yield verdict
                    window.release()
        finally:
            feeder.cancel()
            self._withdraw(tickets)
            await asyncio.wait([feeder])

    async def _feed(self, programs: Programs, inbox: Inbox, tickets: set[Ticket], window: asyncio.Semaphore) -> None:
        """Submit the programs of one run, and tell its inbox how the reading ended."""
        recent, index = self._desk.memory(), 0
        source = aiter(programs if isinstance(programs, AsyncIterable) else _turned(programs))
        try:
            while True:
                await window.acquire()
                await self._room()
                program = await anext(source, None)
                if program is None:
                    return inbox.put_nowait((None, None))
                ticket = Ticket(program, index, lambda *delivery: inbox.put_nowait(delivery), recent)
                tickets.add(ticket)
                index += 1
                self._submit(ticket)
        except BaseException as problem:
            inbox.put_nowait((None, problem))
            if not isinstance(problem, Exception):
                raise

    async def _room(self) -> None:
        while not self._desk.pool.has_room:
            if self._desk.is_closed:
                raise ValueError(CLOSED)
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._for_room.append(turn)
            await turn

    def _submit(self, ticket: Ticket) -> None:
        loop = asyncio.get_running_loop()
        if self._desk.is_closed:
            raise ValueError(CLOSED)
        if self._desk.is_iterated:
            raise ValueError("this executor is iterating over run(); finish that, or make another one")
        if self._loop is not loop:
            if not self.release():
                raise ValueError("this executor serves another event loop; wait for that, or make another one")
            self._desk.pool.revive()
        self._desk.submit(ticket)
        if self._loop is None and not self._desk.is_idle:
            self._loop = loop
            loop.add_reader(self._desk.pool.fileno(), self._news)
            self._timer = loop.call_later(CHECK_S, self._tick)

    def _withdraw(self, tickets: Iterable[Ticket]) -> None:
        for ticket in tickets:
            self._desk.withdraw(ticket)
        self._after()

    def _news(self) -> None:
        try:
            self._desk.step(0)
        except Exception as problem:  # it belongs to those who wait: the loop would only log it
            self.fail(problem)
        self._after()

    def _tick(self) -> None:
        """Deadlines pass without news."""
        if self._loop is not None:
            self._timer = self._loop.call_later(CHECK_S, self._tick)
            self._news()

    def _after(self) -> None:
        if self._desk.pool.has_room:
            self._wake(None)
        if self._desk.is_idle:
            self._leave()

    def _wake(self, problem: Exception | None) -> None:
        """All who wait for room: each looks by itself, so that a cancelled one takes nobody's turn."""
        turns, self._for_room = self._for_room, []
        for turn in turns:
            if turn.done():
                continue
            if problem is None:
                turn.set_result(None)
            else:
                turn.set_exception(problem)

    def _leave(self) -> None:
        if self._loop is not None and self._timer is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._desk.pool.fileno())
            self._timer.cancel()
        self._loop = self._timer = None

    def fail(self, problem: Exception) -> None:
        """Hand ``problem`` to everybody who waits, and let the loop go."""
        if self.release():
            return
        self._leave()
        for ticket in self._desk.cancel():
            ticket.deliver(ticket, problem)
        self._wake(problem)


async def _turned(programs: Iterable[Program]) -> AsyncIterator[Program]:
    for program in programs:
        yield program
