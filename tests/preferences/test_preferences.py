"""What becomes a preference and what never does, on drawn inputs and on the cases that matter."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_core.preferences import SelectionConfig, edit_distance, make_labels, make_pairs, verdict_id
from plum_core.preferences.groups import program_key
from plum_core.records import Instruction, Outcome, Sample, Verdict
from plum_core.records.codec import encode_line

JUDGED = [o for o in Outcome if o != Outcome.SANDBOX_ERROR]


def sample(index: int, code: str, *, task: str = "t", finish: str = "stop", ids: tuple[int, ...] = ()) -> Sample:
    return Sample(
        instruction_id=task,
        index=index,
        text=code,
        code=code,
        token_ids=ids or tuple(code.encode()),
        logprobs=(),
        prompt_token_ids=(1, 2),
        finish_reason=finish,
        policy="p",
        seed=index,
    )


def verdict(of: Sample, outcome: Outcome | str, passed: tuple[bool, ...] = (), *, attested: bool = True) -> Verdict:
    return Verdict(
        id=verdict_id(of),
        outcome=Outcome(outcome),
        passed=passed,
        detail="",
        wall_s=0,
        cpu_s=0,
        peak_mib=0,
        attested=attested,
    )


def pairs_of(judged: list[tuple[Sample, Verdict]], **config: Any) -> Any:
    instructions = [
        Instruction(id=name, prompt="do it", starter="") for name in {s.instruction_id: 0 for s, _ in judged}
    ]
    return make_pairs([s for s, _ in judged], [v for _, v in judged], instructions, SelectionConfig(**config), 0)


@st.composite
def rounds(draw: st.DrawFn) -> tuple[list[Sample], list[Verdict], list[Instruction]]:
    instructions = [Instruction(id=f"t{i}", prompt=f"p{i}") for i in range(draw(st.integers(1, 3)))]
    samples, verdicts = [], []
    codes = st.sampled_from([f"x = {i}" for i in range(6)] + ["x=0", "x = 0  # same", "def (", "return"])
    for instruction in instructions:
        for index in range(draw(st.integers(0, 8))):
            one = sample(index, draw(codes), task=instruction.id, finish=draw(st.sampled_from(["stop", "length"])))
            samples.append(one)
            if draw(st.integers(0, 9)):
                tests = tuple(draw(st.lists(st.booleans(), min_size=3, max_size=3)))
                verdicts.append(verdict(one, draw(st.sampled_from(list(Outcome))), tests, attested=draw(st.booleans())))
    return samples, draw(st.permutations(verdicts)), instructions


configs = st.builds(
    SelectionConfig,
    max_pairs=st.integers(1, 5),
    max_labels=st.integers(1, 4),
    choice=st.sampled_from(["nearest", "random", "hardest"]),
    labels=st.sampled_from(["verdict", "random"]),
    unrunnable=st.booleans(),
    mixed_only=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(rounds(), configs, st.integers(0, 3))
def test_properties_of_pairs(data: Any, config: SelectionConfig, seed: int) -> None:
    samples, verdicts, instructions = data
    pairs, counts = make_pairs(samples, verdicts, instructions, config, seed)
    code = {verdict_id(s): s for s in samples}
    judged = {v.id: v for v in verdicts}
    for pair in pairs:
        chosen = code[f"{pair.instruction_id}/{pair.chosen_index}"]
        rejected = code[f"{pair.instruction_id}/{pair.rejected_index}"]
        assert program_key(chosen.code)[0] != program_key(rejected.code)[0]
        assert chosen.finish_reason == "stop"
        both = [judged[verdict_id(s)] for s in (chosen, rejected)]
        assert all(v.attested and v.outcome != Outcome.SANDBOX_ERROR for v in both)
        if config.labels == "verdict":
            assert [v.outcome == Outcome.PASSED for v in both] == [True, False]
            assert config.unrunnable or program_key(rejected.code)[1]
    assert max(Counter(p.instruction_id for p in pairs).values(), default=0) <= config.max_pairs
    assert len({(p.instruction_id, p.chosen_index, p.rejected_index) for p in pairs}) == len(pairs)
    assert counts.kept == len(pairs)
    assert counts.instructions == counts.mixed + counts.all_passed + counts.all_failed + counts.unjudged
    again, _ = make_pairs(samples[::-1], verdicts[::-1], instructions, config, seed)
    assert b"".join(map(encode_line, again)) == b"".join(map(encode_line, pairs))


@settings(max_examples=100, deadline=None)
@given(rounds(), configs, st.integers(0, 3))
def test_random_labels_change_no_count(data: Any, config: SelectionConfig, seed: int) -> None:
    samples, verdicts, instructions = data
    for make in (make_pairs, make_labels):
        made: list[Any] = [
            make(samples, verdicts, instructions, dataclasses.replace(config, labels=labels), seed)
            for labels in ("verdict", "random")
        ]
        assert made[0][1] == made[1][1]
        assert Counter(r.instruction_id for r in made[0][0]) == Counter(r.instruction_id for r in made[1][0])


@settings(max_examples=100, deadline=None)
@given(rounds(), configs, st.integers(0, 3))
def test_properties_of_labels(data: Any, config: SelectionConfig, seed: int) -> None:
    samples, verdicts, instructions = data
    labels, counts = make_labels(samples, verdicts, instructions, config, seed)
    judged = {v.id: v for v in verdicts}
    for label in labels:
        found = judged[f"{label.instruction_id}/{label.index}"]
        assert found.attested and found.outcome != Outcome.SANDBOX_ERROR
        assert config.labels == "random" or label.label == (found.outcome == Outcome.PASSED)
    sides = Counter((r.instruction_id, r.label) for r in labels)
    assert max(sides.values(), default=0) <= config.max_labels and counts.kept == len(labels)
    if config.mixed_only:
        assert {(name, not side) for name, side in sides} == set(sides)


def test_random_labels_are_random() -> None:
    """Over many instructions, half of the control's choices go against the verdict."""
    judged = []
    for task in range(300):
        for index in range(4):
            one = sample(index, f"x = {index}", task=f"t{task}")
            judged.append((one, verdict(one, "passed" if index < 2 else "failed")))
    pairs, _ = pairs_of(judged, labels="random", max_pairs=1)
    assert len(pairs) == 300
    assert sum(p.chosen_index < 2 for p in pairs) == pytest.approx(150, abs=35)


def test_every_exclusion_is_counted() -> None:
    cases = [
        (sample(0, "x = 1"), "passed"),
        (sample(1, "x  =  1  # again"), "passed"),
        (sample(2, "x = 2", finish="length"), "passed"),
        (sample(3, "x = 3"), "failed"),
        (sample(4, "x = 3"), "failed"),
        (sample(5, "def ("), "error"),
        (sample(6, "return 1"), "error"),
        (sample(7, "x = 7"), "sandbox_error"),
        (sample(8, "x = 8"), "passed"),
        (sample(9, "x = 8"), "failed"),
    ]
    judged = [(s, verdict(s, o)) for s, o in cases]
    own, missing = sample(10, "x = 10"), sample(11, "x = 11")
    judged += [(own, verdict(own, "failed", attested=False)), (missing, verdict(sample(99, ""), "failed"))]
    pairs, counts = pairs_of(judged)
    assert [(p.chosen_index, p.rejected_index) for p in pairs] == [(0, 3)]
    assert pairs[0].prompt == "# do it\n" and pairs[0].chosen_token_ids == tuple(b"x = 1")
    expected = {"samples": 12, "no_verdict": 1, "sandbox_error": 1, "unattested": 1, "duplicate": 2, "flaky": 2}
    expected |= {"truncated": 1, "unrunnable": 2, "chosen": 1, "rejected": 1, "mixed": 1, "kept": 1, "capped": 0}
    assert {name: getattr(counts, name) for name in expected} == expected
    _, with_them = pairs_of(judged, unrunnable=True)
    assert (with_them.kept, with_them.unrunnable) == (3, 0)


def test_only_unrunnable_failures_make_no_pair() -> None:
    good, bad = sample(0, "x = 1"), sample(1, "x = = 1")
    judged = [(good, verdict(good, "passed")), (bad, verdict(bad, "error"))]
    pairs, counts = pairs_of(judged)
    assert pairs == [] and (counts.mixed, counts.one_sided) == (1, 1)
    samples, verdicts = [s for s, _ in judged], [v for _, v in judged]
    labels, counts = make_labels(samples, verdicts, [Instruction(id="t", prompt="")], SelectionConfig(), 0)
    assert labels == [] and counts.one_sided == 1


def test_choices() -> None:
    good = sample(0, "good", ids=(1, 2, 3, 4))
    near = sample(1, "near", ids=(1, 2, 9, 4))
    hard = sample(2, "hard", ids=(7, 8, 9, 9, 9))
    judged = [
        (good, verdict(good, "passed", (True,) * 4)),
        (near, verdict(near, "failed", (True, False, False, False))),
        (hard, verdict(hard, "failed", (True, True, True, False))),
    ]
    first = {
        choice: pairs_of(judged, choice=choice, max_pairs=1)[0][0].rejected_index for choice in ("nearest", "hardest")
    }
    assert first == {"nearest": 1, "hardest": 2}
    drawn = set()
    for seed in range(20):
        config = SelectionConfig(choice="random", max_pairs=1)
        instruction = Instruction(id="t", prompt="")
        pairs, _ = make_pairs([s for s, _ in judged], [v for _, v in judged], [instruction], config, seed)
        drawn.add(pairs[0].rejected_index)
    assert drawn == {1, 2}


def test_pairs_spread_over_programs_before_they_repeat_one() -> None:
    drawn = [sample(i, f"x = {i}", ids=(i,)) for i in range(6)]
    judged = [(s, verdict(s, "passed" if s.index < 3 else "failed")) for s in drawn]
    pairs, counts = pairs_of(judged, max_pairs=3)
    assert {p.chosen_index for p in pairs} == {0, 1, 2} and {p.rejected_index for p in pairs} == {3, 4, 5}
    assert counts.capped == 6
    assert len(pairs_of(judged, max_pairs=20)[0]) == 9


def test_a_total_is_drawn_over_all_instructions() -> None:
    drawn = [sample(i, f"x = {i}", ids=(i,)) for i in range(6)]
    judged = [(s, verdict(s, "passed" if s.index < 3 else "failed")) for s in drawn]
    everything, _ = pairs_of(judged, max_pairs=9)
    pairs, counts = pairs_of(judged, max_pairs=9, max_total=5)
    assert (len(pairs), counts.kept, counts.capped) == (5, 5, 4)
    places = [everything.index(p) for p in pairs]
    assert places == sorted(places) and places != list(range(5))
    assert pairs_of(judged, max_pairs=9, max_total=9)[0] == everything
    with pytest.raises(ValueError, match="max_total must be >= 1 or unset, got 0"):
        SelectionConfig(max_total=0)


def test_what_cannot_be_joined_is_refused() -> None:
    one = sample(0, "x = 1")
    instruction = Instruction(id="t", prompt="")
    with pytest.raises(ValueError, match="its instruction is not among"):
        make_pairs([one], [], [], SelectionConfig(), 0)
    with pytest.raises(ValueError, match="sample t/0 comes twice"):
        make_pairs([one, one], [], [instruction], SelectionConfig(), 0)
    with pytest.raises(ValueError, match="verdict t/0 comes twice"):
        make_pairs([one], [verdict(one, "passed")] * 2, [instruction], SelectionConfig(), 0)
    with pytest.raises(ValueError, match="max_pairs must be >= 1, got 0"):
        SelectionConfig(max_pairs=0)


@pytest.mark.parametrize(
    "code", ["-" * 60_000 + "1", "(" * 5000, "\0", "\ud800", "x" * 100_000, "1" * 9000, "[" * 90 + "]" * 90]
)
def test_no_program_text_breaks_the_analysis(code: str) -> None:
    key, runs = program_key(code)
    assert key and isinstance(runs, bool)


def plain_distance(a: list[int], b: list[int]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=90), st.lists(st.integers(0, 3), max_size=90))
def test_edit_distance_is_the_textbooks(a: list[int], b: list[int]) -> None:
    assert edit_distance(a, b) == plain_distance(a, b)


def test_a_round_of_the_embedded_size_takes_seconds() -> None:
    body = "def solve(nums):\n    out = [n * {0} for n in nums if n > {1}]\n    return sum(out[:{2}])\n"
    judged = []
    for task in range(350):  # half a round
        for index in range(16):
            one = sample(
                index, body.format(index, task, index % 5), task=f"t{task}", ids=tuple(range(index, index + 50))
            )
            judged.append((one, verdict(one, "passed" if index % 2 else "failed")))
    start = time.process_time()
    pairs, _ = pairs_of(judged)
    assert len(pairs) == 350 * 4 and time.process_time() - start < 8
