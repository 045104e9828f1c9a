"""runners/make_tests.py with a generator: a file of answers, an endpoint that runs out of budget; prompts."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plum_core import settings
from plum_core.records import Instruction, TestSuite, read_jsonl, write_jsonl
from plum_core.testing.authored import with_signature
from plum_core.testing.prompts import Template, template
from tests.conftest import ROOT
from tests.testing.broken import answer, good_answers
from tests.testing.generators import unruly

GOOD = dict(list(good_answers())[:6])
BAD = {"prose": "No code is needed here.", "wrong": answer("def f(x):\n    return x", "assert f(1) == 2\nassert f(2)")}
STACK = answer(
    "class Pile:\n    def __init__(self, n):\n        self.n = n\n    def add(self, k):\n        return self.n + k",
    "\n".join(f"assert Pile({n}).add({n + 1}) == {2 * n + 1}" for n in range(4)),
)


@pytest.fixture
def make_tests() -> Callable[..., int]:
    spec = importlib.util.spec_from_file_location("runner_make_tests", ROOT / "runners" / "make_tests.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)

    def call(*words: object) -> int:
        argv = [str(w) for w in (*words, "--quiet", "--execution.workers", 1, "--chunk", 3)]
        return settings.main(module.run, module.MakeTestsConfig, argv, doc=module.__doc__, errors=module.ERRORS)

    return call


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A folder with instructions, and answers to all but one of them."""
    told = {**GOOD, **BAD, "pile": STACK}
    write_jsonl(tmp_path / "i.jsonl", (Instruction(id=name, prompt=f"Write {name}.") for name in [*told, "silent"]))
    lines = [json.dumps({"id": name, "answer": text}) + "\n" for name, text in told.items()]
    (tmp_path / "answers.jsonl").write_text("".join(lines))
    return tmp_path


def test_a_file_of_answers(given: Path, make_tests: Callable[..., int], capsys: Any) -> None:
    words = ("--instructions", given / "i.jsonl", "--answers", given / "answers.jsonl")
    assert make_tests(*words, "--out", given / "t.jsonl") == 0
    said = capsys.readouterr().out
    for text in ("no-answer              1     9", "no-reference           1", "few-tests", "7 of 10 kept"):
        assert text in said, said
    suites = {s.instruction_id: s for s in read_jsonl(given / "t.jsonl", TestSuite)}
    assert list(suites) == [*GOOD, *BAD, "pile", "silent"]
    assert {name for name, s in suites.items() if s.kept} == {*GOOD, "pile"}
    assert "has no answer with the id 'silent'" in suites["silent"].extra["detail"]
    shown = {i.id: i for i in read_jsonl(given / "t.instructions.jsonl", Instruction)}
    assert shown.keys() == {*GOOD, "pile"}
    assert (shown["double"].starter, shown["double"].entry_point) == ("def double(x):\n", "double")
    assert shown["pile"].starter is None and shown["pile"].prompt.endswith("    def add(self, k):")
    assert make_tests(*words, "--out", given / "again.jsonl", "--chunk", 10) == 0
    again = [s.extra for s in read_jsonl(given / "again.jsonl", TestSuite)]
    assert again == [s.extra for s in suites.values()]  # whatever the chunks


def test_an_endpoint_goes_on_with_a_larger_budget(
    given: Path, make_tests: Callable[..., int], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("httpx")  # the extra `endpoint`
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    told = {**GOOD, **BAD, "pile": STACK, "silent": "I cannot."}

    def behave(handler: Any, body: dict[str, Any]) -> None:
        asked = body["messages"][-1]["content"]
        name = next(name for name in told if f"Write {name}." in asked)
        unruly.reply(handler, 200, unruly.completion(told[name], 100, 50))

    with unruly.unruly() as server:
        server.otherwise = behave
        words = ("--instructions", given / "i.jsonl", "--endpoint.url", server.url, "--endpoint.model", "m")
        more = ("--out", given / "t.jsonl", "--ask.max-tokens", 100)
        assert make_tests(*words, *more, "--endpoint.budget.tokens", 2000) == 2
        assert "the budget is reached" in capsys.readouterr().err and not (given / "t.jsonl").exists()
        paid = sum(server.seen.values())
        assert 0 < paid < 10, paid
        assert make_tests(*words, *more, "--endpoint.concurrency", 2) == 0
        assert set(server.seen.values()) == {1} and sum(server.seen.values()) == 10  # nothing twice
    assert "7 of 10 kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "give one of author, generator, answers and endpoint.url, got none"),
        (("--author", "a", "--answers", "b"), "got author and answers"),
        (("--endpoint.url", "http://x/v1"), "endpoint.url needs endpoint.model"),
        (("--answers", "b", "--prompt", "nonsense"), "no template 'nonsense': give a file, or one of teaching_assist"),
        (("--answers", "nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_mistakes_in_one_sentence(
    words: tuple[str, ...], says: str, given: Path, make_tests: Callable[..., int], capsys: Any
) -> None:
    assert make_tests("--instructions", given / "i.jsonl", "--out", given / "no.jsonl", *words) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not (given / "no.jsonl").exists()


def test_the_prompt_holds_problem_and_starter() -> None:
    system, user = template("teaching_assistant").messages(Instruction(id="i", prompt="Add {a} to b.\n"))
    assert system["role"] == "system" and "teaching assistant" in system["content"]
    assert (
        "Exercise:\nAdd {a} to b.\n\nAnswer in this order" in user["content"] and "```python\n" not in user["content"]
    )
    _, user = template("teaching_assistant").messages(Instruction(id="i", prompt="p", starter="def f(x):\n"))
    assert "names and signature as they are:\n```python\ndef f(x):\n```" in user["content"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Write {problem}", "begins with"),
        ("[user]\nWrite {problem} for {who}", "unknown placeholder {who}"),
        ("[user]\nWrite it", "needs {problem}"),
        ("[user]\n{problem}\n[assistant]\nSure", "the last section of a template is"),
    ],
)
def test_bad_templates(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(ValueError, match="mine.txt: .*" + says.replace("{", r"\{").replace("[", r"\[")):
        Template(tmp_path / "mine.txt")


def test_a_starter_stays() -> None:
    mine = Instruction(id="i", prompt="p", starter="def g(x):\n", entry_point="g")
    assert (
        with_signature(mine, TestSuite(instruction_id="i", extra={"entry_point": "f", "signature": "def f():"})) == mine
    )
