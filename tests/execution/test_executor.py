"""The executor from outside: verdicts, order, limits, faults of ours, refusal."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from plum_core.execution import Executor, Limits, SandboxUnavailable
from plum_core.execution.workers import Worker
from plum_core.records.types import Outcome, Program, Verdict

ADD = "def f(a, b):\n    return a + b\n"
BURN = """import time
def f(a, b):
    end = time.process_time() + {}
    while time.process_time() < end: pass
    return a + b
"""
TESTS = ("assert f(1, 2) == 3", "assert f(2, 2) == 4")


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(workers=2, limits=Limits(cpu_s=0.5, wall_s=0.5)) as made:
        yield made


def one(executor: Executor, code: str = ADD, tests: tuple[str, ...] = TESTS, **fields: object) -> Verdict:
    return next(iter([*executor.run([Program(id="0", code=code, tests=tests, **fields)])]))  # type: ignore[arg-type]


def test_passed(executor: Executor) -> None:
    verdict = one(executor)
    assert (verdict.outcome, verdict.passed, verdict.detail) == (Outcome.PASSED, (True, True), "")
    assert 0 < verdict.cpu_s < 0.5
    assert 1 < verdict.peak_mib < 200


@pytest.mark.parametrize(
    ("code", "outcome", "passed", "words"),
    [
        ("def f(a, b): return 3", Outcome.FAILED, (True, False), "assert f(2, 2) == 4: got 3"),
        ("def f(a, b): return b // (b - 1)", Outcome.FAILED, (False, False), "got 2"),
        ("def f(a, b): return 1 // 0", Outcome.ERROR, (False, False), "ZeroDivisionError"),
        ("1 // 0", Outcome.ERROR, (False, False), "ZeroDivisionError"),
        ("def f(", Outcome.ERROR, (False, False), "SyntaxError"),
        ("def g(): pass", Outcome.ERROR, (False, False), "NameError"),
        ("def f(a, b):\n    if a == 2:\n        while True: pass\n    return 3", Outcome.TIMEOUT, (True, False), "CPU"),
        ("def f(a, b):\n    import time\n    time.sleep(9)", Outcome.TIMEOUT, (False, False), "asleep"),
        ("def f(a, b): return [0] * 10 ** 10", Outcome.MEMORY, (False, False), "MemoryError"),
        ("import os\nos._exit(0)", Outcome.EXIT, (False, False), "status 0"),
        ("import os\nos.abort()", Outcome.CRASH, (False, False), "SIGABRT"),
        ("import ctypes\nctypes.CDLL(None).ptrace(0, 0, 0, 0)", Outcome.VIOLATION, (False, False), "system call"),
        ("def f(a, b): return 'x' * 10 ** 7", Outcome.OUTPUT, (False, False), "output limit"),
    ],
)
def test_outcomes(executor: Executor, code: str, outcome: Outcome, passed: tuple[bool, ...], words: str) -> None:
    verdict = one(executor, code)
    assert (verdict.outcome, verdict.passed) == (outcome, passed)
    assert words in verdict.detail


def test_a_verdict_repeats_but_for_its_figures(executor: Executor) -> None:
    codes = [
        ADD,
        "def f(a, b): return object()",
        "def f(a, b): raise ValueError(object())",
        "def f(a, b): return {*'abc'}",
    ]
    codes.append("import random\ndef f(a, b): return random.random()")

    def facts(code: str) -> dict[str, object]:
        found = asdict(one(executor, code))
        return {key: value for key, value in found.items() if key not in ("wall_s", "cpu_s", "peak_mib")}

    for code in codes:
        assert facts(code) == facts(code)


def test_programs_without_tests_do_not_pass(executor: Executor) -> None:
    assert one(executor, ADD, ()).outcome is Outcome.ERROR


def test_programs_do_not_see_each_other(executor: Executor) -> None:
    leave = "import builtins, sys\nbuiltins.mark = sys.mark = {}\n" + ADD
    look = "import builtins, sys\ndef f(a, b): return a + b if not hasattr(builtins, 'mark') else {}\n"
    codes = [code.format(i) for i in range(10) for code in (leave, look)]
    verdicts = list(executor.run(Program(id=c, code=c, tests=TESTS) for c in codes))
    assert len(verdicts) == 20
    assert {v.outcome for v in verdicts} == {Outcome.PASSED}


def test_limits_of_a_program_override_the_executors(executor: Executor) -> None:
    spin = BURN.format(0.35)
    assert one(executor, spin).outcome is Outcome.TIMEOUT
    assert one(executor, spin, limits={"cpu_s": 2.0}).outcome is Outcome.PASSED
    with pytest.raises(ValueError, match=r"program '0'.*unknown limit 'cpu'"):
        one(executor, limits={"cpu": 2.0})
    with pytest.raises(ValueError, match="cpu_s must be a number"):
        one(executor, limits={"cpu_s": -1})
    assert one(executor).outcome is Outcome.PASSED  # still usable


def test_input_is_read_no_faster_than_it_runs(executor: Executor) -> None:
    taken = 0

    def programs() -> Iterator[Program]:
        nonlocal taken
        for i in range(100):
            taken += 1
            yield Program(id=str(i), code=f"{ADD}# {i}", tests=TESTS)

    for done, _ in enumerate(executor.run(programs()), 1):
        assert taken <= done + 4
    assert taken == 100


def test_verdicts_come_as_programs_finish(executor: Executor) -> None:
    slow = Program(id="slow", code="import time\ntime.sleep(0.4)\n" + ADD, tests=TESTS)
    quick = [Program(id=str(i), code=ADD, tests=TESTS) for i in range(5)]
    order = [verdict.id for verdict in executor.run([slow, *quick])]
    assert order[-1] == "slow" or order.index("slow") > 0
    assert len(order) == 6


def test_leaving_early_cancels(executor: Executor) -> None:
    sleeper = Program(id="s", code="import time\ntime.sleep(99)", tests=TESTS, limits={"wall_s": 60})
    began = time.monotonic()
    for verdict in executor.run([Program(id="0", code=ADD, tests=TESTS), sleeper, sleeper]):
        assert verdict.id == "0"
        break
    assert time.monotonic() - began < 10
    assert one(executor).outcome is Outcome.PASSED


def test_a_worker_that_dies_is_replaced_and_its_program_run_again(executor: Executor) -> None:
    nap = "import time\ntime.sleep(0.02)\n" + ADD
    programs = [Program(id=str(i), code=f"{nap}# {i}", tests=TESTS) for i in range(20)]
    verdicts = []
    for verdict in executor.run(programs):
        verdicts.append(verdict)
        if len(verdicts) in (3, 9):
            os.kill(executor._slots[0].worker._process.pid, signal.SIGKILL)
    assert sorted(v.id for v in verdicts) == sorted(p.id for p in programs)
    assert {v.outcome for v in verdicts} == {Outcome.PASSED}


def test_our_own_failure_is_a_sandbox_error_after_three_tries(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def doomed(worker: Worker, frame: bytes) -> None:
        tries.append(frame)
        os.kill(worker._process.pid, signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "send", doomed)
        verdict = one(executor)
    assert verdict.outcome is Outcome.SANDBOX_ERROR
    assert verdict.passed == (False, False)
    assert len(tries) == 3
    assert len(set(tries)) == 1
    assert one(executor).outcome is Outcome.PASSED


@pytest.mark.parametrize("layer", ["no_new_privs", "seccomp", "rlimits", "landlock"])
def test_without_a_mandatory_layer_nothing_runs(layer: str) -> None:
    with pytest.raises(SandboxUnavailable, match=f"needs {layer}.*; (run|let)"):
        Executor(workers=1, simulate_missing=[layer])


def test_layers_are_reported(executor: Executor) -> None:
    assert executor.layers[:4] == ["no_new_privs", "seccomp", "rlimits", "landlock"]


def test_a_missing_interpreter_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot run the interpreter .*nothing: No such file"):
        Executor(workers=1, python=str(tmp_path / "nothing"))


def test_use_after_close_and_twice_at_once() -> None:
    executor = Executor(workers=1)
    first = executor.run([Program(id=str(i), code=f"{ADD}# {i}", tests=TESTS) for i in range(3)])
    next(first)
    with pytest.raises(ValueError, match="already iterating"):
        next(executor.run([]))
    executor.close()
    executor.close()
    with pytest.raises(ValueError, match="closed"):
        next(first)
    with pytest.raises(ValueError, match="closed"):
        next(executor.run([]))


@pytest.mark.parametrize("value", [0, -1, float("nan"), True, "2"])
def test_limits_are_checked(value: object) -> None:
    with pytest.raises(ValueError, match="cpu_s"):
        Limits(cpu_s=value)  # type: ignore[arg-type]


def test_a_program_with_honest_load_is_no_timeout_on_a_busy_machine() -> None:
    """Many more workers than processors, each burning half of its CPU limit: time in the queue must not count."""
    burn = BURN.format(0.1)
    with Executor(workers=8, limits=Limits(cpu_s=0.4, wall_s=0.3)) as busy:
        verdicts = list(busy.run(Program(id=str(i), code=burn, tests=TESTS) for i in range(24)))
    assert [v.outcome for v in verdicts] == [Outcome.PASSED] * 24


THREADS = {
    "pool": (
        "from concurrent.futures import ThreadPoolExecutor\ndef f(n):\n"
        "    with ThreadPoolExecutor(4) as pool: return sum(pool.map(lambda x: x * x, range(n)))",
        Outcome.PASSED,
    ),
    "bomb": (
        "import threading, time\nthreading.stack_size(32768)\ndef f(n):\n    while True:\n"
        "        try: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
        "        except RuntimeError: pass",
        Outcome.VIOLATION,
    ),
    "spin": (
        "import threading\ndef g():\n    while True: pass\ndef f(n):\n    threading.Thread(target=g).start()\n    g()",
        Outcome.TIMEOUT,
    ),
    "fork": ("import os\ndef f(n): return 14 if os.fork() == 0 else 0", Outcome.ERROR),
}


def test_threads_by_option() -> None:
    programs = [Program(id=name, code=code, tests=("assert f(4) == 14",)) for name, (code, _) in THREADS.items()]
    with Executor(workers=1, threads=8, limits=Limits(cpu_s=0.5)) as executor:
        found = {verdict.id: verdict.outcome for verdict in executor.run(programs)}
    assert found == {name: outcome for name, (_, outcome) in THREADS.items()}


def test_threads_are_refused_without_it(executor: Executor) -> None:
    assert one(executor, THREADS["pool"][0], ("assert f(4) == 14",)).outcome is Outcome.ERROR
    with pytest.raises(ValueError, match="threads must be 0"):
        Executor(workers=1, threads=-1)
