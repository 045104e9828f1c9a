"""runners/instructions.py: a published set in, our instructions out, and a word about each row that was left out."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plum_core import settings
from plum_core.records import Instruction, read_jsonl
from tests.conftest import ROOT

TASK = "Given a list of words, return how many of them begin and end with the same letter, case aside, as one number."


@pytest.fixture
def instructions() -> Callable[..., int]:
    spec = importlib.util.spec_from_file_location("runner_instructions", ROOT / "runners" / "instructions.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return lambda *words: settings.main(module.run, module.InstructionsConfig, [str(w) for w in words])


def test_a_published_set(tmp_path: Path, instructions: Callable[..., int], capsys: Any) -> None:
    asked = ["Sort a list of numbers in place.", "SORT a list of numbers in place.", f"Please: {TASK}", "Reverse text."]
    rows = [{"instruction": text, "input": "", "output": "x"} for text in asked]
    lines = [json.dumps(row) + "\n" for row in (*rows, {"instruction": 3})]
    (tmp_path / "alpaca.jsonl").write_text("".join(lines))
    humaneval = {"task_id": "HumanEval/0", "prompt": f'def f(x):\n    """{TASK}"""\n', "entry_point": "f"}
    (tmp_path / "he.jsonl").write_text(json.dumps({**humaneval, "canonical_solution": "    pass\n", "test": ""}) + "\n")
    words = ("--source", tmp_path / "alpaca.jsonl", "--out", tmp_path / "i.jsonl")
    assert instructions(*words) == 2 and "alpaca.jsonl:5: " in capsys.readouterr().err
    assert not (tmp_path / "i.jsonl").exists()
    assert instructions(*words, "--skip_bad", "--benchmarks", f"humaneval={tmp_path / 'he.jsonl'}") == 0
    said = capsys.readouterr().out
    assert "4 instructions of" in said and "(layout alpaca), 1 bad rows passed over" in said
    assert "1 near-duplicates, 1 with a benchmark's task left out\n2 kept" in said
    assert [i.prompt for i in read_jsonl(tmp_path / "i.jsonl", Instruction)] == [asked[0], asked[3]]
    again, match = [json.loads(line) for line in (tmp_path / "i.left-out.jsonl").read_text().splitlines()]
    assert (again["why"], again["id"], again["of"]) == ("near-duplicate", "alpaca-2", "alpaca-1")
    assert (match["why"], match["task_id"], match["ngram"].split()[:3]) == (
        "benchmark",
        "HumanEval/0",
        ["given", "a", "list"],
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--benchmarks", "humaneval"), "benchmarks wants NAME=FILE"),
        (("--benchmarks", "apps=x"), "no benchmark 'apps' to look for"),
        (("--similarity", "2"), "similarity in [0, 1]"),
        (("--layout", "alpacca"), "no layout 'alpacca'"),
    ],
)
def test_mistakes(words: tuple[str, ...], says: str, tmp_path: Path, instructions: Any, capsys: Any) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "a", "prompt": "b"}\n')
    assert instructions("--source", tmp_path / "a.jsonl", "--out", tmp_path / "o.jsonl", *words) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not (tmp_path / "o.jsonl").exists()
