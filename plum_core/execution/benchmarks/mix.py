"""A seeded mix of benign and hostile programs, each of which knows its right verdict from its construction.

Case ``index`` of ``seed`` is the same program whichever cases were drawn before it, and no two cases answer alike:
a verdict that goes to the wrong program shows. Limits are small, so that a hostile program costs milliseconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from plum_core.records.types import Outcome, Program, StdinTest, Verdict

LIMITS = {"cpu_s": 1.0, "wall_s": 5.0, "memory_mib": 512.0, "output_kib": 256.0}
SPIN_CPU_S, SLEEP_WALL_S = 0.03, 0.1
MARK = "plum-mix"  # in the name of every file that a program tries to leave
WRITES_OF_HOSTILE = (f"/tmp/{MARK}", f"/dev/shm/{MARK}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One program, the only right outcome, and, where it is known, what each test must have said."""

    index: int
    kind: str
    program: Program
    outcome: Outcome
    passed: tuple[bool, ...]
    values: list[str] = field(default_factory=list)  # literals of the calls that ask for theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a maker below decides; ``passed`` is given where the tests differ from each other."""

    code: str
    tests: tuple[str, ...] = ()
    outcome: Outcome = Outcome.PASSED
    passed: tuple[bool, ...] | None = None
    limits: dict[str, float] = field(default_factory=dict)
    stdin_tests: tuple[StdinTest, ...] = ()
    calls: tuple[dict[str, Any], ...] = ()
    values: list[str] = field(default_factory=list)


Maker = Callable[[random.Random, int], Made]
ASK = ("assert f(1, 2) == 3", "assert f(2, 2) == 4")


def difference(case: Case, verdict: Verdict, *, killed: bool = False) -> str:
    """What is wrong with a verdict, in words; empty when nothing is.

    ``killed``: processes of ours are killed meanwhile, so that ``sandbox_error`` is an honest answer.
    """
    if killed and verdict.outcome is Outcome.SANDBOX_ERROR:
        return ""
    got = (verdict.outcome.value, verdict.passed, verdict.extra.get("values", []))
    due = (case.outcome.value, case.passed, case.values)
    if got != due:
        return f"{case.kind}: got {got}, due {due}: {verdict.detail}"
    return "" if verdict.attested else f"{case.kind}: not attested"


def _right(code: str, tests: Sequence[str] = ASK) -> Maker:
    """An honest program whose tests pass."""
    return lambda draw, k: Made(code=code, tests=tuple(tests))


def _body(act: str, outcome: Outcome, limits: dict[str, float] | None = None) -> Maker:
    """A function that does ``act`` before its first answer; no test of it may pass."""
    return lambda draw, k: Made(
        code=f"import os, sys\ndef f(a, b):\n    {act}\n    return a + b + {k} - {k}\n",
        tests=ASK,
        outcome=outcome,
        passed=(False, False),
        limits=limits or {},
    )


def _blocked(act: str) -> Maker:
    """``act`` has to raise OSError; the program then answers rightly, so a pass says that the act was refused."""
    code = f"import os\ndef f(a, b):\n    try: {act}\n    except OSError: return a + b\n    return 'leak'\n"
    return _right(code)


def _split(draw: random.Random, k: int) -> Made:
    """Three asserts, each right or wrong by a draw of its own."""
    passed = tuple(draw.random() < 0.7 for _ in range(3))
    tests = [f"assert f({n}, {k}) == {n * k + k + (not right)}" for n, right in enumerate(passed)]
    code = f"def f(a, b):\n    return sum(b for _ in range(a)) + {k}\n"
    outcome = Outcome.PASSED if all(passed) else Outcome.FAILED
    return Made(code=code, tests=tuple(tests), outcome=outcome, passed=passed)


def _remote(draw: random.Random, k: int) -> Made:
    """Tests with loops and objects, which a second child carries out."""
    code = (
        f"class Pile:\n    def __init__(self): self.all = [{k}]\n    def push(self, x): self.all.append(x)\n"
        "    def total(self): return sum(self.all)\n"
    )
    passed = tuple(draw.random() < 0.7 for _ in range(2))
    tests = [
        f"p = Pile()\nfor i in range({n}):\n    p.push(i)\nassert p.total() == {k + sum(range(n)) + (not right)}"
        for n, right in enumerate(passed, 2)
    ]
    outcome = Outcome.PASSED if all(passed) else Outcome.FAILED
    return Made(code=code, tests=tuple(tests), outcome=outcome, passed=passed)


def _stdin(draw: random.Random, k: int) -> Made:
    passed = tuple(draw.random() < 0.7 for _ in range(2))
    tests = [StdinTest(input=f"{n} {k}\n", output=f"{n * k + (not right)}\n") for n, right in enumerate(passed, 2)]
    code = "a, b = map(int, input().split())\nprint(a * b)\n"
    outcome = Outcome.PASSED if all(passed) else Outcome.FAILED
    return Made(code=code, stdin_tests=tuple(tests), outcome=outcome, passed=passed)


def _calls(draw: random.Random, k: int) -> Made:
    right = draw.random() < 0.7
    calls = ({"call": f"f({k})", "expected": [k, 2 * k + (not right)]}, {"call": f"f({k + 1})"})
    return Made(
        code="def f(n): return [n, n + n]\n",
        calls=calls,
        outcome=Outcome.PASSED if right else Outcome.FAILED,
        passed=(right, True),
        values=[f"[{k + 1}, {2 * k + 2}]"],
    )


def _numpy(draw: random.Random, k: int) -> Made:
    code = f"import numpy as np\ndef f(n): return int(np.arange(n).sum()) + {k}\n"
    return Made(code=code, tests=(f"assert f(10) == {45 + k}", f"assert f(3) == {3 + k}"))


def _raises(draw: random.Random, k: int) -> Made:
    code = f"def f(a, b):\n    if b == 7: raise ValueError({k})\n    return a + b\n"
    tests = (ASK[0], f"assert f({k}, 7) == {k + 7}")
    return Made(code=code, tests=tests, outcome=Outcome.ERROR, passed=(True, False))


def _burn(draw: random.Random, k: int) -> Made:
    """Honest work of 5 to 20 ms: long enough to be struck by what happens meanwhile."""
    code = (
        f"import time\ndef f(a, b):\n    end = time.process_time() + {draw.uniform(0.005, 0.02):.4f}\n"
        "    while time.process_time() < end: pass\n    return a + b\n"
    )
    return Made(code=code, tests=(ASK[0],))


SPIN = {"cpu_s": SPIN_CPU_S}
NUMPY = 2 if find_spec("numpy") else 0

# Kind to weight and maker. Weights of what costs its whole limit are small.
BENIGN: dict[str, tuple[int, Maker]] = {
    "split": (30, _split),
    "remote": (8, _remote),
    "stdin": (8, _stdin),
    "calls": (8, _calls),
    "numpy": (NUMPY, _numpy),
    "raises": (6, _raises),
    "burn": (2, _burn),
    "prints": (3, _right("def f(a, b):\n    print('y' * 50000)\n    return a + b\n")),
    "dataclass": (
        3,
        _right("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(a, b): return P(a).x + b\n"),
    ),
}
HOSTILE: dict[str, tuple[int, Maker]] = {
    "big_object": (3, _body("bytearray(1 << 40)", Outcome.MEMORY)),
    "small_objects": (1, _body("while True: a = [a, [None] * 9999]", Outcome.MEMORY, {"memory_mib": 96})),
    "long_answer": (3, _body("return 'x' * 10**6", Outcome.OUTPUT)),
    "spin": (2, _body("while True: pass", Outcome.TIMEOUT, SPIN)),
    "print_flood": (1, _body("while True: print('x' * 9999)", Outcome.TIMEOUT, SPIN)),
    "sleep": (1, _body("__import__('time').sleep(99)", Outcome.TIMEOUT, {"wall_s": SLEEP_WALL_S})),
    "fork": (3, _body("os.fork()", Outcome.ERROR)),
    "fork_quietly": (3, _blocked("os.fork()")),
    "write_tmp": (3, _blocked(f"open({WRITES_OF_HOSTILE[0]!r}, 'w')")),
    "write_shm": (3, _blocked(f"open({WRITES_OF_HOSTILE[1]!r}, 'w')")),
    "read": (3, _blocked("open('/etc/passwd').read()")),
    "socket": (3, _blocked("__import__('socket').socket()")),
    "kill_zygote": (3, _blocked("os.kill(os.getppid(), 9)")),
    "descriptors": (2, _blocked("[os.dup(0) for _ in range(9999)]")),
    "sys_exit": (3, _body("sys.exit(0)", Outcome.EXIT)),
    "os_exit": (3, _body("os._exit(0)", Outcome.EXIT)),
    "segfault": (3, _body("__import__('ctypes').string_at(0)", Outcome.CRASH)),
    "ptrace": (3, _body("__import__('ctypes').CDLL(None).ptrace(0, 0, 0, 0)", Outcome.VIOLATION)),
    "garbage": (3, _body(r"os.write(3, b'\4\0\0\0\xff\xfe{[')", Outcome.VIOLATION)),
    "long_header": (3, _body(r"os.write(3, b'\xff' * 4)", Outcome.VIOLATION)),
    "wire_flood": (2, _body(r"while True: os.write(3, b'\2\0\0\0[]' * 1000)", Outcome.VIOLATION)),
    "closed": (3, _body("os.closerange(0, 99)", Outcome.EXIT)),
    "equal_to_all": (
        3,
        lambda draw, k: Made(
            code="class E:\n    def __eq__(self, other): return True\ndef f(a, b): return E()\n",
            tests=ASK,
            outcome=Outcome.FAILED,
            passed=(False, False),
        ),
    ),
    "stdin_flood": (
        1,
        lambda draw, k: Made(
            code="while True: print('x' * 9999)\n",
            stdin_tests=(StdinTest(input="", output=str(k)),),
            outcome=Outcome.OUTPUT,
            passed=(False,),
        ),
    ),
}
ALL = {**BENIGN, **HOSTILE}


def make_case(seed: int, index: int, kinds: dict[str, tuple[int, Maker]] = ALL) -> Case:
    """Case ``index``. The first ones go through all kinds in turn, so that a short mix holds each of them."""
    draw = random.Random(f"{seed} {index}")
    present = [name for name, (weight, _) in kinds.items() if weight]
    weights = [kinds[name][0] for name in present]
    kind = present[index] if index < len(present) else draw.choices(present, weights)[0]
    made = kinds[kind][1](draw, index + 1)
    count = len(made.tests) + len(made.calls) + len(made.stdin_tests)
    program = Program(
        id=f"{seed}:{index}",
        code=made.code,
        tests=made.tests,
        stdin_tests=made.stdin_tests,
        calls=made.calls,
        limits={**LIMITS, **made.limits},
    )
    passed = made.passed if made.passed is not None else (True,) * count
    return Case(index=index, kind=kind, program=program, outcome=made.outcome, passed=passed, values=made.values)
