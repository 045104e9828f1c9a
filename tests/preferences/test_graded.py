"""Graded labels, the faster of two right programs, and the ratio of labels."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_core.preferences import SelectionConfig, make_labels, make_pairs
from plum_core.preferences.pairs import NOISE_S
from plum_core.records import Instruction, Outcome, Sample, Verdict

TESTS = 4
Drawn = list[tuple[int, float]]  # (tests passed, CPU seconds) of each sample


def records(draws: list[Drawn]) -> tuple[list[Sample], list[Verdict], list[Instruction]]:
    samples, verdicts = [], []
    for i, drawn in enumerate(draws):
        for k, (right, cpu_s) in enumerate(drawn):
            code = f"def f(a):\n    return {k}"
            samples.append(
                Sample(
                    instruction_id=f"i{i}", index=k, text=code, code=code, token_ids=(k,), logprobs=(0.0,),
                    prompt_token_ids=(1,), finish_reason="stop", policy="p", seed=0,
                )
            )  # fmt: skip
            passed = tuple(n < right for n in range(TESTS))
            outcome = Outcome.SANDBOX_ERROR if right < 0 else Outcome.PASSED if right == TESTS else Outcome.FAILED
            verdicts.append(
                Verdict(id=f"i{i}/{k}", outcome=outcome, passed=passed, detail="", wall_s=0, cpu_s=cpu_s, peak_mib=0)
            )
    return samples, verdicts, [Instruction(id=f"i{i}", prompt="?") for i in range(len(draws))]


def plainly(*right: int) -> Drawn:
    return [(n, 0.1) for n in right]


def test_graded_labels() -> None:
    made = records([plainly(4, 3, 2, 1, 0, -1)])
    labels, counts = make_labels(*made, SelectionConfig(chosen_share=0.75, rejected_share=0.25), 0)
    assert {(label.index, label.label) for label in labels} == {(0, True), (1, True), (3, False), (4, False)}
    assert (counts.between, counts.sandbox_error) == (1, 1)
    strict, counts = make_labels(*made, SelectionConfig(), 0)
    assert {(label.index, label.label) for label in strict} == {(0, True), *((n, False) for n in range(1, 5))}
    assert counts.between == 0
    pairs, _ = make_pairs(*records([plainly(3, 0)]), SelectionConfig(chosen_share=0.75, rejected_share=0.0), 0)
    assert [(p.chosen_index, p.rejected_index) for p in pairs] == [(0, 1)]  # nothing passes all, and it is of use


def test_the_faster_of_two_fills_up() -> None:
    quick_first = [(4, 0.1), (4, 0.5), (4, 0.11), (0, 0.1)]
    pairs, counts = make_pairs(*records([quick_first]), SelectionConfig(faster=2, max_pairs=4, choice="random"), 0)
    told = {(p.chosen_index, p.rejected_index): p.extra for p in pairs}
    assert told[0, 1] == {"faster": [0.1, 0.5]} and counts.faster == 1 and len(pairs) == 4
    pairs, _ = make_pairs(*records([quick_first]), SelectionConfig(faster=2, max_pairs=3), 0)
    assert not any("faster" in p.extra for p in pairs)  # right against wrong comes first
    all_right, counts = make_pairs(*records([[(4, 0.1), (4, 0.4)]]), SelectionConfig(faster=3), 0)
    assert [(p.chosen_index, p.rejected_index) for p in all_right] == [(0, 1)] and counts.all_passed == 1
    for times in ((0.1, 0.29), (0.001, 0.001 + NOISE_S / 2)):  # too small a ratio, and too small a difference
        assert make_pairs(*records([[(4, s) for s in times]]), SelectionConfig(faster=3), 0)[0] == []


@settings(max_examples=60, deadline=None)
@given(
    draws=st.lists(st.lists(st.integers(-1, TESTS), max_size=8).map(lambda n: plainly(*n)), min_size=1, max_size=4),
    ratio=st.sampled_from((0.0, 1.0, 1.5)),
    most=st.integers(1, 4),
    shares=st.sampled_from(((1.0, 1.0), (1.0, 0.5), (0.75, 0.25), (0.5, 0.0))),
    mixed=st.booleans(),
    shuffle=st.randoms(),
)
def test_labels_hold_their_promises(
    draws: list[Drawn], ratio: float, most: int, shares: Any, mixed: bool, shuffle: random.Random
) -> None:
    high, low = shares
    grades = {"chosen_share": high, "rejected_share": low}
    config = SelectionConfig(**grades, label_ratio=ratio, max_labels=most, mixed_only=mixed, order="id")
    made = records(draws)
    labels, counts = make_labels(*made, config, 3)
    share = {v.id: sum(v.passed) / TESTS for v in made[1] if v.outcome != Outcome.SANDBOX_ERROR}
    each: dict[tuple[str, bool], int] = {}
    for label in labels:
        found = share[f"{label.instruction_id}/{label.index}"]  # never of a sandbox error
        assert found >= high if label.label else found < high and found <= low
        key = label.instruction_id, label.label
        each[key] = each.get(key, 0) + 1
    assert all(n <= most for n in each.values()) and counts.kept == len(labels)
    good = sum(label.label for label in labels)
    if ratio:
        assert max(good, len(labels) - good) <= ratio * min(good, len(labels) - good)
    if mixed:
        for name in {label.instruction_id for label in labels} if not ratio else ():
            assert (name, True) in each and (name, False) in each
    for part in made:
        shuffle.shuffle(part)
    assert make_labels(*made, config, 3) == (labels, counts)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"chosen_share": 0.0}, "chosen_share must be in"),
        ({"chosen_share": 0.5}, "rejected_share must be below chosen_share=0.5"),
        ({"faster": 1.0}, "faster must be 0"),
        ({"label_ratio": 0.5}, "label_ratio must be 0"),
    ],
)
def test_bad_settings(words: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SelectionConfig(**words)  # type: ignore[arg-type]
