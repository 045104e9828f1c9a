"""Forms of tests, each against a right and a wrong program; stdin programs; calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from plum_core.execution import Executor, Limits
from plum_core.records.types import Outcome, Program, StdinTest, Verdict

CODE = """
class Node:
    def __init__(self, value):
        self.value, self.left, self.right = value, None, None

class Stack:
    def __init__(self): self.data = []
    def push(self, x): self.data.append(x)
    def pop(self): return self.data.pop()
    def __len__(self): return len(self.data)
    def __getitem__(self, i): return self.data[i]

class Solution:
    def double(self, x): return self.times(x, 2)
    def times(self, x, n): return x * n

def double(x): return x * 2
def height(node): return 0 if node is None else 1 + max(height(node.left), height(node.right))
def reverse(xs): xs.reverse()
def rows(m): m[0].append(1); m.append([2])
def itself(x, *rest): return x
def copied(xs): return list(xs)
def numbers(n): yield from range(n)
def apply(g, x): return g(x)
def positive(x):
    if x < 0: raise ValueError("negative value")
    return x
def build(v): return Node(v)
def check(x): return 4
def items(s): return list(s)
class Counter3:
    def __init__(self): self.n = 0
    def __iter__(self): return self
    def __next__(self): self.n += 1; return self.n
class Chain:
    def __init__(self, *xs): self.xs = list(xs)
    def insert(self, i, x): self.xs.insert(i, x)
    def __str__(self): return "->".join(map(str, self.xs))
def chain(*xs): return Chain(*xs)
def end(): raise EOFError
def day():
    import datetime
    return datetime.datetime(2024, 1, 2)
def table(n): return {i: str(i) for i in range(n)}
def array(n):
    import numpy
    return numpy.arange(n)
"""

# Of each pair the first test passes on CODE and the second does not.
PAIRS = {
    "same object": ("v = [1]\nassert itself(v) is v", "v = [1]\nassert copied(v) is v"),
    "another object": ("v = [1]\nassert copied(v) is not v", "v = [1]\nassert itself(v) is not v"),
    "same of two": ("a, b = [1], [1]\nassert itself(a, b) is a", "a, b = [1], [1]\nassert itself(b, a) is a"),
    "same function": ("def g(): pass\nassert itself(g) is g", "def g(): pass\nassert itself(g) is not g"),
    "class": ("s = Stack()\ns.push(3)\nassert s.pop() == 3 and len(s) == 0", "s = Stack()\nassert len(s) == 1"),
    "class_item": ("s = Stack()\ns.push(3)\nassert s[0] == 3", "s = Stack()\ns.push(3)\nassert s[0] == 4"),
    "tree": (
        "r = Node(1)\nr.left = Node(2)\nassert height(r) == 2",
        "r = Node(1)\nr.left = Node(2)\nassert height(r) == 1",
    ),
    "object_argument": ("assert height(Node(1)) == 1", "assert height(Node(1)) == 2"),
    "returned_object": ("assert build(5).value == 5", "assert build(5).value == 6"),
    "method": ("assert Solution().double(4) == 8", "assert Solution().double(4) == 9"),
    "check": (
        "def check(candidate):\n    assert candidate(2) == 4\ncheck(double)",
        "def check(candidate):\n    assert candidate(2) == 5\ncheck(double)",
    ),
    "check_method": (
        "def check(candidate):\n    assert candidate(x=2) == 4\ncheck(Solution().double)",
        "def check(candidate):\n    assert candidate(x=2) == 5\ncheck(Solution().double)",
    ),
    "check_of_its_own": (
        "def check(x):\n    assert x is double or True\ncheck(double)",
        "def check(candidate):\n    assert check(2) == 4\ncheck(double)",  # calls itself, not the program's check
    ),
    "set_order": ("assert items({12, 13, 14, 15, 16}) == list({12, 13, 14, 15, 16})", "assert items({1, 2}) == [2, 1]"),
    "in_place": ("x = [1, 2]\nreverse(x)\nassert x == [2, 1]", "x = [1, 2]\nreverse(x)\nassert x == [1, 2]"),
    "in_place_deep": ("x = [[0]]\nrows(x)\nassert x == [[0, 1], [2]]", "x = [[0]]\nrows(x)\nassert x == [[0]]"),
    "generator": ("assert list(numbers(3)) == [0, 1, 2]", "assert list(numbers(3)) == [0, 1]"),
    "generator_sum": ("assert sum(numbers(4)) == 6", "assert sum(numbers(4)) == 7"),
    "lambda": ("assert apply(lambda v: v + 1, 3) == 4", "assert apply(lambda v: v + 1, 3) == 3"),
    "callback": ("g = lambda v: double(v) + 1\nassert apply(g, 3) == 7", "g = lambda v: v\nassert apply(g, 3) == 7"),
    "callback_raises": (
        "def g(v):\n    raise KeyError(v)\ntry:\n    apply(g, 1)\n    assert False\nexcept KeyError:\n    pass",
        "def g(v):\n    raise KeyError(v)\napply(g, 1)",
    ),
    "builtin_callback": ("k = str.upper\nassert apply(k, 'a') == 'A'", "k = str.upper\nassert apply(k, 'a') == 'a'"),
    "raises": ("with pytest.raises(ValueError):\n    positive(-1)", "with pytest.raises(ValueError):\n    positive(1)"),
    "raises_match": (
        "with pytest.raises(ValueError, match='negative'):\n    positive(-1)",
        "with pytest.raises(ValueError, match='zero'):\n    positive(-1)",
    ),
    "raises_other": (
        "try:\n    positive(-1)\n    assert False\nexcept ValueError as e:\n    assert 'negative' in str(e)",
        "try:\n    positive(-1)\n    assert False\nexcept TypeError:\n    pass",
    ),
    "approx": ("assert double(0.1) == pytest.approx(0.2)", "assert double(0.1) == pytest.approx(0.3)"),
    "close": ("assert abs(double(0.1) - 0.2) < 1e-9", "assert abs(double(0.1) - 0.3) < 1e-9"),
    "isclose": ("assert math.isclose(double(0.1), 0.2)", "assert math.isclose(double(0.1), 0.3)"),
    "all": ("assert all(double(x) == 2 * x for x in range(5))", "assert all(double(x) == x for x in range(5))"),
    "loop": ("for i in range(3):\n    assert double(i) == 2 * i", "for i in range(3):\n    assert double(i) == i"),
    "function": ("def test_it():\n    assert double(2) == 4", "def test_it():\n    assert double(2) == 5"),
    "types": ("assert isinstance(double(2), int)", "assert isinstance(double(2), str)"),
    "chain": ("assert 3 < double(2) <= 4", "assert 3 < double(2) < 4"),
    "member": ("assert double(2) in (4, 5)", "assert double(2) not in (4, 5)"),
    "identity": ("assert double(1) is not None", "assert reverse([]) is not None"),
    "truth": ("assert double(1) and not double(0)", "assert double(0)"),
    "method_of_data": ("assert double('a').upper() == 'AA'", "assert double('a').islower() is False"),
    "dictionary": ("assert table(2) == {0: '0', 1: '1'}", "assert table(2) == {0: '0', 1: 1}"),
    "numpy": ("assert np.allclose(double(0.5), [1.0])", "assert np.allclose(double(0.5), [2.0])"),
    "array": ("assert list(array(3)) == [0, 1, 2]", "assert array(3) == [0, 1, 2]"),
    "array_sum": ("assert sum(array(4)) == 6", "assert sum(array(4)) == 7"),
    "generator_loop": (
        "found = [n for n in numbers(3)]\nassert found == [0, 1, 2]",
        "found = [n for n in numbers(3)]\nassert found == [0, 1]",
    ),
    "endless": (
        "it = iter(Counter3())\nassert [next(it), next(it)] == [1, 2]",
        "it = iter(Counter3())\nassert next(it) == 2",
    ),
    "object_changed": (
        "c = chain(1, 3)\nc.insert(1, 2)\nassert str(c) == '1->2->3'",
        "c = chain(1, 3)\nc.insert(1, 2)\nassert str(c) == '1->3'",
    ),
    "instance": (
        "n = build(1)\nassert isinstance(n, Node) and not isinstance(n, (Stack, int))",
        "n = build(1)\nassert isinstance(n, Stack)",
    ),
    "instance_of_data": (
        "n = double(1)\nassert isinstance(n, (Node, int)) and type(n) is int",
        "n = double(1)\nassert isinstance(n, Node)",
    ),
    "type": ("n = build(1)\nassert type(n) == Node", "n = build(1)\nassert type(n) == Stack"),
    "raises_eof": ("with pytest.raises(EOFError):\n    end()", "with pytest.raises(KeyError):\n    end()"),
    "datetime_class": (
        "x = day()\nassert x == datetime(2024, 1, 2)",
        "x = day()\nassert x == datetime(2024, 1, 3)",
    ),
    "datetime_module": (
        "x = day()\nassert x - datetime.datetime(2024, 1, 1) == datetime.timedelta(days=1)",
        "x = day()\nassert x == datetime.date(2024, 1, 2)",
    ),
    "bool_is_int": ("assert double(True) == 2", "assert double(True) is True"),
}


def run(programs: list[Program], **limits: float) -> dict[str, Verdict]:
    with Executor(workers=2, limits=Limits(**limits)) as executor:
        return {verdict.id: verdict for verdict in executor.run(programs)}


@pytest.fixture(scope="module")
def verdicts() -> Iterator[dict[str, Verdict]]:
    yield run([Program(id=name, code=CODE, tests=pair) for name, pair in PAIRS.items()])


@pytest.mark.parametrize("name", PAIRS)
def test_form(name: str, verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts[name]
    assert verdict.passed == (True, False), verdict.detail
    assert verdict.attested


def test_what_must_run_beside_the_program_is_marked() -> None:
    tests = {
        "eval": "assert eval('double(2)') == 4",
        "own class": "class Own:\n    left = right = None\nassert height(Own()) == 1",
        "wrong": "assert eval('double(2)') == 5",
    }
    found = run([Program(id=name, code=CODE, tests=(test,)) for name, test in tests.items()])
    assert {name: (v.outcome.value, v.attested) for name, v in found.items()} == {
        "eval": ("passed", False),
        "own class": ("passed", False),
        "wrong": ("failed", False),
    }


def test_code_that_raises_is_an_error_in_every_tier() -> None:
    tests = {"split": "assert f() == 1", "remote": "x = f()\nassert x == 1", "inline": "assert eval('f()') == 1"}
    found = run([Program(id=name, code="1/0\ndef f(): return 1", tests=(test,)) for name, test in tests.items()])
    assert {v.outcome.value for v in found.values()} == {"error"}
    assert all("ZeroDivisionError" in v.detail for v in found.values())


def test_setup_follows_the_code() -> None:
    program = Program(
        id="0", code=CODE, setup="root = Node(1)\nroot.left = Node(2)", tests=("assert height(root) == 2",)
    )
    assert run([program])["0"].passed == (True,)
    floor = "def f(x): return math.floor(x)"
    imports = Program(id="0", code=floor, setup="import math", tests=("assert f(1.5) == 1",))
    assert run([imports])["0"].passed == (True,)


STDIN = {
    "sum": ("print(sum(map(int, input().split())))", "1 2\n", "3\n", "passed"),
    "spaces": ("print('a  b ')\nprint()", "", "a b", "passed"),
    "exit": ("import sys\nprint(1)\nsys.exit(0)", "", "1", "passed"),
    "raw": ("import os\nos.write(1, os.read(0, os.fstat(0).st_size))", "x\ny\n", "x\ny", "passed"),
    "reopen": ("print(len(open(0).read()))", "abc", "3", "passed"),
    "main": ("if __name__ == '__main__':\n    print(1)", "", "1", "passed"),
    "hard_exit": ("import os\nprint(1, flush=True)\nos._exit(0)", "", "1", "passed"),
    "prefix": ("print(1)", "", "1\n2", "failed"),
    "more": ("print(1)\nprint(2)", "", "1", "failed"),
    "lines": ("print(1, 2)", "", "1\n2", "failed"),
    "words": ("print('passed')", "", "1", "failed"),
    "status": ("import sys\nprint(1)\nsys.exit(3)", "", "1", "exit"),
    "hard_status": ("import os\nprint(1, flush=True)\nos._exit(3)", "", "1", "exit"),
    "raises": ("print(1)\n1/0", "", "1", "error"),
    "no_input": ("input()", "", "1", "error"),
    "flood": ("while True: print('x' * 1000)", "", "1", "output"),
    "spin": ("while True: pass", "", "1", "timeout"),
    "sleep": ("import time\ntime.sleep(99)", "", "1", "timeout"),
    "channel": ("import os\nos.write(3, b'\\x02\\0\\0\\0[]')", "", "1", "violation"),
}


def test_programs_with_stdin() -> None:
    programs = [
        Program(id=name, code=code, stdin_tests=(StdinTest(input=given, output=due),))
        for name, (code, given, due, _) in STDIN.items()
    ]
    found = run(programs, cpu_s=0.5, wall_s=0.5, output_kib=256)
    assert {name: v.outcome.value for name, v in found.items()} == {name: row[3] for name, row in STDIN.items()}


def test_each_stdin_test_has_its_own_process() -> None:
    tests = tuple(StdinTest(input=f"{i}\n", output=str(i * i)) for i in range(3))
    program = Program(id="0", code="print(int(input()) ** 2)", stdin_tests=(*tests, StdinTest(input="2", output="5")))
    assert run([program])["0"].passed == (True, True, True, False)


def test_calls() -> None:
    calls: tuple[dict[str, Any], ...] = (
        {"call": "f(1, 2)", "expected": [1, 2]},
        {"call": "f(1, [2])", "expected": [1, [3]]},
    )
    verdict = run([Program(id="0", code="def f(a, b): return (a, b)", calls=calls)])["0"]
    assert verdict.passed == (True, False)
    assert verdict.outcome is Outcome.FAILED
