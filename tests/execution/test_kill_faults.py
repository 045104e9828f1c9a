"""Faults of the executor that kill -9 has shown, each held down by a test."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from signal import SIGKILL
from typing import Any

import pytest

from plum_core.execution import Executor, Limits
from plum_core.execution.benchmarks import watch
from plum_core.execution.inside import frames, stdio
from plum_core.execution.inside.endings import SandboxFault
from plum_core.execution.inside.zygote import Reaped
from plum_core.execution.pool import Pool
from plum_core.execution.workers import Worker
from plum_core.records.types import Outcome, Program

ADD = "def f(a, b):\n    return a + b\n"
TESTS = ("assert f(1, 2) == 3",)


def kill_first(role: str, ready: Callable[[int], bool]) -> threading.Thread:
    """Kill the first process of ``role`` that is ``ready``, as soon as there is one."""

    def hunt() -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            for pid, found in watch.roles(os.getpid()).items():
                if found == role and ready(pid):
                    return os.kill(pid, SIGKILL)

    thread = threading.Thread(target=hunt)
    thread.start()
    return thread


def test_a_kill_near_the_memory_limit_is_no_fact_about_the_program() -> None:
    code = "import time\nx = bytearray(b'1') * (100 << 20)\ntime.sleep(0.5)\n" + ADD
    with Executor(workers=1) as executor:
        hunter = kill_first("child", lambda pid: watch.rss_mib(pid) > 105)
        verdicts = list(executor.run([Program(id="0", code=code, tests=TESTS, limits={"memory_mib": 130})]))
        hunter.join()
    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASSED]


def imports(pid: int) -> bool:
    """Whether a process that looks like a library zygote is one at its start, and no child before its setsid."""
    time.sleep(0.02)
    has_children = any(process.parent == pid for process in watch.processes().values())
    return watch.roles(os.getpid()).get(pid) == "library zygote" and not has_children


def test_a_library_zygote_killed_at_its_start_leaves_no_zombie() -> None:
    pytest.importorskip("numpy")
    program = Program(id="0", code="import numpy\n" + ADD, tests=TESTS)
    with Executor(workers=1) as executor:
        hunter = kill_first("library zygote", imports)
        assert [verdict.outcome for verdict in executor.run([program])] == [Outcome.PASSED]
        hunter.join()
        assert "zombie" not in watch.held_at_rest(os.getpid())


class FaultyChild:
    """A child whose limits cannot be set; remembers whether it was collected."""

    def __init__(self) -> None:
        self.finished = False
        self.used_s = 0.0

    def start(self, *_: Any) -> None:
        raise SandboxFault("the limits of a child could not be set")

    def finish(self, *, closed: bool) -> Any:
        self.finished = True
        return Reaped(0, 0.0, 0)


class FaultyZygote:
    def __init__(self, child: FaultyChild) -> None:
        self.take = lambda: child


def test_a_fault_of_ours_in_a_stdin_program_collects_its_child() -> None:
    child = FaultyChild()
    limits = Limits(output_kib=64.0, cpu_s=1.0).as_dict()
    with pytest.raises(SandboxFault):
        stdio.run(FaultyZygote(child), "", {"input": "", "output": ""}, limits, lambda *_: None)  # type: ignore[arg-type]
    assert child.finished


def test_the_last_words_of_a_worker_with_an_unread_job_are_handed_out() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    worker = object.__new__(Worker)
    worker.sock, worker._incoming = ours, bytearray()
    ours.send(b"a job that is not read")
    frames.write(theirs.fileno(), {"token": 1, "outcome": "passed"})
    theirs.close()
    assert worker.receive() == [{"token": 1, "outcome": "passed"}]


def test_a_worker_that_died_idle_costs_no_try(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    again = Pool._again

    def noted(self: Pool, job: Any, fault: str, news: Any) -> None:
        tries.append(job.attempts)
        again(self, job, fault, news)

    monkeypatch.setattr(Pool, "_again", noted)
    with Executor(workers=1) as executor:
        os.kill(executor._slots[0].worker._process.pid, SIGKILL)
        time.sleep(0.2)
        programs = [Program(id=str(i), code=f"{ADD}#{i}", tests=TESTS) for i in range(2)]
        assert [v.outcome for v in executor.run(programs)] == [Outcome.PASSED] * 2
    assert tries == [0, 0]  # both were dealt to the dead worker, and dealt again


@pytest.mark.timeout(180)  # the timer is of twenty CPU seconds
def test_a_judge_that_is_stopped_over_one_program_goes_on_with_the_next() -> None:
    """What the evaluator's bounds let through, the kernel's timer ends."""
    slow = "assert f(1, 2) == 0 or " + " or ".join(["len(set(range(199999))) == 1"] * 3000)
    programs = [
        Program(id="slow", code=ADD, tests=(slow,)),
        *(Program(id=str(i), code=f"{ADD}#{i}", tests=TESTS) for i in range(3)),
    ]
    with Executor(workers=1) as executor:
        found = {v.id: v for v in executor.run(programs)}
    assert found.pop("slow").outcome is Outcome.TIMEOUT
    assert [v.outcome for v in found.values()] == [Outcome.PASSED] * 3


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("def f(x): return [[i] for i in range(300000)]", "assert sum(f(1), []) == [1]"),
        ("def f(x): return [(i,) for i in range(300000)]", "assert sum(f(1), ()) == (1,)"),
        ("def f(x): return 1", "assert f(1) == 0 or [[0]*1000000]*1000000 == [[0]*1000000]*1000000"),
        ("def f(x): return [i * (2**61 - 1) for i in range(100000)]", "assert set(f(1)) == {1}"),
    ],
    ids=["lists", "tuples", "nested", "collisions"],
)
def test_no_value_stalls_the_judge(code: str, test: str) -> None:
    began = time.monotonic()
    with Executor(workers=1, limits=Limits(cpu_s=2.0)) as executor:
        (verdict,) = executor.run([Program(id="0", code=code, tests=(test,))])
        judges = [slot.worker._process.poll() for slot in executor._slots]
    assert verdict.outcome not in (Outcome.PASSED, Outcome.SANDBOX_ERROR)
    assert judges == [None]  # the same one, alive
    assert time.monotonic() - began < 15
