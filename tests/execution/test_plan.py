"""How tests are taken apart: which go to the judge, which to a tester, which must run beside the program."""

from __future__ import annotations

import ast
import time

import pytest

from plum_core.execution.inside.codec import Malformed
from plum_core.execution.inside.evaluate import Excessive, compile_test
from plum_core.execution.inside.plan import make_plan
from plum_core.execution.inside.split import Splitter

SPLIT = [
    "assert f(1, 2) == 3",
    "assert f([1], k={'a': (1, 2)}) != {1, 2}",
    "assert f(1) is None",
    "assert not f(1)",
    "assert f(1) in [1, 2] and f(2) or f(3)",
    "assert abs(f(1) - 0.5) < 1e-6, f'message {f(1)}'",
    "assert math.isclose(f(1), 0.5, rel_tol=1e-3)",
    "assert sorted(f([2, 1])) == list(range(2))",
    "assert isinstance(f(1), (int, str)) and type(f(1)) == int",
    "assert 1 < f(1) <= 3",
    "assert f(f(1)) == f(2)",
    "assert f(lambda x: x + 1) == 3",
    "assert f(Node(1)) == 3",
    "assert Solution().f(1) == 3",
    "assert f(1)[0] == 1 and f(1)[1:] == [2]",
    "assert f(1) == Counter({'a': 1})",
    "assert f(1) == -Fraction(1, 3)",
    "'''doc'''\nMETADATA = {'a': 1}\ndef check(candidate):\n    '''x'''\n    assert candidate(1) == 2\ncheck(f)",
]
REMOTE = [
    "x = f(1)\nassert x == 2",
    "assert all(f(x) == x for x in range(3))",
    "for i in range(3):\n    assert f(i) == i",
    "with pytest.raises(ValueError):\n    f(1)",
    "try:\n    f(1)\nexcept ValueError:\n    pass",
    "assert f(1).startswith('a')",
    "assert f(1) == EXPECTED",
    "assert np.allclose(f(1), [1])",
    "assert f'{f(1)}' == '1'",
    "assert f(1) == 10 ** 10 ** 10",
    "assert f(1) == 'a' * 10 ** 12",
    "assert f(1) == sum(range(10 ** 12))",
    "assert f(1) == round(5, -10 ** 9)",
    "assert f(1) == Fraction('1e999999999')",
    "assert f(1) == int(Decimal('1e999999999'))",
    "assert f(1) == 1 << 10 ** 12",
    "def test_f():\n    assert f(1) == 2",
]
INLINE = [
    "assert eval('f(1)') == 2",
    "x = f(1)\nassert x.__class__ is int",
    "import os\nassert f(1) == os.getpid()",
    "y = f(1)\nexec('assert y == 2')",
    "z = f(1)\nassert getattr(z, 'real') == 1",
]


@pytest.mark.parametrize("test", SPLIT)
def test_split(test: str) -> None:
    plan = make_plan([test], "", None)
    assert plan.tier == 0
    assert plan.calls
    assert plan.tests[0].checks


@pytest.mark.parametrize("test", REMOTE)
def test_remote(test: str) -> None:
    began = time.monotonic()
    plan = make_plan([test], "", None)
    assert plan.tier == 1
    assert plan.calls == []
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("test", INLINE)
def test_inline(test: str) -> None:
    assert make_plan([test], "", None).tier == 2


def test_the_child_learns_the_call_and_not_the_expected_value() -> None:
    plan = make_plan(["assert f([1, 2], key='a') == 987654321", "assert abs(f(2) - 1.2345) < 0.5"], "", None)
    assert plan.calls == [["c", "f", [[1, 2]], {"key": "a"}, False], ["c", "f", [2], {}, False]]


def test_a_lazy_answer_is_spelt_out_where_the_test_consumes_it() -> None:
    plan = make_plan(["assert list(f(2)) == [0, 1]", "assert f(2) == 3"], "", None)
    assert [call[-1] for call in plan.calls] == [True, False]


def test_names_of_pythons_own_belong_to_the_program_only_when_nothing_else_is_called() -> None:
    assert make_plan(["assert sum(1, 2) == 3", "assert sum(3, 4) == 7"], "", None).calls[0][1] == "sum"
    assert make_plan(["assert sum(f(1)) == 3"], "", None).calls == [["c", "f", [1], {}, True]]


def split_call(expression: str) -> ast.expr:
    """The expression with a hole for ``f(1)``."""
    return Splitter(frozenset({"f"}))._punch(ast.parse(expression, mode="eval").body)


def test_the_expected_side_is_never_asked_of_the_program() -> None:
    plan = make_plan(["assert f(1) == helper(1)", "assert f(2) == 3"], "", None)
    assert plan.tier == 1  # the tester asks for helper; what the judge splits has f alone
    assert plan.calls == [["c", "f", [2], {}, False]]
    plan = make_plan(["assert f(1) == g(1)"], "", "f")
    assert plan.calls == []


def test_setup_with_definitions_goes_to_the_tester() -> None:
    setup = "def close(a, b):\n    return abs(a - b) < 1\n"
    plan = make_plan(["assert close(f(1), 2)"], setup, None)
    assert plan.tier == 1
    assert setup in plan.tester_setup
    assert plan.setup == ""
    assert make_plan(["assert f(1) == 2"], "import math\n", None).setup == "import math\n"


def test_broken_tests_fail_alone() -> None:
    plan = make_plan(["assert f(1 == 2", "assert f(1) == 2"], "", None)
    assert plan.tier == 0
    checks = plan.tests[0].checks
    assert checks is not None
    with pytest.raises(SyntaxError):
        checks[0].holds([])


@pytest.mark.parametrize(
    ("tests", "setup", "calls", "words"),
    [
        (["assert f(1)"], "def (", [], "setup"),
        (["#" * (2 << 20)], "", [], "characters"),
        ([], "", [{"call": "f", "expected": 1}], "not a call"),
    ],
)
def test_what_cannot_be_planned_says_why(
    tests: list[str], setup: str, calls: list[dict[str, object]], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        make_plan(tests, setup, None, calls)


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("f(1) * 10 ** 5", "a" * 100),
        ("f(1) + f(1)", "a" * 600_000),
        ("2 ** f(1)", 10**7),
        ("round(1, f(1))", -(10**9)),
        ("[f(1)] * 10 ** 4", [0] * 1000),
        ("[f(1), f(1), f(1)]", [[0] * 50_000, [0] * 50_000]),
        ("f(1) // f(1)", 1 << 200_000),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "answer",
)
def test_evaluation_is_bounded_for_answers_too(expression: str, answer: object) -> None:
    plan = make_plan([f"assert {expression} == 0"], "", None)
    checks = plan.tests[0].checks
    assert checks is not None
    with pytest.raises(Excessive):
        checks[0].holds([lambda: answer] * 3)


@pytest.mark.parametrize(
    ("expression", "answer", "value"),
    [
        ("sum(f(1), [])", [[i] for i in range(200_000)], list(range(200_000))),
        ("sum(f(1), ())", [(i,) for i in range(200_000)], tuple(range(200_000))),
        ("sum(f(1))", [1, 2.5], 3.5),
        ("set(f(1))", [7] * 200_000, {7}),
        ("dict(f(1))", [(1, 2), (3, 4)], {1: 2, 3: 4}),
    ],
    ids=lambda value: value if isinstance(value, str) else "value",
)
def test_what_would_take_quadratic_time_takes_linear_time(expression: str, answer: object, value: object) -> None:
    assert compile_test(split_call(expression))([lambda: answer]) == value


@pytest.mark.parametrize("kind", ["set", "frozenset", "Counter"])
def test_colliding_hashes_are_refused(kind: str) -> None:
    answer = [i * (2**61 - 1) for i in range(1000)]
    with pytest.raises(Malformed):
        compile_test(split_call(f"{kind}(f(1))"))([lambda: answer])


@pytest.mark.parametrize(
    "constant",
    ["[[0] * 1000000] * 1000000", "[[[0] * 1000] * 1000] * 1000", "set(range(1000000))", "sum([[0] * 99999] * 9, [])"],
)
def test_a_constant_that_is_too_large_goes_to_a_tester(constant: str) -> None:
    plan = make_plan([f"assert f(1) == {constant}"], "", None)
    assert (plan.tier, plan.calls) == (1, [])
