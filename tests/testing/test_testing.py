"""Stage 1: what solutions agree on, what is thrown out and why."""

from __future__ import annotations

import ast

import pytest

from plum_core.execution import Executor
from plum_core.records import Instruction
from plum_core.sampling import Completion
from plum_core.testing import TestingConfig, agree, propose_calls, write_suites

STARTER = "def solve(nums: list[int]) -> int:\n"
RULES = {"least_share": 0.6, "least_tests": 3, "least_outputs": 3}
CALLS = ["solve([1])", "solve([2])", "solve([3])", "solve([4])"]


def test_the_plurality_becomes_the_tests():
    right, wrong = ("1", "4", "9", "16"), ("1", "4", "9", "0")
    found = agree(CALLS, [("long right", right), ("right", right), ("odd", wrong), ("right", right)], **RULES)
    assert found.why == ""
    assert found.reference == "right"
    assert found.share == 0.75
    assert found.tests == tuple(f"assert {c} == {o}" for c, o in zip(CALLS, right, strict=True))


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([("a", ("1", "2", "3", "4")), ("b", ("5", "6", "7", "8"))], "disagreement"),
        ([("a", (None, None, "3", "4"))], "undefined"),
        ([("a", (None, None, None, None))], "undefined"),
        ([("a", ("1", "1", "1", "2"))], "trivial"),
        ([("a", ("[1]", "[2]", "[3]", "[4]"))], "trivial"),  # the argument itself
        ([("a", ("True", "True", "True", "True"))], "trivial"),
    ],
)
def test_what_makes_no_test_says_why(answers, why):
    found = agree(CALLS, answers, **RULES)
    assert (found.why, found.tests, found.reference) == (why, (), None)


def test_failing_solutions_do_not_outvote_those_that_answer():
    broken = [("broken", (None,) * 4)] * 3
    assert agree(CALLS, [*broken, ("a", ("1", "4", "9", "16"))], **RULES).why == "disagreement"


def test_calls_fit_the_signature_and_repeat():
    starter = "def solve(scores: dict[str, int], k: int) -> int:\n"
    calls = propose_calls(starter, "solve", 6, seed=4)
    assert calls == propose_calls(starter, "solve", 6, seed=4)
    assert len(set(calls)) == 6
    for call in calls:
        first, second = map(ast.literal_eval, ast.parse(call, mode="eval").body.args)
        assert isinstance(first, dict) and isinstance(second, int)


@pytest.mark.parametrize(
    ("starter", "message"),
    [
        ("def other(x: int):\n", "does not define solve"),
        ("def solve(x: set[int]):\n", "no input generator for the type"),
        ("def solve(:\n", "not the beginning of a function"),
    ],
)
def test_a_signature_without_inputs_is_refused(starter, message):
    with pytest.raises(ValueError, match=message):
        propose_calls(starter, "solve", 3, seed=0)


class FakeTokenizer:
    bos_token_id = None

    def encode(self, text):
        return [1]


class FakeAuthor:
    """Answers each instruction with the texts that the test gives."""

    tokenizer = FakeTokenizer()

    def __init__(self, texts):
        self.texts = texts

    def sample(self, requests, params):
        for request in requests:
            for index, seed in enumerate(request.seeds):
                yield Completion(
                    request_id=request.id, index=index, token_ids=(1,), logprobs=(0.0,),
                    text=self.texts[request.id][index], finish_reason="stop", seed=seed,
                )  # fmt: skip


@pytest.mark.timeout(60)
def test_suites_come_from_execution():
    texts = {
        "sum": ["    return sum(nums)\n"] * 3 + ["    import os; os._exit(0)\n"],
        "split": ["    return sum(nums)\n", "    return len(nums)\n", "    return max(nums)\n", "    return 1 / 0\n"],
        "same": ["    return 7\n"] * 4,
        "loops": ["    while True: pass\n"] * 4,
    }
    instructions = [Instruction(id=name, prompt=name, entry_point="solve", starter=STARTER) for name in texts]
    config = TestingConfig(solutions=4, inputs=6, least_share=0.7)
    with Executor(workers=1) as executor:
        suites = list(write_suites(instructions, FakeAuthor(texts), executor, config, seed=3))
    assert [s.instruction_id for s in suites] == list(texts)
    assert {s.instruction_id: (s.kept, s.why) for s in suites} == {
        "sum": (True, ""),
        "split": (False, "disagreement"),
        "same": (False, "trivial"),
        "loops": (False, "undefined"),
    }
    assert suites[0].reference == STARTER + "    return sum(nums)\n"
    for test in suites[0].tests:
        exec(test, {"solve": sum})


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="least_share"):
        TestingConfig(least_share=0.0)
    with pytest.raises(ValueError, match="inputs"):
        TestingConfig(inputs=2)
