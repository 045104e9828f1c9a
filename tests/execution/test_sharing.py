"""Equal programs run once, and the order of the programs on request; neither reads ahead without bound."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from plum_core.execution import Executor, Limits
from plum_core.execution.sharing import AHEAD_PER_WORKER
from plum_core.execution.workers import Worker
from plum_core.records.types import Outcome, Program, StdinTest, Verdict

ADD = "def f(a, b):\n    return a + b\n"
NAP = "import time\ntime.sleep({})\n" + ADD
TESTS = ("assert f(1, 2) == 3",)
WORKERS = 2


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(workers=WORKERS, limits=Limits(cpu_s=1, wall_s=5)) as made:
        yield made


def program(name: object, code: str = ADD, **fields: Any) -> Program:
    return Program(**{"id": str(name), "code": code, "tests": TESTS, **fields})


def ran(executor: Executor, programs: list[Program]) -> tuple[int, list[Verdict]]:
    """How many of the programs ran, and their verdicts."""
    before = executor.counts.ran
    verdicts = list(executor.run(programs))
    return executor.counts.ran - before, verdicts


def test_equal_programs_run_once_and_each_has_its_verdict(executor: Executor) -> None:
    codes = [ADD, "def f(a, b): return 0", "1 / 0"]
    programs = [program(i, codes[i % 3], extra={"seen": i}) for i in range(60)]
    number, verdicts = ran(executor, programs)
    assert number == 3
    assert sorted(int(v.id) for v in verdicts) == list(range(60))
    outcomes = [Outcome.PASSED, Outcome.FAILED, Outcome.ERROR]
    assert all(v.outcome is outcomes[int(v.id) % 3] for v in verdicts)


def test_a_run_remembers_nothing_of_the_one_before(executor: Executor) -> None:
    assert ran(executor, [program(0)])[0] == 1
    assert ran(executor, [program(0)])[0] == 1


def test_without_sharing_each_program_runs() -> None:
    with Executor(workers=1, share=False) as alone:
        assert ran(alone, [program(i) for i in range(5)])[0] == 5


@pytest.mark.parametrize(
    "change",
    [
        {"code": ADD + "#"},
        {"tests": ()},
        {"tests": (TESTS[0], TESTS[0])},
        {"setup": "x = 1"},
        {"stdin_tests": (StdinTest(input="", output=""),)},
        {"calls": ({"call": "f(1, 2)", "expected": 3},)},
        {"calls": ({"call": "f(1, 2)"},)},
        {"extra": {"entry_point": "f"}},
        {"limits": {"cpu_s": 0.5}},
    ],
)
def test_whatever_differs_runs_by_itself(executor: Executor, change: dict[str, Any]) -> None:
    assert ran(executor, [program(0), program(1, **change)])[0] == 2


def test_a_limit_that_says_what_holds_anyway_is_no_difference(executor: Executor) -> None:
    assert ran(executor, [program(0), program(1, limits={"cpu_s": 1})])[0] == 1


def test_values_are_not_shared(executor: Executor) -> None:
    asking = [program(i, calls=({"call": "f(1, 2)"},)) for i in range(3)]
    number, verdicts = ran(executor, asking)
    assert number == 1
    verdicts[0].extra["values"].append("spoilt")
    assert [v.extra["values"] for v in verdicts[1:]] == [["3"], ["3"]]


def test_a_duplicate_waits_without_a_worker(executor: Executor) -> None:
    """Twelve equal sleepers hold one worker, so the other takes what comes after them (one may stand in its line)."""
    sleepers = [program(f"s{i}", NAP.format(0.5)) for i in range(12)]
    quick = [program(f"q{i}", f"{ADD}# {i}") for i in range(3)]
    order = [verdict.id for verdict in executor.run([*sleepers, *quick])]
    assert {name[0] for name in order[:2]} == {"q"}
    assert len(order) == 15


def test_waiting_duplicates_are_bounded(executor: Executor) -> None:
    taken = 0

    def endless() -> Iterator[Program]:
        nonlocal taken
        for taken in count(1):
            yield program(taken, NAP.format(0.2))

    verdicts = executor.run(endless())
    next(verdicts)
    assert taken <= WORKERS * AHEAD_PER_WORKER
    for handed, _ in zip(range(2, 500), verdicts, strict=False):  # all of the same run: the first is remembered
        assert taken <= handed + WORKERS * AHEAD_PER_WORKER
    verdicts.close()  # type: ignore[attr-defined]


def test_a_killed_worker_costs_duplicates_nothing(executor: Executor) -> None:
    before = executor.counts.ran
    verdicts = executor.run([program("first"), *[program(i, NAP.format(0.5)) for i in range(10)]])
    assert next(verdicts).id == "first"
    for slot in executor._slots:
        os.kill(slot.worker._process.pid, signal.SIGKILL)
    rest = list(verdicts)
    assert sorted(int(v.id) for v in rest) == list(range(10))
    assert {v.outcome for v in rest} == {Outcome.PASSED}
    assert executor.counts.ran - before == 2


def test_our_failure_is_not_shared(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three kills end the first program's tries; the equal ones behind it get tries of their own."""
    send, kills = Worker.send, iter(range(3))

    def doomed(worker: Worker, frame: bytes) -> None:
        send(worker, frame)
        if next(kills, None) is not None:
            os.kill(worker._process.pid, signal.SIGKILL)

    monkeypatch.setattr(Worker, "send", doomed)
    number, verdicts = ran(executor, [program(i, NAP.format(0.2)) for i in range(4)])
    assert number == 2
    assert {v.id: v.outcome for v in verdicts} == {
        "0": Outcome.SANDBOX_ERROR,
        **dict.fromkeys("123", Outcome.PASSED),
    }


def test_leaving_early_while_duplicates_wait(executor: Executor) -> None:
    began = time.monotonic()
    sleepers = [program(i, NAP.format(99), limits={"wall_s": 99}) for i in range(20)]
    for verdict in executor.run([program("first"), *sleepers]):
        assert verdict.id == "first"
        break
    number, verdicts = ran(executor, [program("after")])
    assert (number, verdicts[0].outcome) == (1, Outcome.PASSED)
    assert time.monotonic() - began < 10


def test_an_error_of_the_source_is_the_callers(executor: Executor) -> None:
    def broken() -> Iterator[Program]:
        yield program(0)
        yield program(1, NAP.format(0.3))
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(executor.run(broken()))
    with pytest.raises(ValueError, match=r"program '7': .*not JSON serializable"):
        list(executor.run([program(7, calls=({"call": "f(1, 2)", "expected": {1}},))]))
    assert ran(executor, [program(0)])[1][0].outcome is Outcome.PASSED


def test_verdicts_in_the_order_of_the_programs(executor: Executor) -> None:
    naps = [program(i, NAP.format(0.3 if i % 7 == 0 else 0.01) + f"# {i}") for i in range(24)]
    assert [v.id for v in executor.run(naps, ordered=True)] == [str(i) for i in range(24)]
    assert [v.id for v in executor.run(naps)] != [str(i) for i in range(24)]  # or the test above shows nothing


def test_order_is_kept_through_kills_and_duplicates(executor: Executor) -> None:
    naps = [program(i, NAP.format(0.02) + f"# {i % 9}") for i in range(40)]
    names = []
    for verdict in executor.run(naps, ordered=True):
        names.append(verdict.id)
        assert verdict.outcome is Outcome.PASSED
        if verdict.id in ("2", "5"):
            os.kill(executor._slots[0].worker._process.pid, signal.SIGKILL)
    assert names == [str(i) for i in range(40)]


def test_order_looks_ahead_within_bounds(executor: Executor) -> None:
    taken = 0

    def programs() -> Iterator[Program]:
        nonlocal taken
        for taken in range(1, 151):
            yield program(taken, NAP.format(1.0) if taken == 1 else f"{ADD}# {taken}")

    for handed, _ in enumerate(executor.run(programs(), ordered=True), 1):
        assert taken < handed + WORKERS * AHEAD_PER_WORKER
    assert taken == 150
