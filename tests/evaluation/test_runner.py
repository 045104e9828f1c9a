"""runners/evaluate.py on a published layout: sample, grade, compare, and grade what other tools wrote."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plum_core import settings
from plum_core.evaluation.grade import read_graded
from plum_core.prompts import render_prompt
from tests.conftest import ROOT
from tests.rounds import toy

CHECK = "def check(candidate):\n{}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("toy")
    toy.main(made)
    rows = []
    for instruction, suite, body in toy.tasks()[:12]:
        asserts = "".join(f"    {test.replace('solve', 'candidate')}\n" for test in suite.tests)
        rows.append(
            {
                "task_id": f"HumanEval/{instruction.id}",
                "prompt": render_prompt(instruction),
                "entry_point": "solve",
                "canonical_solution": body,
                "test": CHECK.format(asserts),
            }
        )
    (made / "HumanEval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (made / "right.jsonl").write_text(
        "".join(json.dumps({"task_id": r["task_id"], "completion": r["canonical_solution"]}) + "\n" for r in rows)
    )
    chat = made / "chat"
    shutil.copytree(made / "policy", chat)
    (chat / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}\n")
    return made


@pytest.fixture
def evaluate(folder: Path, tmp_path: Path) -> Callable[..., int]:
    spec = importlib.util.spec_from_file_location("runner_evaluate", ROOT / "runners" / "evaluate.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    common = ("--benchmark", "humaneval", "--data", folder / "HumanEval.jsonl", "--quiet", "--cache", tmp_path)
    small = ("--execution.workers", 1, "--max_new_tokens", 24, "--evaluation.samples", 4, "--evaluation.ks", 1, 4)

    def call(*words: object) -> int:
        argv = [str(w) for w in (*common, *small, *words)]
        return settings.main(module.run, module.EvaluateConfig, argv, doc=module.__doc__)

    return call


def test_sample_grade_and_compare(folder: Path, tmp_path: Path, evaluate: Callable[..., int], capsys: Any) -> None:
    first, again, chat = (tmp_path / f"{name}.jsonl" for name in ("first", "again", "chat"))
    assert evaluate("--policy", folder / "policy", "--out", first) == 0
    said = capsys.readouterr().out
    for text in ("-- base tests", "12 tasks, 48 samples, 0 lost", "pass@1 sampled", "pass@1 greedy", "pass@4"):
        assert text in said
    rows = read_graded(first)
    passed = {row.key for row in rows if row.right["base"]}
    assert 0 < len(passed) < len(rows) == 12 * 5
    # what stands beside it, graded as another tool's file, gets the same verdicts
    assert evaluate("--solutions", first.with_suffix(".solutions.jsonl"), "--out", again, "--evaluation.chunk", 3) == 0
    assert [row.right for row in read_graded(again)] == [row.right for row in rows]
    # the same draws whatever the chunks, and a policy against itself has gained nothing
    capsys.readouterr()
    assert evaluate("--policy", folder / "policy", "--out", chat, "--evaluation.chunk", 5, "--against", first) == 0
    assert [row.code for row in read_graded(chat)] == [row.code for row in rows]
    said = capsys.readouterr().out
    assert "gain sampled: +0.0" in said and "better: 0 tasks" in said and "worse: 0 tasks" in said


def test_chat_and_greedy_only(folder: Path, tmp_path: Path, evaluate: Callable[..., int], capsys: Any) -> None:
    out = tmp_path / "chat.jsonl"
    assert evaluate("--policy", folder / "chat", "--style", "chat", "--greedy_only", "--out", out) == 0
    assert "12 tasks, 0 samples" in capsys.readouterr().out
    assert [row.index for row in read_graded(out)] == ["greedy"] * 12
    assert evaluate("--policy", folder / "policy", "--style", "chat", "--out", tmp_path / "no.jsonl") == 2
    assert "is it a base model?" in capsys.readouterr().err


def test_right_solutions_of_another_tool(
    folder: Path, tmp_path: Path, evaluate: Callable[..., int], capsys: Any
) -> None:
    assert evaluate("--solutions", folder / "right.jsonl", "--out", tmp_path / "right.jsonl") == 0
    assert "pass@1 sampled: 100.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--policy", "p", "--solutions", "s"), "give either policy"),
        ((), "give either policy"),
        (("--policy", "p", "--instructions", "i"), "give either instructions and tests, or benchmark and data"),
        (("--policy", "p", "--since", "June"), "since must be a date such as 2024-06-01, got 'June'"),
        (("--policy", "p", "--since", "2024-06-01"), "humaneval has no dates"),
        (("--policy", "p", "--benchmark", "humanevil"), "no benchmark 'humanevil'; there are humaneval,"),
        (("--policy", "p", "--patience", "0"), "patience must be > 0"),
        (("--policy", "p", "--data", "nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_mistakes_in_one_sentence(
    words: tuple[str, ...], says: str, tmp_path: Path, evaluate: Callable[..., int], capsys: Any
) -> None:
    assert evaluate(*words, "--out", tmp_path / "out.jsonl") == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not (tmp_path / "out.jsonl").exists()


def test_samples_of_no_task(folder: Path, tmp_path: Path, evaluate: Callable[..., int], capsys: Any) -> None:
    strange = tmp_path / "strange.jsonl"
    strange.write_text(json.dumps({"task_id": "Other/1", "solution": "pass"}) + "\n")
    assert evaluate("--solutions", strange, "--out", tmp_path / "out.jsonl") == 2
    assert "has no solution for a task of this benchmark; its ids are such as ['Other/1']" in capsys.readouterr().err
