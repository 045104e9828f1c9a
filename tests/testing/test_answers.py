"""Answers of a generator in every style, to a reference and tests that stand alone; broken ones to nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plum_core.execution import Executor
from plum_core.testing.answers import parse_answer, signature_of
from plum_core.testing.filters import REASONS, Candidate, FilterConfig, filter_candidates
from tests.testing.broken import answer, broken_answers, good_answers

HALF = "def half(x):\n    return x / 2"
NEAR = "def near(a, b):\n    return abs(a - b) < 1e-09\n"
FIRST = "x, y = (4, 2)\n"
QUICK = FilterConfig(reference_cpu_s=0.3, mutants=4)


@pytest.fixture(scope="module")
def executors() -> Iterator[tuple[Executor, Executor]]:
    with Executor(workers=1) as here, Executor(workers=1, hash_seed=1) as elsewhere:
        yield here, elsewhere


def test_no_broken_answer_is_kept(executors: tuple[Executor, Executor]) -> None:
    told = list(broken_answers())
    assert len(told) >= 200
    candidates = [parse_answer(f"{n} {kind}", text) for n, (kind, text) in enumerate(told)]
    suites = list(filter_candidates(candidates, *executors, QUICK, seed=0))
    assert [suite.instruction_id for suite in suites if suite.kept] == []
    assert {suite.why for suite in suites} <= REASONS.keys()


def test_all_good_answers_are_kept(executors: tuple[Executor, Executor]) -> None:
    candidates = [parse_answer(name, text) for name, text in good_answers()]
    suites = list(filter_candidates(candidates, *executors, QUICK, seed=0))
    assert [(s.instruction_id, s.why) for s in suites if not s.kept] == []
    assert all(len(suite.tests) == 5 and suite.extra["strength"] > 0 for suite in suites)


STYLES = {
    "asserts": ("assert half(4) == 2\nassert half(1) == 0.5", ["assert half(4) == 2", "assert half(1) == 0.5"]),
    "and": ("assert half(4) == 2 and half(2) == 1", ["assert half(4) == 2", "assert half(2) == 1"]),
    "main": (
        "if __name__ == '__main__':\n    print(half(3))\n    assert half(4) == 2\n    assert half(2) == 1",
        ["assert half(4) == 2", "assert half(2) == 1"],
    ),
    "setup": (
        "a = 4\nb = [6]\nassert half(a) == 2\nassert half(b[0]) == 3",
        ["a = 4\nassert half(a) == 2", "b = [6]\nassert half(b[0]) == 3"],
    ),
    "loop": (
        "for x, y in [(4, 2), (2, 1)]:\n    assert half(x) == y",
        [f"{FIRST}assert half(x) == y", "x, y = (2, 1)\nassert half(x) == y"],
    ),
    "a loop that jumps": (
        "for x in (4, 2):\n    if x == 4:\n        continue\n    assert half(x) == 1\nassert half(6) == 3",
        ["for x in (4, 2):\n    if x == 4:\n        continue\n    assert half(x) == 1", "assert half(6) == 3"],
    ),
    "subTest": (
        "class TestHalf(unittest.TestCase):\n    def test(self):\n        for x, y in [(4, 2), (2, 1)]:\n"
        "            with self.subTest(x=x):\n                self.assertEqual(half(x), y)",
        [f"{FIRST}assert half(x) == y", "x, y = (2, 1)\nassert half(x) == y"],
    ),
    "fixture": (
        "@pytest.fixture\ndef four():\n    x = 2\n    return x + 2\ndef test_a(four):\n    assert half(four) == 2\n"
        "def test_b(tmp_path):\n    assert half(8) == tmp_path\ndef test_c():\n    assert half(2) == 1",
        ["x = 2\nfour = x + 2\nassert half(four) == 2", "assert half(2) == 1"],
    ),
    "check": (
        "def check(f):\n    assert f(4) == 2\n    assert f(2) == 1\ncheck(half)",
        ["assert half(4) == 2", "assert half(2) == 1"],
    ),
    "unittest": (
        "import unittest\nclass TestHalf(unittest.TestCase):\n    def setUp(self):\n        self.x = 4\n"
        "    def test_a(self):\n        self.assertEqual(half(self.x), 2)\n        self.assertTrue(half(2))\n"
        "    def test_b(self):\n        with self.assertRaises(TypeError):\n            half('a')\n"
        "        self.assertAlmostEqual(half(1), 0.5, places=3)\n"
        "        self.assertRaises(TypeError, half, [])\n"
        "if __name__ == '__main__':\n    unittest.main()",
        [
            "self_x = 4\nassert half(self_x) == 2",
            "assert half(2)",
            "try:\n    half('a')\nexcept TypeError:\n    pass\nelse:\n    raise AssertionError('nothing was raised')",
            "assert round(half(1) - 0.5, 3) == 0",
            "try:\n    half([])\nexcept TypeError:\n    pass\nelse:\n    raise AssertionError('nothing was raised')",
        ],
    ),
    "pytest": (
        "import pytest\nfrom solution import half\n"
        "@pytest.mark.parametrize('x, y', [(4, 2), (2, 1)])\ndef test_all(x, y):\n    assert half(x) == y\n"
        "def test_near():\n    assert half(1) == pytest.approx(0.5)\n"
        "def test_bad():\n    with pytest.raises(TypeError):\n        half('a')\n",
        [
            "x, y = (4, 2)\nassert half(x) == y",
            "x, y = (2, 1)\nassert half(x) == y",
            "assert abs(half(1) - 0.5) <= max(1e-06 * abs(0.5), 1e-12)",
            "try:\n    half('a')\nexcept TypeError:\n    pass\nelse:\n    raise AssertionError('nothing was raised')",
        ],
    ),
    "doctest session": (
        ">>> half(4)\n2.0\n>>> x = 2\n>>> half(x)\n1.0",
        ["assert half(4) == 2.0", "x = 2\nassert half(x) == 1.0"],
    ),
    "helper of the tests": (
        f"{NEAR}assert near(half(1), 0.5)\nassert near(half(3), 1.5)",
        [f"{NEAR}assert near(half(1), 0.5)", f"{NEAR}assert near(half(3), 1.5)"],
    ),
}


@pytest.mark.parametrize("style", STYLES)
def test_styles(style: str, executors: tuple[Executor, Executor]) -> None:
    tests, want = STYLES[style]
    found = parse_answer("i", answer(HALF, tests))
    assert (found.entry_point, found.reference.strip(), found.why) == ("half", HALF, "")
    assert list(found.tests) == want
    lax = FilterConfig(least_tests=1)
    (suite,) = filter_candidates([found], *executors, lax, seed=0)
    assert suite.kept, (suite.why, suite.extra)  # the executor can decide tests of each style


def test_doctests_of_the_reference() -> None:
    shown = ">>> half(4)\n    2.0\n    >>> half('a')\n    Traceback (most recent call last):\n    TypeError: no"
    code = f'def half(x):\n    """Half.\n\n    {shown}\n    """\n    return x / 2'
    first, second = parse_answer("i", f"```python\n{code}\n```").tests
    assert first == "assert half(4) == 2.0" and second.startswith("try:\n    half('a')\nexcept TypeError")


def test_an_object_that_asserts_change_keeps_its_history() -> None:
    put = "    def put(self):\n        self.n += 1\n        return self.n"
    code = f"class Bag:\n    def __init__(self):\n        self.n = 0\n{put}"
    tests = "b = Bag()\nassert b.put() == 1\nassert b.put() == 2\nc = Bag()\nassert c.put() == 1"
    found = parse_answer("i", answer(code, tests))
    assert found.entry_point == "Bag" and found.tests == (
        "b = Bag()\nassert b.put() == 1",
        "b = Bag()\nb.put() == 1\nassert b.put() == 2",
        "c = Bag()\nassert c.put() == 1",
    )


@pytest.mark.parametrize(
    "text",
    [
        f"Sure! The solution:\n~~~py\n{HALF}\n~~~\nTests\n~~~\nassert half(4) == 2\n~~~\nBye.",
        f"```python title=x.py\n{HALF}\nassert half(4) == 2",  # cut off before the fence closes
        f"{HALF}\n\nassert half(4) == 2",
        f"Here you are.\n\n{HALF}\n\nassert half(4) == 2\n\nI hope it helps: it's short!",
        f"```js\nlet x = 1;\n```\n```python\n{HALF}\n```\n```python\nassert half(4) == 2\n```",
        f"```\r\n{HALF}\r\n```\r\n```\r\nassert half(4) == 2\r\n```",
    ],
)
def test_code_among_prose(text: str) -> None:
    found = parse_answer("i", text)
    assert (found.reference.strip(), found.tests) == (HALF, ("assert half(4) == 2",))


def test_what_the_reference_is_made_of() -> None:
    half = HALF.replace("x / 2", "helper(x) / 2")
    code = f"LIMIT = 3\n\ndef helper(x, y=LIMIT):\n    return min(x, y)\n\n{half}"
    found = parse_answer("i", answer(f"print('hi')\nimport math\n{code}\ninput()", "x = 9\nassert half(4) == 1.5"))
    assert ast.dump(ast.parse(found.reference)) == ast.dump(ast.parse(code)) and found.entry_point == "half"
    second = parse_answer(
        "i", f"```python\n{HALF}\n```\nBetter:\n" + answer(HALF.replace("/ 2", "* 0.5"), "assert half(4)")
    )
    assert "0.5" in second.reference and "/" not in second.reference


def test_the_entry_point_behind_a_helper_of_the_tests() -> None:
    size = "    def size(self):\n        return len(self.given)"
    code = f"class Bag:\n    def __init__(self, *given):\n        self.given = given\n{size}"
    helper = "def full(n):\n    return Bag(*range(n))\n"
    found = parse_answer("i", answer(code, f"{helper}assert full(3).size() == 3\nassert full(0).size() == 0"))
    assert found.entry_point == "Bag" and "full" not in found.reference
    assert found.tests[0] == f"{helper}assert full(3).size() == 3"


def test_signatures() -> None:
    assert (
        signature_of("def f(x: int, *, y=3) -> list[int]:\n    return 1", "f") == "def f(x: int, *, y=3) -> list[int]:"
    )
    assert signature_of("class A:\n    def g(self):\n        pass", "A") == "class A:\n    def g(self):"
    with pytest.raises(ValueError, match="defines no 'g'"):
        signature_of("def f(): pass", "g")


PIECES = [
    "```",
    "~~~",
    "python",
    "\n",
    "def f(x):",
    "    return x",
    "assert f(1) == 1",
    ">>> f(1)",
    "1",
    "class T(unittest.TestCase):",
]
PIECES += [
    "    def test_a(self):",
    "        self.assertEqual(f(1), 1)",
    "with pytest.raises(",
    "for x in [1, 2]:",
    "\0",
    "(",
    "\\",
]


@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES), max_size=25).map("\n".join)))
def test_any_text_gives_a_candidate_or_a_reason(text: str) -> None:
    found = parse_answer("i", text)
    assert isinstance(found, Candidate) and (found.why in REASONS or not found.why)
    assert bool(found.why) or (found.tests and found.entry_point)
    for source in (found.reference, *found.tests):
        ast.parse(source)
