"""StarCoder2-Instruct's samples on EvalPlus's inputs, judged by EvalPlus's rule, as tests for a tester process.

The expected outputs are not in EvalPlus's files: its reference solution runs beside the test, under another name. So
these suites also try the remote tier with thousands of calls a program.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from plum_core.evaluation.plus_types import CONVERT
from plum_core.execution.benchmarks.suites import Case, Loader, rows, starcoder2
from plum_core.records.types import Program

MAX_TEST_CHARS = 900_000  # the executor takes a million
# EvalPlus's rule: equality, or numpy's closeness where the answer is floating; some tasks have rules of their own
RULE = """
import copy
import math
import numpy as np
inf, nan = float("inf"), float("nan")

def is_floating(x):
    return isinstance(x, float) or isinstance(x, (list, tuple)) and all(isinstance(i, float) for i in x)

def judge(out, exp, inp, atol):
    if RULE == "root":
        assert abs(sum(c * math.pow(out, i) for i, c in enumerate(inp[0]))) <= atol
        return
    exact = out == exp
    if RULE == "any":
        exact = True
    elif RULE == "zero":
        exact = exact or out == 0
    elif RULE == "set":
        exact = set(out) == set(exp)
    elif RULE == "found":
        exact = (exp is not None) == (out if isinstance(out, bool) else out is not None)
    if atol == 0 and is_floating(exp):
        atol = 1e-6
    if not exact and atol != 0:
        np.testing.assert_allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert exact

def judge_all(candidate):
    for inp in INPUTS:
        exp = expected(*copy.deepcopy(inp))
        judge(candidate(*copy.deepcopy(inp)), exp, inp, ATOL)
"""
OWN_RULES = {
    "find_zero": "root",
    "are_equivalent": "any",
    "sum_div": "zero",
    **dict.fromkeys(("check_str", "text_match_three", "text_starta_endb"), "found"),
    **dict.fromkeys(
        (
            *("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum"),
            *("intersection_array", "find_dissimilar", "Diff"),
        ),
        "set",
    ),
}


def _test(problem: dict[str, Any], inputs: list[Any]) -> str:
    entry, solution = problem["entry_point"], problem["canonical_solution"]
    whole = problem["prompt"] + solution if problem["task_id"].startswith("HumanEval") else solution
    reference = re.sub(rf"\b{entry}\b", "expected", whole)
    rule = OWN_RULES.get(entry, "")
    return f"{reference}\nRULE, ATOL = {rule!r}, {problem['atol']}\n{RULE}\nINPUTS = {inputs!r}\njudge_all({entry})\n"


def starcoder2_plus(name: str, file: str, extra: bool, data: Path) -> list[Case]:
    """Base inputs, and with ``extra`` the plus inputs too. Problems too long for a test are left out."""
    problems = {row["task_id"]: row for row in rows(data / "evalplus" / file)}
    cases = []
    for task, sample in starcoder2(data, name).items():
        if task not in problems:
            continue
        problem = problems[task]
        inputs = problem["base_input"] + (list(problem["plus_input"]) if extra else [])
        test = _test(problem, [CONVERT.get(task, list)(args) for args in inputs])
        if len(test) <= MAX_TEST_CHARS:
            entry = {"entry_point": problem["entry_point"]}
            right = sample["base_status"] == "pass" and (not extra or sample["plus_status"] == "pass")
            cases.append(Case(Program(id=task, code=sample["solution"], tests=(test,), extra=entry), right))
    return cases


HUMANEVAL_PLUS, MBPP_PLUS = "HumanEvalPlus-v0.1.10.jsonl.gz", "MbppPlus-v0.2.0.jsonl.gz"
EVALPLUS_SUITES: dict[str, Loader] = {
    "starcoder2 HumanEval, EvalPlus base": partial(starcoder2_plus, "humaneval", HUMANEVAL_PLUS, False),
    "starcoder2 MBPP, EvalPlus base": partial(starcoder2_plus, "mbpp", MBPP_PLUS, False),
    "starcoder2 HumanEval, EvalPlus plus": partial(starcoder2_plus, "humaneval", HUMANEVAL_PLUS, True),
    "starcoder2 MBPP, EvalPlus plus": partial(starcoder2_plus, "mbpp", MBPP_PLUS, True),
}
