"""Strategies of hypothesis for programs, values, messages and tests, each with what the verdict must not be.

A ``Shot`` says it all as data, so that a failure can be written down and fired again. A value that a program must not
know is a hash of the program's own text.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from hypothesis import strategies as st

from plum_core.execution import Executor
from plum_core.execution.benchmarks import fuzz_objects, fuzz_values
from plum_core.execution.benchmarks.fuzz_shots import Shot, secret
from plum_core.execution.benchmarks.fuzz_wire import wires
from plum_core.records.types import Outcome, Verdict

SLOW_S = 30.0
SEEDS = (
    "def f(a, b=0):\n    return a + b\n",
    "class f:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return True\n",
    "def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\n",
    "import sys\ndef f(x):\n    sys.setrecursionlimit(10 ** 6)\n    return f(x)\n",
    "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(x): return [P(x), {x: (x,)}, {x}]\n",
    "async def g(x): return x\nimport asyncio\ndef f(x): return asyncio.run(g(x))\n",
    "def f(x):\n    match x:\n        case [a, *b] | {'k': (a, b)}: return b\n        case _: yield x\n",
    "f = lambda *a, **k: (y := [*a, *k])\n",
    "import ctypes, os, signal\ndef f(x):\n    os.kill(os.getpid(), signal.SIGSEGV)\n",
    "try:\n    f = open('/proc/self/mem', 'rb').read\nexcept BaseException as e:\n    def f(x, e=e): raise e\n",
    "def f(x):\n    try: return 1\n    finally: raise SystemExit(f'{x!r:>{10}}')\n",
    "import gc, sys\ndef f(x): return [o for o in gc.get_objects() if type(o) is int]\n",
)
TOKENS = (
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ":",
        ",",
        ";",
        "=",
        "==",
        ":=",
        "*",
        "**",
        "@",
        "->",
        "\\",
        "\n",
        "\n    ",
        "\t",
        "#",
    ),
    *(
        "'",
        '"',
        "'''",
        "f'{",
        "}'",
        "b'",
        "r'",
        "0x",
        "1e999",
        "1_0",
        "0o9",
        "9" * 50,
        "j",
        "...",
        "\0",
        "\ud800",
        "\ufeff",
    ),
    *("lambda", "yield", "await", "async", "def", "class", "return", "match", "case", "global", "nonlocal", "del"),
    *("import", "from", "try", "except*", "finally", "with", "while", "True", "None", "__debug__", "print", "eval"),
    *(
        "__import__('os')._exit(0)",
        "while 1: pass\n",
        "raise KeyError\n",
        "sys._getframe()",
        "x.__class__",
        "\U0001d41f",
        "é",
    ),
)
COOKIES = (
    "utf-7",
    "utf-8",
    "utf-16",
    "latin-1",
    "rot13",
    "punycode",
    "idna",
    "hex",
    "unicode_escape",
    "undefined",
    "nope",
)
REPEATED = (
    "(",
    "[",
    "{",
    "lambda:",
    "not ",
    "-",
    "~",
    "f(",
    "a.",
    "x[",
    "'x' ",
    "if 1:\n",
    "1+",
    "a=",
    "@f\n",
    "await ",
)


def _mutated(text: str, cuts: list[tuple[float, float, str]]) -> str:
    for at, to, put in cuts:
        low, high = sorted((int(at * len(text)), int(to * len(text))))
        text = text[:low] + put + text[min(high, low + 12) :]
    return text


def mutations(seeds: Sequence[str]) -> st.SearchStrategy[str]:
    """Seeds with pieces cut out and others put in."""
    share = st.floats(0, 1)
    cut = st.tuples(share, share, st.sampled_from(TOKENS) | st.text(max_size=3) | st.sampled_from(seeds))
    return st.builds(_mutated, st.sampled_from(seeds), st.lists(cut, max_size=4))


def _wild() -> st.SearchStrategy[str]:
    counts = st.sampled_from((3, 90, 199, 1500, 20_000, 200_000))
    nested = st.builds(
        lambda part, n, end: part * n + end, st.sampled_from(REPEATED), counts, st.sampled_from(("", "1", ")"))
    )
    literal = st.builds(
        lambda head, digit, n: f"x = {head}{digit * n}\n",
        st.sampled_from(("", "0x", "-", "1.", "'", "b'", "1e")),
        st.sampled_from("09fa"),
        counts,
    )
    cookie = st.builds(
        lambda name, text: f"# -*- coding: {name} -*-\n{text}", st.sampled_from(COOKIES), mutations(SEEDS)
    )
    noise = st.binary(max_size=60).map(lambda raw: raw.decode("latin-1"))
    lone = st.text(st.characters(), max_size=40)
    return nested | literal | cookie | noise | lone | st.lists(st.sampled_from(TOKENS), max_size=25).map(" ".join)


def _source_shot(code: str, form: int) -> Shot:
    known = secret(code)
    tests = (
        f"assert f(1) == {known}",
        f"x = f(1)\nassert x == {known}",
        f"def check(candidate):\n    assert candidate(1) in ({known},)\ncheck(f)",
        f"for i in range(2):\n    assert {known} == f(i)",
    )
    return Shot("source", code, tests[form : form + 1])


sources: st.SearchStrategy[Shot] = st.builds(
    _source_shot, mutations(SEEDS) | _wild() | st.builds(str.__add__, mutations(SEEDS), _wild()), st.integers(0, 3)
)

TEST_SEEDS = (
    "assert f(1) == 1",
    "x = f([1])\nassert x == [1] and len(x) == 1",
    "assert all(f(i) == i for i in range(3))",
    "with pytest.raises(ValueError):\n    f(1)",
    "def check(candidate):\n    assert candidate(1) == 1\ncheck(f)",
    "def test_f():\n    assert f('a').upper() == 'A'",
    "assert abs(f(1.5) - 1.5) < 1e-6 and f({1, 2}) == {1, 2}",
    "g = lambda v: f(v)\nassert f(g) is g",
    "class C:\n    pass\nassert isinstance(f(C()), C)",
    "assert f(10 ** 10 ** 10) == 1 << 10 ** 9",
    "assert f(1) == sum(range(10 ** 12)) or 'a' * 10 ** 12",
    "assert [[0] * 1000] * 1000 == f(1) and f(1)[::-1] or {**f(1)}",
    "while True:\n    f(1)",
    "import os\nos._exit(0)",
    "exec('raise SystemExit')",
    "try:\n    f(1)\nexcept BaseException as e:\n    raise type(e) from None",
    "assert eval('f(1)') == 1",
    "assert (f(1) if f(1) else f(2)) == f(f(f(1))), f'{f(1)}'",
    "assert np.allclose(f([1.0]), [1.0])",
    "assert round(f(1.0), -10 ** 9) == Decimal('1e999999') % Fraction('1e9')",
)
_tests = mutations(TEST_SEEDS) | _wild() | st.builds("{}\n{}".format, mutations(TEST_SEEDS), mutations(TEST_SEEDS))
tests: st.SearchStrategy[Shot] = st.builds(
    lambda code, given, setup: Shot("tests", code, tuple(given), setup, may_pass=True),
    st.sampled_from(("def f(x, *a):\n    return x\n", *SEEDS)),
    st.lists(_tests, max_size=3),
    st.just("") | st.just("import math\n") | mutations(TEST_SEEDS),
)

values: st.SearchStrategy[Shot] = fuzz_values.plain.map(lambda given: Shot("values", *given))
objects: st.SearchStrategy[Shot] = fuzz_objects.odd_objects.map(
    lambda given: Shot("objects", given[0], tuple(form.format(S=secret(given[0])) for form in given[1]))
)
FAMILIES = {"source": sources, "values": values, "objects": objects, "wire": wires, "tests": tests}


def complaint(shot: Shot, verdict: Verdict) -> str:
    """What is wrong with the verdict; empty when nothing is."""
    if verdict.outcome is Outcome.SANDBOX_ERROR:
        return f"our failure: {verdict.detail}"
    if len(verdict.passed) != len(shot.tests):
        return f"{len(verdict.passed)} results for {len(shot.tests)} tests"
    passed = verdict.outcome is Outcome.PASSED
    if shot.wanted is not None and passed is not shot.wanted:
        return f"should {'' if shot.wanted else 'not '}pass: {verdict.outcome.value}, {verdict.detail}"
    if shot.wanted is None and not shot.may_pass and any(verdict.passed) and verdict.attested:
        return "a test passed whose value the program cannot know"
    return ""


def fire(executor: Executor, shots: Sequence[Shot]) -> list[tuple[Shot, str]]:
    """Run all shots; those that went wrong, with the reason. The workers must live through it."""
    pids = [slot.worker._process.pid for slot in executor._slots]
    began = time.monotonic()
    verdicts = {verdict.id: verdict for verdict in executor.run(shot.program(str(i)) for i, shot in enumerate(shots))}
    seconds = time.monotonic() - began
    wrong = []
    for i, shot in enumerate(shots):
        why = complaint(shot, verdicts[str(i)]) if str(i) in verdicts else "no verdict"
        wrong += [(shot, why)] if why else []
    if pids != [slot.worker._process.pid for slot in executor._slots]:
        wrong.append((shots[0], "a worker died on one of these"))
    if seconds > SLOW_S:
        wrong.append((shots[0], f"these took {seconds:.0f} s"))
    return wrong
