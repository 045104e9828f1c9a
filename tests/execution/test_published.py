"""Published verdicts and reference solutions: an executor must agree with them, or we must know why not.

All of it, and with more CPU seconds: ``python plum_core/execution/benchmarks/published.py``.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plum_core.execution import Executor, Limits
from plum_core.execution.benchmarks.disagreements import EXPLAINED, SLOW, unexplained
from plum_core.execution.benchmarks.evalplus_suites import EVALPLUS_SUITES
from plum_core.execution.benchmarks.published import compare
from plum_core.execution.benchmarks.suites import SUITES, rows, stdin_tests, unpacked
from plum_core.records.types import Outcome, Program
from tests.execution.solutions import SOLUTIONS

# suite: programs, attested verdicts, programs run here (seeded; 0 for all)
EXPECTED = {
    "starcoder2 HumanEval": (164, 164, 0),
    "starcoder2 MBPP": (378, 378, 0),
    "starcoder2 MBPP sanitized": (399, 399, 0),
    "starcoder2 HumanEval, EvalPlus base": (164, 163, 0),  # HumanEval/160 calls eval
    "LDB HumanEval seed": (164, 164, 0),
    "LDB HumanEval debugged": (164, 164, 0),
    "LDB MBPP seed": (500, 500, 0),
    "LDB MBPP debugged": (500, 500, 0),
    "HumanEval": (164, 164, 0),
    "HumanEval+": (164, 164, 0),
    "MBPP": (974, 974, 0),
    "MBPP+": (378, 378, 0),
    "CRUXEval": (800, 800, 0),
    "SandboxFusion": (73, 61, 0),
    "LeetCode v0.3.1 test": (228, 80, 80),
    "LeetCode v0.1.0 test": (175, 175, 0),
    "LeetCode v0.1.0 train": (1570, 400, 400),
}


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(workers=2, limits=Limits(cpu_s=4.0), packages=("numpy", "sortedcontainers")) as made:
        yield made


@pytest.mark.parametrize("name", EXPECTED)
def test_agrees(name: str, executor: Executor, shared_data: Callable[[str], Path]) -> None:
    size, attested, part = EXPECTED[name]
    cases = {**SUITES, **EVALPLUS_SUITES}[name](shared_data("README.md").parent)
    assert len(cases) == size
    if part:
        slow = [task for task, why in EXPLAINED.get(name, {}).items() if why == SLOW]
        cases = random.Random(0).sample([case for case in cases if case.program.id not in slow], part)
    found = compare(executor, cases)
    new, gone = unexplained(name, found.disagreeing)
    assert {task: found.verdicts[task].detail for task in new} == {}
    assert part or gone == set()
    assert found.attested == attested
    assert "sandbox_error" not in found.outcomes


def test_an_unknown_disagreement_would_show() -> None:
    assert unexplained("MBPP", {"MBPP/123", "MBPP/7"}) == ({"MBPP/7"}, set())
    assert unexplained("SandboxFusion", set())[1] == EXPLAINED["SandboxFusion"].keys()


@pytest.mark.parametrize("name", SOLUTIONS)
def test_stdin_problems(name: str, executor: Executor, shared_data: Callable[[str], Path]) -> None:
    """All tests of a competition problem, by a solution of ours; and with one expected output changed."""
    tests = stdin_tests(shared_data("sandboxfusion_samples").parent)[name]
    wrong = [*tests[:3], type(tests[3])(input=tests[3].input, output=tests[3].output + "1"), *tests[4:6]]
    programs = [
        Program(id="right", code=SOLUTIONS[name], stdin_tests=tests),
        Program(id="wrong", code=SOLUTIONS[name], stdin_tests=tuple(wrong)),
    ]
    verdicts = {verdict.id: verdict for verdict in executor.run(programs)}
    assert verdicts["right"].outcome is Outcome.PASSED, verdicts["right"].detail
    assert verdicts["wrong"].passed == tuple(i != 3 for i in range(len(wrong)))
    assert all(verdict.attested for verdict in verdicts.values())


def test_every_stdin_problem_against_a_table_of_its_outputs(
    executor: Executor, shared_data: Callable[[str], Path]
) -> None:
    """The files have no solutions, so a program that knows the outputs stands in for one."""
    problems = stdin_tests(shared_data("sandboxfusion_samples").parent)
    assert len(problems) == 22
    programs = []
    for name, tests in problems.items():
        part = [test for test in tests if len(test.input) < 5000][:8]
        table = {test.input: test.output for test in part}
        code = f"import sys\nprint({table!r}[sys.stdin.read()], end='')\n"
        programs.append(Program(id=name, code=code, stdin_tests=tuple(part)))
    verdicts = list(executor.run(programs))
    assert Counter(verdict.outcome.value for verdict in verdicts) == {"passed": 22}
    assert sum(len(verdict.passed) for verdict in verdicts) > 150


def test_a_functional_problem(executor: Executor, shared_data: Callable[[str], Path]) -> None:
    """LiveCodeBench's other form: JSON arguments of a method, one a line."""
    path = shared_data("sandboxfusion_samples/code_eval_live_code_bench_v1.jsonl")
    tests: list[dict[str, Any]] = [unpacked(row["test"]) for row in rows(path)]
    (functional,) = [test for test in tests if test["fn_name"]]
    calls = [
        {"call": f"Solution().{functional['fn_name']}({', '.join(given.splitlines())})", "expected": int(wanted)}
        for given, wanted in zip(functional["inputs"], functional["outputs"], strict=True)
    ]
    body = "return sum(int(person[11:13]) > {} for person in details)"
    code = f"class Solution:\n    def countSeniors(self, details):\n        {body}\n"
    programs = [Program(id=age, code=code.format(age), calls=tuple(calls)) for age in ("60", "50")]
    verdicts = {verdict.id: verdict for verdict in executor.run(programs)}
    assert verdicts["60"].outcome is Outcome.PASSED
    assert verdicts["50"].outcome is Outcome.FAILED
    assert len(calls) == 14
