"""Filters of stage 1: each reason by a candidate that deserves it, and good candidates that stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plum_core.execution import Executor
from plum_core.records import Program, TestSuite
from plum_core.testing.codet import Consensus, consensus
from plum_core.testing.filters import REASONS, Candidate, FilterConfig, filter_candidates
from plum_core.testing.filters.mutants import mutants
from plum_core.testing.filters.purity import impurity
from plum_core.testing.filters.source import parse
from plum_core.testing.filters.trivial import RAISES, trivial_programs

ADD = "def add(a, b):\n    return a + b\n"
SUMS = ("assert add(1, 2) == 3", "assert add(5, -2) == 3", "assert add('a', 'b') == 'ab'", "assert add(10, 20) == 30")
STACK = (
    "class Stack:\n"
    "    def __init__(self):\n        self.items = []\n"
    "    def push(self, x):\n        self.items.append(x)\n        return len(self.items)\n"
    "    def pop(self):\n        return self.items.pop()\n"
)


def on(values: str, entry: str = "f") -> tuple[str, ...]:
    """Tests ``f(1) == 1`` from '1=1 2=2'."""
    return tuple(f"assert {entry}({left}) == {right}" for left, right in (v.split("=") for v in values.split()))


@pytest.fixture(scope="module")
def executors() -> Iterator[tuple[Executor, Executor]]:
    with Executor(workers=1) as here, Executor(workers=1, hash_seed=1) as elsewhere:
        yield here, elsewhere


def judge(executors: tuple[Executor, Executor], *candidates: Candidate, **changes: object) -> list[TestSuite]:
    config = replace(FilterConfig(), **changes)  # type: ignore[arg-type]
    return list(filter_candidates(candidates, *executors, config, seed=0))


CASES = {
    "no-reference": ("no Python at all", "f", on("1=1 2=2 3=3")),
    "no-entry-point": (ADD, "plus", on("1=1 2=2 3=3", "plus")),
    "no-tests": (ADD, "add", ()),
    "few-tests": (ADD, "add", ("assert add(1, 2) == 3", "assert add(1,  2)==3", "assert add( 1, 2) == 3", "assert 1")),
    "impure": ("import os\ndef f(x):\n    return os.getpid() * 0 + x\n", "f", on("1=1 2=2 3=3")),
    "reference-fails": ("def f(x):\n    while x: pass\n", "f", on("1=1 2=2 3=3")),
    "inconsistent": (ADD, "add", (*SUMS, "assert add(2, 2) == 5")),
    "flaky": ("def f(n):\n    return list({str(i) for i in range(n)})\n", "f", ("f(20)", "f(30)", "f(40)")),
    "vacuous": (ADD, "add", tuple(f"assert add(1, {n}) is not None or True" for n in range(5))),
    "trivial": ("def f(x):\n    return 7\n", "f", on("1=7 2=7 3=7")),
    "weak": (  # nothing in it can be mutated, so nothing is known of its tests
        "def f(x):\n    yield x\n    yield x\n",
        "f",
        tuple(f"assert list(f({n})) == [{n}, {n}]" for n in range(3)),
    ),
    "unattested": (
        "def f(p):\n    return p.x\n",
        "f",
        tuple(f"class P:\n    x = {n}\nassert f(P()) == {n}" for n in range(3)),
    ),
}


@pytest.mark.parametrize("why", CASES)
def test_each_reason(why: str, executors: tuple[Executor, Executor]) -> None:
    reference, entry, tests = CASES[why]
    if why == "flaky":  # what the reference answers under the first hash seed alone
        program = Program(id="", code=reference, calls=tuple({"call": call} for call in tests))
        (verdict,) = executors[0].run([program])
        tests = tuple(f"assert {call} == {value}" for call, value in zip(tests, verdict.extra["values"], strict=True))
    (suite,) = judge(executors, Candidate(instruction_id="i", reference=reference, tests=tests, entry_point=entry))
    assert (suite.kept, suite.why) == (False, why) and why in REASONS
    assert suite.tests == () and suite.reference is None


def test_every_reason_has_a_case() -> None:
    assert CASES.keys() | {"no-answer", "disagreement"} == REASONS.keys()


def test_good_ones_stay_with_their_strength(executors: tuple[Executor, Executor]) -> None:
    pushes = tuple(f"s = Stack()\ns.push({n})\nassert s.push(0) == 2 and s.pop() == 0" for n in range(3))
    clamp = "def clamp(x, low=0, high=10):\n    if x < low:\n        return low\n    return high if x > high else x\n"
    thorough = ("assert clamp(-1) == 0", "assert clamp(11) == 10", "assert clamp(5) == 5", "assert clamp(7, 8, 9) == 8")
    add, stack, strong, lax = judge(
        executors,
        Candidate(instruction_id="add", reference=ADD, tests=SUMS, entry_point="add"),
        Candidate(instruction_id="stack", reference=STACK, tests=pushes, entry_point="Stack"),
        Candidate(instruction_id="strong", reference=clamp, tests=thorough, entry_point="clamp"),
        Candidate(instruction_id="lax", reference=clamp, tests=on("5=5 6=6 -3=0", "clamp"), entry_point="clamp"),
    )
    assert add.kept and add.tests == SUMS and add.extra["strength"] == 1.0
    assert stack.kept and stack.tests == pushes
    assert strong.kept and lax.kept and strong.extra["strength"] > lax.extra["strength"] > 0
    (asked,) = judge(
        executors,
        Candidate(instruction_id="lax", reference=clamp, tests=on("5=5 6=6 -3=0", "clamp"), entry_point="clamp"),
        least_strength=strong.extra["strength"],
    )
    assert asked.why == "weak"


def test_single_tests_are_dropped_and_counted(executors: tuple[Executor, Executor]) -> None:
    extra = ("assert add(7, 7)", "assert add(1,2) == 3", "assert True", "assert add(8, 9) == add(8, 9)", "assert (")
    candidate = Candidate(
        instruction_id="i", reference=ADD, tests=(*SUMS, *extra, "assert add(2, 2) == 5"), entry_point="add"
    )
    (suite,) = judge(executors, candidate, wrong_tests="drop")
    assert suite.kept and suite.tests == (*SUMS, "assert add(7, 7)")
    assert suite.extra["dropped"] == {"calls-nothing": 1, "duplicate": 1, "unreadable": 1, "vacuous": 1, "wrong": 1}


def test_the_batch_does_not_matter(executors: tuple[Executor, Executor]) -> None:
    good = Candidate(instruction_id="add", reference=ADD, tests=SUMS, entry_point="add")
    bad = Candidate(instruction_id="bad", why="no-tests")
    alone = judge(executors, good)
    assert judge(executors, bad, good, bad)[1:2] == alone
    assert judge(executors, bad) == [TestSuite(instruction_id="bad", kept=False, why="no-tests")]


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import time as t\nt.time()", "time.time"),
        ("from datetime import datetime\ndatetime.now()", "datetime.datetime.now"),
        ("import datetime\ndatetime.date(2020, 1, 1).isoformat()", ""),
        ("import random\nrandom.choice([1])", "random.choice"),
        ("import random\nrandom.seed(1)\nrandom.choice([1])", ""),
        ("import os\nos.path.join('a', 'b')", ""),
        ("import os.path\nos.path.exists('a')", "os.path.exists"),
        ("from pathlib import Path\nPath('a').read_text()", "a .read_text"),
        ("open('a')", "open"),
        ("def open(x): pass", ""),
        ("import sys\nsys.maxsize", ""),
        ("import sys\nsys.stdin.read()", "sys.stdin.read"),
        ("from subprocess import run\nrun('ls')", "subprocess"),
        ("import uuid\nuuid.UUID('a')", ""),
        ("import numpy as np\nnp.random.rand(3)", "numpy.random.rand"),
        ("x.open()", ""),
    ],
)
def test_purity(source: str, what: str) -> None:
    tree = parse(source)
    assert tree is not None and impurity(tree) == what


def test_trivial_programs_keep_what_is_around() -> None:
    programs = trivial_programs("K = 1\n" + STACK, "Stack", ["assert Stack().push(3) == 17"])
    assert "raise NotImplementedError" in programs[RAISES] and "self.items = []" in programs[RAISES]
    assert "return 17" in programs["returns 17"] and "return x" in programs["returns argument 1"]
    assert all(code.startswith("K = 1") for code in programs.values())
    assert trivial_programs("x = 1", "f", []) == {}


def test_mutants_differ_and_are_drawn_by_their_coordinates() -> None:
    loop = "    y = 1\n    while x > 2 and y:\n        x -= 1\n    return [sorted(x), -y]\n"
    code = 'def f(x: int = 3):\n    """Words."""\n' + loop
    every = mutants(code, 100, 0, "i")
    assert len(every) == len(set(every)) >= 12 and code not in every
    assert all('"""Words."""' in m and "x: int" in m for m in every)
    assert mutants(code, 5, 0, "i") == every[:5] and mutants(code, 5, 0, "j") != every[:5]
    assert mutants("def f(", 5, 0, "i") == []
    for text in ("x >= 2", "or y", "not", "return None", "x, -y]", "y = 2", "        pass", "sorted(x), y]"):
        assert any(text in m for m in every), text


def test_consensus_of_solutions_and_tests() -> None:
    """By hand: two solutions that share three tests (6) against three that share one (3) and one with four (4)."""
    rows = ["1110", "1110", "1000", "1000", "1000", "1111", "0000"]
    found = consensus([[c == "1" for c in row] for row in rows])
    assert found == Consensus(solutions=(0, 1), tests=(0, 1, 2), share=2 / 7, score=6, second=4)
    assert consensus([[False, False]]) is None and consensus([]) is None
    with pytest.raises(ValueError, match="every solution must have a verdict on every test"):
        consensus([[True], [True, False]])


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), max_size=6)))
def test_consensus_is_the_best_set(matrix: list[list[bool]]) -> None:
    found = consensus(matrix)
    scores = [sum(row) * matrix.count(row) for row in matrix]
    assert (found.score if found else 0) == max(scores, default=0)
    if found:
        assert all([n for n, right in enumerate(matrix[s]) if right] == list(found.tests) for s in found.solutions)
