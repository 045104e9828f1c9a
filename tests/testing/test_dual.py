"""Several answers that vote: the majority's solution and the tests that it passes, whoever wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from plum_core.execution import Executor
from plum_core.records import Instruction
from plum_core.testing.authored import AskConfig, write_authored_suites
from plum_core.testing.filters import FilterConfig
from plum_core.testing.generators import Answer, AnswerRequest
from tests.testing.broken import answer

RIGHT = "def triple(x):\n    return 3 * x"
LONGER = "def triple(x):\n    y = x + x\n    return y + x"
WRONG = "def triple(x):\n    return x ** 3"
TESTS = "assert triple(1) == 3\nassert triple(2) == 6\nassert triple(5) == 15\nassert triple(-1) == -3"
ODD = "assert triple(0) == 0\nassert triple(4) == 64\nassert triple(3) == 27\nassert triple(2) == 8"


class Scripted:
    """Answers by id."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def answers(self, requests: Iterable[AnswerRequest]) -> Iterator[Answer]:
        asked = list(requests)
        assert len({request.seed for request in asked}) == len(asked)
        yield from (Answer(id=r.id, text=self.texts[int(r.id.rpartition("/")[2])]) for r in reversed(asked))


@pytest.fixture(scope="module")
def executors() -> Iterator[tuple[Executor, Executor]]:
    with Executor(workers=1) as here, Executor(workers=1, hash_seed=1) as elsewhere:
        yield here, elsewhere


@pytest.mark.parametrize(
    ("texts", "why", "tests"),
    [
        ([answer(LONGER, TESTS), answer(WRONG, ODD), answer(RIGHT, TESTS + "\nassert triple(7) == 21")], "", 6),
        ([answer(RIGHT, TESTS), answer(WRONG, ODD)], "disagreement", 0),
        ([answer(RIGHT, TESTS), "I cannot.", "I will not."], "disagreement", 0),  # alone is no agreement
        (["I cannot.", "No.", answer(RIGHT, "print(1)")], "no-reference", 0),
        ([answer(RIGHT, TESTS), answer(RIGHT.replace("triple", "thrice"), ODD), answer(LONGER, TESTS)], "", 4),
    ],
)
def test_votes(texts: list[str], why: str, tests: int, executors: tuple[Executor, Executor]) -> None:
    ask = AskConfig(samples=len(texts), temperature=0.8)
    instruction = Instruction(id="i", prompt="Three times x.")
    (suite,) = write_authored_suites(
        [instruction],
        Scripted(texts),
        lambda i: ({"role": "user", "content": i.prompt},),
        executors,
        FilterConfig(mutants=4),
        seed=0,
        ask=ask,
    )
    assert (suite.why, len(suite.tests)) == (why, tests)
    assert suite.reference == (None if why else RIGHT + "\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"samples": 3}, "needs ask.temperature > 0"),
        ({"samples": 0}, "ask.samples must be"),
        ({"least_share": 0}, "in "),
    ],
)
def test_bad_questions(words: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        AskConfig(**words)  # type: ignore[arg-type]
