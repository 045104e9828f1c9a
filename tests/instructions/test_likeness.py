"""What stands twice in a set, and what a benchmark has too: found where it was planted, and nowhere else."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_core.instructions import BenchmarkIndex, decontaminate, near_duplicates, read_instructions
from plum_core.instructions.near_duplicates import shingles, similarity
from plum_core.records import Instruction
from tests.conftest import shared_data

WORDS = ("sort", "the", "list", "of", "numbers", "and", "print", "each", "+", "-")


def asked(*prompts: str) -> list[Instruction]:
    return [Instruction(id=f"i{n}", prompt=p) for n, p in enumerate(prompts)]


def plain_near_duplicates(instructions, threshold, size):
    """All pairs, by the definition."""
    sets, stay, found = [shingles(i.prompt, size) for i in instructions], [], []
    for number, one in enumerate(sets):
        near = [(similarity(one, sets[k]), -k) for k in stay if similarity(one, sets[k]) >= threshold]
        if near:
            found.append((instructions[number].id, instructions[-max(near)[1]].id, max(near)[0]))
        else:
            stay.append(number)
    return found


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), max_size=25),
    st.sampled_from([0.1, 0.3, 0.5, 0.7, 2 / 3, 0.9, 1.0]),
    st.integers(1, 4),
)
def test_equals_all_pairs(prompts, threshold, size):
    instructions = asked(*prompts)
    found = [(d.id, d.of, d.similarity) for d in near_duplicates(instructions, threshold=threshold, size=size)]
    assert found == plain_near_duplicates(instructions, threshold, size)


def test_copies_are_found_and_different_exercises_are_not():
    base = "Write a function that returns the sum of all even numbers in a list of integers, or 0 where there are none."
    found = list(
        near_duplicates(
            asked(
                base,
                "Write a function that returns the product of two matrices given as lists of rows.",
                base.upper() + "!",
                base.replace("list", "tuple"),
                "a + b",
                "a - b",
            ),
            threshold=0.8,
        )
    )
    assert [(d.id, d.of) for d in found] == [("i2", "i0")]
    assert [d.id for d in near_duplicates(asked(base, base.replace("list", "tuple")))] == ["i1"]  # 0.75


@pytest.mark.parametrize("fields", [{"threshold": 0.0}, {"threshold": 1.1}, {"size": 0}])
def test_a_bad_setting_is_refused(fields):
    with pytest.raises(ValueError, match="near duplicates want"):
        list(near_duplicates(asked("a"), **fields))


@pytest.fixture(scope="module")
def index():
    files = {"humaneval": "humaneval/HumanEval.jsonl.gz", "mbpp": "mbpp/mbpp.jsonl"}
    return BenchmarkIndex.of_files({name: shared_data(path) for name, path in files.items()})


def humaneval(number: int) -> dict[str, str]:
    with gzip.open(shared_data("humaneval/HumanEval.jsonl.gz"), "rt") as file:
        return [json.loads(line) for line in file][number]


def test_a_planted_task_is_found(index):
    task = humaneval(10)
    copy = Instruction(id="copy", prompt="Complete this:\n" + task["prompt"])
    [match] = index.matches(copy)
    assert (match.benchmark, match.task_id, match.where) == ("humaneval", "HumanEval/10", "prompt")
    assert len(match.ngram.split()) == 13 and match.shared > 20
    solved = Instruction(id="s", prompt="Go on.", extra={"solution": task["prompt"] + task["canonical_solution"]})
    assert {(m.task_id, m.where) for m in index.matches(solved)} == {("HumanEval/10", "solution")}


def test_a_paraphrase_that_shares_thirteen_words_is_found_and_twelve_are_not(index):
    words = "Given a positive integer, obtain its roman numeral equivalent as a string, and return it in lowercase."
    assert [m.task_id for m in index.matches(asked(f"Hello! In Python: {words.upper()}\n\nThanks")[0])] == [
        "HumanEval/156"
    ]
    run = words.split()
    thirteen, twelve = " ".join(run[:13]), " ".join(run[:12])
    assert [m.task_id for m in index.matches(asked(f"please {thirteen} thing")[0])] == ["HumanEval/156"]
    assert index.matches(asked(f"please {twelve} thing")[0]) == []


def test_a_short_statement_of_mbpp_is_found_as_a_whole(index):
    text = "Now write a function to find the perimeter of a square, but quickly. And: reverse a string."
    assert [(m.task_id, m.shared) for m in index.matches(asked(text)[0])] == [("Mbpp/17", 1)]
    assert index.matches(asked("Write a function to find the perimeter of a circle.")[0]) == []


def test_what_is_left_and_the_report(index):
    clean, dirty = asked("Write a poem about rain.")[0], replace(asked("x")[0], id="d", prompt=humaneval(3)["prompt"])
    report = []
    assert list(decontaminate([dirty, clean, dirty], index, report)) == [clean]
    assert [(m.instruction_id, m.task_id) for m in report] == [("d", "HumanEval/3")] * 2


def test_a_solution_is_found_and_everyday_code_is_not(index):
    copy = Instruction(id="c", prompt="Do it.", extra={"solution": humaneval(20)["canonical_solution"]})
    assert [(m.task_id, m.where) for m in index.matches(copy)] == [("HumanEval/20", "solution")]
    loops = "for i in range(1, m + 1):\n    for j in range(1, n + 1):\n        table[i][j] = table[i - 1][j]\n"
    assert index.matches(replace(copy, extra={"solution": loops})) == []


def test_unrelated_sets_match_hardly_anything(index):
    report = []
    talks = list(read_instructions(shared_data("instruct_permissive/dummy_conversation.json")))
    assert len(list(decontaminate(talks, index, report))) == 500 and report == []


def test_headings_that_many_tasks_share_tell_nothing(tmp_path):
    heading = "The input is given from Standard Input in the following format on a line of its own"
    rng = random.Random(3)
    rows = [
        {
            "question_id": f"q{n}", "question_content": f"{heading}: " + " ".join(str(rng.random()) for _ in range(20)),
            "starter_code": "", "contest_date": "2024-01-01T00:00:00", "public_test_cases": "[]",
            "private_test_cases": "[]", "difficulty": "easy", "metadata": "{}",
        }
        for n in range(6)
    ]  # fmt: skip
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    index = BenchmarkIndex.of_files({"livecodebench": path})
    assert index.matches(asked(heading)[0]) == []
    assert [m.task_id for m in index.matches(asked(rows[4]["question_content"])[0])] == ["q4"]
    assert len(BenchmarkIndex.of_files({"livecodebench": path}, most_tasks=6).matches(asked(heading)[0])) == 6


def test_an_unknown_benchmark_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no benchmark 'human-eval' to look for: there are humaneval, mbpp"):
        BenchmarkIndex.of_files({"human-eval": tmp_path})
    with pytest.raises(ValueError, match="code_size of 2"):
        BenchmarkIndex(size=1)
