"""Public problems and samples as programs with the verdict that each should get: what ``published.py`` runs.

Every function takes the folder of the reference data. ``right`` is the published verdict of a model's sample, and
true for a reference solution.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from plum_core.evaluation.benchmark import checked
from plum_core.evaluation.files import read_rows as rows
from plum_core.evaluation.livecodebench import unpacked
from plum_core.records.types import Program, StdinTest

STARCODER2 = "verdicts_starcoder2_instruct/evalplus-starcoder2-15b-instruct-v0.1-{}_eval_results.json"
# Tasks whose answer EvalPlus compares as a set, or takes for right whatever it is worth
SET_ANSWERS = ("Mbpp/2", "Mbpp/140", "Mbpp/249")


@dataclass(frozen=True, slots=True)
class Case:
    """A program and whether it should pass."""

    program: Program
    right: bool = True


Loader = Callable[[Path], list[Case]]


def starcoder2(data: Path, name: str) -> dict[str, dict[str, Any]]:
    """The published sample and verdict of each task."""
    found = json.loads((data / STARCODER2.format(name)).read_text(encoding="utf-8"))["eval"]
    return {task: samples[0] for task, samples in found.items()}


def starcoder2_humaneval(data: Path) -> list[Case]:
    """StarCoder2-Instruct's samples against HumanEval's own tests."""
    problems = {row["task_id"]: row for row in rows(data / "humaneval/HumanEval.jsonl.gz")}
    return [
        Case(
            checked(task, sample["solution"], problems[task]["test"], problems[task]["entry_point"]),
            sample["base_status"] == "pass",
        )
        for task, sample in starcoder2(data, "humaneval").items()
    ]


def _as_sets(assertions: str) -> str:
    """``assert f(x) == y`` as ``assert set(f(x)) == set(y)``, line by line."""
    return re.sub(r"(?m)^assert (.*?\)) == (.*)$", r"assert set(\1) == set(\2)", assertions)


def starcoder2_mbpp(data: Path) -> list[Case]:
    """The same for MBPP, with EvalPlus's own wording of the tests; it has 378 of the 399 tasks."""
    problems = {row["task_id"]: row for row in rows(data / "evalplus/MbppPlus-v0.2.0.jsonl.gz")}
    cases = []
    for task, sample in starcoder2(data, "mbpp").items():
        if task not in problems:
            continue
        test = problems[task]["assertion"]
        test = _as_sets(test) if task in SET_ANSWERS else test
        program = Program(id=task, code=sample["solution"], tests=(test,))
        cases.append(Case(program, sample["base_status"] == "pass"))
    return cases


def starcoder2_mbpp_sanitized(data: Path) -> list[Case]:
    """The same against the sanitized MBPP's tests, which EvalPlus changed for some tasks; it has all 399."""
    problems = {row["task_id"]: row for row in json.loads((data / "mbpp/sanitized-mbpp.json").read_text())}
    cases = []
    for task, sample in starcoder2(data, "mbpp").items():
        problem = problems[int(task.partition("/")[2])]
        tests, setup = tuple(problem["test_list"]), "\n".join(problem["test_imports"])
        program = Program(id=task, code=sample["solution"], tests=tests, setup=setup)
        cases.append(Case(program, sample["base_status"] == "pass"))
    return cases


def ldb(file: str, data: Path) -> list[Case]:
    """LDB's first or last solutions with ``is_solved``."""
    found = []
    for row in rows(data / "verdicts_ldb" / file):
        call = f"\ncheck({row['entry_point']})" if file.startswith("humaneval") else ""
        program = Program(id=row["task_id"], code=row["solution"], tests=(row["test"] + call,))
        found.append(Case(program, row["is_solved"]))
    return found


def humaneval(data: Path) -> list[Case]:
    """HumanEval's reference solutions."""
    return [
        Case(checked(row["task_id"], row["prompt"] + row["canonical_solution"], row["test"], row["entry_point"]))
        for row in rows(data / "humaneval/HumanEval.jsonl.gz")
    ]


def humaneval_plus(data: Path) -> list[Case]:
    """EvalPlus's reference solutions against the tests that its file spells out."""
    return [
        Case(checked(row["task_id"], row["prompt"] + row["canonical_solution"], row["test"], row["entry_point"]))
        for row in rows(data / "evalplus/HumanEvalPlus-v0.1.10.jsonl.gz")
    ]


def mbpp(data: Path) -> list[Case]:
    """MBPP's reference solutions, one test an assert."""
    return [
        Case(
            Program(
                id=f"MBPP/{row['task_id']}",
                code=row["code"],
                tests=tuple(row["test_list"]),
                setup=row["test_setup_code"],
            )
        )
        for row in rows(data / "mbpp/mbpp.jsonl")
    ]


def mbpp_plus(data: Path) -> list[Case]:
    """EvalPlus's corrected reference solutions against its wording of the tests."""
    return [
        Case(Program(id=row["task_id"], code=row["canonical_solution"], tests=(row["assertion"],)))
        for row in rows(data / "evalplus/MbppPlus-v0.2.0.jsonl.gz")
    ]


def leetcode(file: str, data: Path) -> list[Case]:
    """LeetCodeDataset's reference solutions."""
    return [
        Case(checked(f"{number}:{row['task_id']}", row["prompt"] + row["completion"], row["test"], row["entry_point"]))
        for number, row in enumerate(rows(data / "leetcodedataset" / file))
    ]


def cruxeval(data: Path) -> list[Case]:
    """CRUXEval: each function's output on its input."""
    return [
        Case(Program(id=row["id"], code=row["code"], tests=(f"assert f({row['input']}) == {row['output']}",)))
        for row in rows(data / "cruxeval/cruxeval.jsonl")
    ]


def sandboxfusion(data: Path) -> list[Case]:
    """Every Python sample of SandboxFusion's that has a reference solution and tests made of asserts."""
    folder = data / "sandboxfusion_samples"
    return [Case(program) for program in _sandboxfusion(folder)]


def _sandboxfusion(folder: Path) -> Iterator[Program]:
    for name in ("EvoEval", "shadow_humaneval_python"):
        for row in rows(folder / f"code_eval_{name}.jsonl"):
            entry = json.loads(row["labels"])["entry_point"]
            yield checked(f"{name}:{row['id']}", row["content"] + row["canonical_solution"], row["test"], entry)
    for row in rows(folder / "code_eval_mbpp.jsonl"):
        yield Program(id=f"mbpp:{row['id']}", code=row["canonical_solution"], tests=tuple(row["test_list"]))
    for name in ("mbxp_v1_en", "can_it_edit"):
        for row in rows(folder / f"code_eval_{name}.jsonl"):
            if json.loads(row["labels"])["execution_language"] == "python":
                test = json.loads(row["test"])["code"].replace("#<INSERT>", "")
                yield Program(id=f"{name}:{row['id']}", code=row["canonical_solution"], tests=(test,))


def stdin_tests(data: Path) -> dict[str, tuple[StdinTest, ...]]:
    """CodeContests' and LiveCodeBench's stdin tests by problem; neither file has solutions."""
    folder = data / "sandboxfusion_samples"
    found = {}
    for row in rows(folder / "code_eval_code_contests.jsonl.gz"):
        pairs = [(test["input"]["stdin"], test["output"]["stdout"]) for test in json.loads(row["test"])]
        found[f"codecontests:{row['id']}"] = tuple(StdinTest(input=i, output=o) for i, o in pairs)
    for row in rows(folder / "code_eval_live_code_bench_v1.jsonl"):
        tests = unpacked(row["test"])
        if tests["fn_name"] is None:
            pairs = list(zip(tests["inputs"], tests["outputs"], strict=True))
            found[f"livecodebench:{row['id']}"] = tuple(StdinTest(input=i, output=o) for i, o in pairs)
    return found


SUITES: dict[str, Loader] = {
    "starcoder2 HumanEval": starcoder2_humaneval,
    "starcoder2 MBPP": starcoder2_mbpp,
    "starcoder2 MBPP sanitized": starcoder2_mbpp_sanitized,
    "LDB HumanEval seed": partial(ldb, "humaneval.seed.codellama.jsonl"),
    "LDB HumanEval debugged": partial(ldb, "humaneval.ldb_results.codellama.jsonl.gz"),
    "LDB MBPP seed": partial(ldb, "mbpp.seed.codellama.jsonl"),
    "LDB MBPP debugged": partial(ldb, "mbpp.ldb_results.codellama.jsonl.gz"),
    "HumanEval": humaneval,
    "HumanEval+": humaneval_plus,
    "MBPP": mbpp,
    "MBPP+": mbpp_plus,
    "CRUXEval": cruxeval,
    "SandboxFusion": sandboxfusion,
    "LeetCode v0.3.1 test": partial(leetcode, "LeetCodeDataset-v0.3.1-test.jsonl.gz"),
    "LeetCode v0.1.0 test": partial(leetcode, "LeetCodeDataset-v0.1.0-test.jsonl.gz"),
    "LeetCode v0.1.0 train": partial(leetcode, "LeetCodeDataset-v0.1.0-train.jsonl.gz"),
}
