"""The executor on an event loop: many tasks, one pool; cancellation, failure and closing in the middle."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from plum_core.execution import Executor, Limits, SandboxUnavailable
from plum_core.execution.sharing import AHEAD_PER_WORKER
from plum_core.execution.workers import Worker
from plum_core.records.types import Outcome, Program

ADD = "def f(a, b):\n    return a + b\n"
NAP = "import time\ntime.sleep({})\n" + ADD
TESTS = ("assert f(1, 2) == 3",)
WORKERS = 2


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(workers=WORKERS, limits=Limits(cpu_s=1, wall_s=60)) as made:
        yield made


def program(name: object, code: str = ADD, **fields: Any) -> Program:
    return Program(**{"id": str(name), "code": f"{code}# {name}", "tests": TESTS, **fields})


def pids(executor: Executor) -> list[int]:
    return [slot.worker._process.pid for slot in executor._slots]


async def usable(executor: Executor) -> None:
    """Nothing is left behind: a program still gets its verdict, and soon after the pool is empty and off the loop."""
    assert (await executor.check(program("after"))).outcome is Outcome.PASSED
    assert not executor._desk.is_awaited
    end = time.monotonic() + 3  # what was abandoned has its moment
    while executor._rollouts._loop is not None and time.monotonic() < end:
        await asyncio.sleep(0.05)
    assert executor._desk.is_idle
    assert executor._rollouts._loop is None


def test_many_tasks_share_one_pool(executor: Executor) -> None:
    async def main() -> None:
        wrong = "def f(a, b): return 0\n"
        verdicts = await asyncio.gather(*(executor.check(program(i, wrong if i % 3 else ADD)) for i in range(60)))
        assert [v.id for v in verdicts] == [str(i) for i in range(60)]
        assert all(v.outcome is (Outcome.FAILED if i % 3 else Outcome.PASSED) for i, v in enumerate(verdicts))
        await usable(executor)

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(main())
    asyncio.run(main())  # another loop
    assert len(os.listdir("/proc/self/fd")) == before
    assert [v.outcome for v in executor.run([program("sync")])] == [Outcome.PASSED]


def test_the_loop_goes_on_meanwhile(executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the start of a worker is waited for; here one takes two seconds."""
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\nsleep 2\nexec {sys.executable} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setattr(executor._pool, "_spawn", lambda _: Worker(str(slow), (), ()))

    async def main() -> float:
        worst = 0.0
        task = asyncio.create_task(executor.check(program(0, NAP.format(1.0))))
        await asyncio.sleep(0.1)
        for pid in pids(executor):
            os.kill(pid, signal.SIGKILL)
        while not task.done():
            last = time.monotonic()
            await asyncio.sleep(0.01)
            worst = max(worst, time.monotonic() - last)
        assert (await task).outcome is Outcome.PASSED
        return worst

    assert asyncio.run(main()) < 1.0


def test_equal_programs_of_tasks_run_once(executor: Executor) -> None:
    async def main() -> None:
        same = program("same", NAP.format(0.2))
        before = executor.counts.ran
        verdicts = await asyncio.gather(*(executor.check(same) for _ in range(20)))
        assert {v.outcome for v in verdicts} == {Outcome.PASSED}
        assert executor.counts.ran - before == 1

    asyncio.run(main())


@pytest.mark.parametrize("ordered", [False, True])
def test_arun_over_both_kinds_of_source(executor: Executor, ordered: bool) -> None:
    async def drawn() -> AsyncIterator[Program]:
        for i in range(30):
            await asyncio.sleep(0.001)
            yield program(i, NAP.format(0.05 if i % 5 == 0 else 0.001))

    async def main() -> None:
        expected = [str(i) for i in range(30)]
        names = [v.id async for v in executor.arun(drawn(), ordered=ordered)]
        assert (names if ordered else sorted(names, key=int)) == expected
        listed = [program(i) for i in range(30)]
        names = [v.id async for v in executor.arun(listed, ordered=ordered)]
        assert (names if ordered else sorted(names, key=int)) == expected
        assert [v async for v in executor.arun([])] == []
        await usable(executor)

    asyncio.run(main())


def test_aruns_and_checks_run_beside_each_other(executor: Executor) -> None:
    async def main() -> None:
        async def names(word: str) -> list[str]:
            return [v.id async for v in executor.arun([program(f"{word}{i}") for i in range(20)], ordered=True)]

        found = await asyncio.gather(names("a"), names("b"), *(executor.check(program(i)) for i in range(20)))
        assert found[0] == [f"a{i}" for i in range(20)]
        assert found[1] == [f"b{i}" for i in range(20)]
        assert [v.id for v in found[2:]] == [str(i) for i in range(20)]  # type: ignore[union-attr]
        await usable(executor)

    asyncio.run(main())


def test_arun_reads_no_further_than_there_is_room(executor: Executor) -> None:
    async def main() -> None:
        taken = 0

        def endless() -> Iterator[Program]:
            nonlocal taken
            while True:
                taken += 1
                yield program(taken)

        handed = 0
        async with aclosing(executor.arun(endless())) as verdicts:
            async for _ in verdicts:
                handed += 1
                if handed == 5:
                    await asyncio.sleep(0.5)  # a slow reader does not let them pile up
                assert taken <= handed + WORKERS * AHEAD_PER_WORKER
                if handed == 100:
                    break
        await usable(executor)

    asyncio.run(main())


def test_a_cancelled_task_gives_its_worker_back(executor: Executor) -> None:
    async def main() -> None:
        tasks = [asyncio.create_task(executor.check(program(i, NAP.format(50)))) for i in range(20)]
        await asyncio.sleep(0.2)
        began = time.monotonic()
        for task in tasks:
            task.cancel()
        assert all(isinstance(r, asyncio.CancelledError) for r in await asyncio.gather(*tasks, return_exceptions=True))
        assert not executor._desk.is_awaited
        await usable(executor)
        assert time.monotonic() - began < 10

    asyncio.run(main())


def test_a_cancelled_task_takes_nothing_from_an_equal_one(executor: Executor) -> None:
    async def main() -> None:
        same = program("same", NAP.format(0.5))
        first, second = (asyncio.create_task(executor.check(same)) for _ in range(2))
        await asyncio.sleep(0.1)
        before = pids(executor)
        first.cancel()
        assert (await second).outcome is Outcome.PASSED
        assert first.cancelled()
        assert pids(executor) == before
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await executor.check(program("late", NAP.format(50)))
        await usable(executor)

    asyncio.run(main())


def test_a_short_program_that_is_abandoned_costs_no_worker(executor: Executor) -> None:
    async def main() -> None:
        await usable(executor)
        before = pids(executor)
        task = asyncio.create_task(executor.check(program("short", NAP.format(0.05))))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.8)
        assert executor._desk.is_idle
        assert executor._rollouts._loop is None
        assert pids(executor) == before

    asyncio.run(main())


def test_leaving_arun_early_cancels(executor: Executor) -> None:
    async def main() -> None:
        source = [program("first"), *[program(i, NAP.format(50)) for i in range(20)]]
        async with aclosing(executor.arun(source)) as verdicts:
            async for verdict in verdicts:
                assert verdict.id == "first"
                break
        assert not executor._desk.is_awaited
        await usable(executor)

    asyncio.run(main())


def test_an_error_of_the_source_reaches_the_reader(executor: Executor) -> None:
    async def broken() -> AsyncIterator[Program]:
        yield program(0)
        raise KeyError("mine")

    async def main() -> None:
        with pytest.raises(KeyError, match="mine"):
            _ = [v async for v in executor.arun(broken())]
        with pytest.raises(ValueError, match="program '3': unknown limit"):
            _ = [v async for v in executor.arun([program(3, limits={"cpu": 1})])]
        with pytest.raises(ValueError, match="program '4': unknown limit"):
            await executor.check(program(4, limits={"cpu": 1}))
        await usable(executor)

    asyncio.run(main())


def test_killed_workers_cost_tasks_nothing(executor: Executor) -> None:
    async def main() -> None:
        tasks = [asyncio.create_task(executor.check(program(i, NAP.format(0.05)))) for i in range(20)]
        for _ in range(2):
            await asyncio.sleep(0.15)
            for pid in pids(executor):
                os.kill(pid, signal.SIGKILL)
        assert {v.outcome for v in await asyncio.gather(*tasks)} == {Outcome.PASSED}
        await usable(executor)

    asyncio.run(main())


def test_workers_that_cannot_be_had_any_more_are_told_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(executor: Executor) -> None:
        tasks = [asyncio.create_task(executor.check(program(i, NAP.format(0.3)))) for i in range(8)]
        await asyncio.sleep(0.1)
        with monkeypatch.context() as patch:
            patch.setattr(executor._pool, "_spawn", lambda _: Worker(sys.executable, (), ("seccomp",)))
            for pid in pids(executor):
                os.kill(pid, signal.SIGKILL)
            found = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(problem) for problem in found} == {SandboxUnavailable}
        assert "needs seccomp" in str(found[0])
        await usable(executor)

    with Executor(workers=2, packages=()) as executor:
        asyncio.run(main(executor))
        assert [v.outcome for v in executor.run([program("sync")])] == [Outcome.PASSED]


def test_one_worker_that_cannot_be_had_does_not_stop_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(executor: Executor) -> None:
        lost = pids(executor)[0]
        with monkeypatch.context() as patch:
            patch.setattr(executor._pool, "_spawn", lambda _: Worker(sys.executable, (), ("seccomp",)))
            os.kill(lost, signal.SIGKILL)
            tasks = [asyncio.create_task(executor.check(program(i, NAP.format(0.1)))) for i in range(20)]
            assert {v.outcome for v in await asyncio.gather(*tasks)} == {Outcome.PASSED}
            assert [slot.ready for slot in executor._slots] == [False, True]
        end = time.monotonic() + 10
        while not executor._slots[0].ready and time.monotonic() < end:
            await executor.check(program(time.monotonic()))
        assert executor._slots[0].ready

    with Executor(workers=2, packages=()) as executor:
        asyncio.run(main(executor))


def test_closing_while_tasks_wait_is_told_to_all() -> None:
    async def main() -> None:
        executor = Executor(workers=1, packages=())
        tasks = [asyncio.create_task(executor.check(program(i, NAP.format(50)))) for i in range(5)]
        reader = asyncio.create_task(anext(executor.arun([program(i, NAP.format(50)) for i in range(9)])))
        await asyncio.sleep(0.1)
        executor.close()
        found = await asyncio.gather(*tasks, reader, return_exceptions=True)
        assert all(isinstance(problem, ValueError) and "closed" in str(problem) for problem in found), found
        with pytest.raises(ValueError, match="is closed"):
            await executor.check(program(0))
        with pytest.raises(ValueError, match="is closed"):
            await anext(executor.arun([program(0)]))

    asyncio.run(main())


def test_a_loop_that_was_closed_over_its_tasks(executor: Executor) -> None:
    loop = asyncio.new_event_loop()
    task = loop.create_task(executor.check(program("lost", NAP.format(50))))
    loop.run_until_complete(asyncio.sleep(0.1))
    loop.close()
    assert [v.outcome for v in executor.run([program("sync")])] == [Outcome.PASSED]
    asyncio.run(usable(executor))
    assert not task.done()
    task.get_coro().close()  # type: ignore[union-attr]
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_one_way_of_use_at_a_time(executor: Executor) -> None:
    async def main() -> None:
        task = asyncio.create_task(executor.check(program("a", NAP.format(0.3))))
        await asyncio.sleep(0.05)
        with pytest.raises(ValueError, match="serves an event loop"):
            next(iter(executor.run([])))
        other = asyncio.new_event_loop()
        with pytest.raises(ValueError, match="another event loop"):
            await asyncio.to_thread(other.run_until_complete, executor.check(program("b")))
        other.close()
        assert (await task).outcome is Outcome.PASSED
        iterating = iter(executor.run([program(i) for i in range(5)]))
        next(iterating)
        with pytest.raises(ValueError, match="iterating over run"):
            await executor.check(program("c"))
        assert len(list(iterating)) == 4
        await usable(executor)

    asyncio.run(main())
