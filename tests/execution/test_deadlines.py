"""Deadlines of single tests: what passes its own does not take the others with it, and nobody can stretch one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from plum_core.execution import Executor, Limits
from plum_core.execution.cache import is_lasting
from plum_core.records.types import Outcome, Program, StdinTest, Verdict

CPU = {"cpu_s": 4.0, "test_cpu_s": 0.15}
WALL = {"wall_s": 4.0, "test_wall_s": 0.3}
BURN = "import time\ndef burn(s):\n    end = time.process_time() + s\n    while time.process_time() < end: pass\n"
SLOW_AT_TWO = BURN + "def f(x):\n    burn(9 if x == 2 else 0)\n    return x\n"
SLEEP_AT_TWO = "import time\ndef f(x):\n    time.sleep(9 if x == 2 else 0)\n    return x\n"
FOUR = tuple(f"assert f({x}) == {x}" for x in range(1, 5))

# How a hostile f lies about its progress: f(0) wants more time than a test has.
STRETCH = BURN + "import os, re\ndef f(x):\n    if x == 0:\n        %s\n    return x\n"
MARKS_EARLY = STRETCH % "\n        ".join(["for _ in range(4):", "    burn(0.1)", "    os.write(3, b'+')"])
ANSWERS_EARLY = BURN + (
    "import gc, os\n"
    "def f(x):\n"
    "    if x == 0:\n"
    "        (nonce,) = [o['n'] for o in gc.get_objects() if type(o) is dict and {'n', 'mode'} <= o.keys()]\n"
    "        burn(0.1)\n"
    '        os.write(4, b\'["%s",0,"v",7]\\n\' % nonce.encode())\n'
    "        os.write(3, b'+')\n"
    "        burn(0.1)\n"
    "        os.lseek(4, 0, 0)\n"
    "    return x\n"
)


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(workers=1, share=False) as made:
        yield made


def verdict(executor: Executor, code: str, tests: tuple[str, ...], limits: dict[str, float], **also: Any) -> Verdict:
    program = Program(id="0", code=code, tests=tests, limits=dict(limits), **also)
    (found,) = executor.run([program])
    return found


@pytest.mark.parametrize(
    ("code", "limits", "words"),
    [
        (SLOW_AT_TWO, CPU, "more than 0.15 CPU seconds in one test"),
        (SLEEP_AT_TWO, WALL, "asleep for more than 0.3 seconds in one test"),
    ],
    ids=["burns", "sleeps"],
)
def test_a_slow_test_fails_alone(executor: Executor, code: str, limits: dict[str, float], words: str) -> None:
    found = verdict(executor, code, FOUR, limits)
    assert found.passed == (True, False, True, True)
    assert found.outcome is Outcome.TIMEOUT
    assert words in found.detail
    assert found.attested


def test_without_a_deadline_the_program_has_one(executor: Executor) -> None:
    found = verdict(executor, SLOW_AT_TWO, FOUR, {"cpu_s": 0.2})
    assert found.passed == (True, False, False, False)
    assert "more than 0.2 CPU seconds" in found.detail
    assert "one test" not in found.detail


def test_time_is_counted_for_each_test_and_for_all(executor: Executor) -> None:
    code = BURN + "def f(x):\n    burn(0.09)\n    return x\n"
    assert verdict(executor, code, FOUR, CPU).passed == (True,) * 4
    slow = BURN + "def f(x):\n    burn(9)\n    return x\n"
    found = verdict(executor, slow, FOUR, {"cpu_s": 0.35, "test_cpu_s": 0.15})
    assert found.outcome is Outcome.TIMEOUT
    assert found.passed == (False,) * 4
    assert 0.3 <= found.cpu_s < 0.7


def test_each_assert_of_one_test_shares_its_deadline(executor: Executor) -> None:
    code = BURN + "def f(x):\n    burn(0.1)\n    return x\n"
    found = verdict(executor, code, ("assert f(1) == 1\nassert f(2) == 2\nassert f(3) == 3", "assert f(4) == 4"), CPU)
    assert found.passed == (False, True)


def test_loading_has_the_deadline_of_a_test(executor: Executor) -> None:
    found = verdict(executor, BURN + "burn(9)\ndef f(x): return x\n", FOUR, CPU)
    assert (found.outcome, found.passed) == (Outcome.TIMEOUT, (False,) * 4)
    assert found.cpu_s < 0.6


@pytest.mark.parametrize("code", [MARKS_EARLY, ANSWERS_EARLY], ids=["marks", "answers"])
def test_nobody_stretches_a_deadline(executor: Executor, code: str) -> None:
    tests = tuple(f"assert f({x}) == {x}" for x in range(4))
    found = verdict(executor, code, tests, {**CPU, "cpu_s": 1.0})
    assert not found.passed[0]
    assert found.outcome in (Outcome.VIOLATION, Outcome.TIMEOUT)


def test_calls_and_values(executor: Executor) -> None:
    calls = tuple({"call": f"f({x})"} for x in range(1, 4))
    found = verdict(executor, SLOW_AT_TWO, (), CPU, calls=calls)
    assert found.passed == (True, False, True)
    assert found.extra["values"] == ["1", None, "3"]


def test_remote_tests_have_deadlines(executor: Executor) -> None:
    loop = "for x in [{}]:\n    assert f(x) == x\n"
    found = verdict(executor, SLOW_AT_TWO, (loop.format(1), loop.format(2), loop.format(3)), CPU)
    assert found.passed == (True, False, False)
    assert "in one test" in found.detail
    endless = "i = 0\nwhile f(1): i += 1\n"
    assert "in one test" in verdict(executor, "def f(x): return x", (endless, loop.format(1)), CPU).detail
    mixed = verdict(executor, SLOW_AT_TWO, ("assert f(2) == 2", loop.format(1), "assert f(3) == 3"), CPU)
    assert mixed.passed == (False, True, True)


def test_inline_tests_have_deadlines(executor: Executor) -> None:
    found = verdict(executor, SLOW_AT_TWO, ("eval('f(1)')", "eval('f(2)')", "eval('f(3)')"), CPU)
    assert found.passed == (True, False, False)
    assert not found.attested


def test_stdin_tests_have_the_smaller_limit(executor: Executor) -> None:
    code = BURN + "n = int(input())\nburn(9 if n == 2 else 0)\nprint(n)\n"
    tests = tuple(StdinTest(input=f"{n}\n", output=f"{n}\n") for n in (1, 2, 3))
    found = verdict(executor, code, (), CPU, stdin_tests=tests)
    assert found.passed == (True, False, True)
    assert found.cpu_s < 0.6


def test_a_verdict_near_a_tests_deadline_does_not_last() -> None:
    failed = Verdict(id="0", outcome=Outcome.FAILED, passed=(False,), detail="", wall_s=0.1, cpu_s=0.1, peak_mib=1.0)
    assert is_lasting(failed, Limits())
    assert not is_lasting(failed, Limits(test_cpu_s=0.15))
    assert not is_lasting(failed, Limits(test_wall_s=0.15))
