"""Properties of the selection over any input: no tie, no twin, no cap exceeded, no verdict of ours, no order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_core.preferences import SelectionConfig, decided, make_pairs, mean_length_difference
from plum_core.preferences.groups import program_key
from plum_core.records import Instruction, Outcome, Sample, Verdict

CODES = (
    "def f(a):\n    x = a + 1\n    return x",
    'def f(a):\n    """Adds."""\n    other = a + 1  # one\n    return other',
    "def f(a):\n    return a",
    "def f(a):\n    return 2 * a",
    "def f(a:",
    "def f(a):\n    for i in a:\n        return i",
)
OUTCOMES = (Outcome.PASSED, Outcome.FAILED, Outcome.SANDBOX_ERROR)
DRAWS = st.lists(
    st.lists(st.tuples(st.sampled_from(CODES), st.sampled_from(OUTCOMES), st.integers(1, 9)), max_size=8),
    min_size=1,
    max_size=4,
)
CHOICES = st.sampled_from(("nearest", "random", "hardest"))


def _records(draws):
    instructions = [Instruction(id=f"i{n}", prompt="?") for n in range(len(draws))]
    samples, verdicts = [], []
    for n, drawn in enumerate(draws):
        for k, (code, outcome, length) in enumerate(drawn):
            samples.append(
                Sample(
                    instruction_id=f"i{n}", index=k, text=code, code=code, token_ids=tuple(range(length)),
                    logprobs=(0.0,) * length, prompt_token_ids=(1,), finish_reason="stop", policy="p", seed=0,
                )
            )  # fmt: skip
            passed = (outcome == Outcome.PASSED,)
            verdicts.append(
                Verdict(id=f"i{n}/{k}", outcome=outcome, passed=passed, detail="", wall_s=0, cpu_s=0, peak_mib=0)
            )
    return samples, verdicts, instructions


@settings(max_examples=80, deadline=None)
@given(draws=DRAWS, choice=CHOICES, most=st.integers(1, 3), balance=st.booleans(), shuffle=st.randoms())
def test_pairs_hold_their_promises(draws, choice, most, balance, shuffle: random.Random):
    config = SelectionConfig(choice=choice, max_pairs=most, balance_lengths=balance, same="names", order="id")
    records = _records(draws)
    pairs, counts = make_pairs(*records, config, 3)
    outcome = {v.id: v.outcome for v in records[1]}
    each: dict[str, int] = {}
    for pair in pairs:
        assert outcome[f"{pair.instruction_id}/{pair.chosen_index}"] == Outcome.PASSED
        assert outcome[f"{pair.instruction_id}/{pair.rejected_index}"] == Outcome.FAILED
        assert program_key(pair.chosen, names=True) != program_key(pair.rejected, names=True)
        each[pair.instruction_id] = each.get(pair.instruction_id, 0) + 1
    assert all(n <= most for n in each.values())
    assert counts.sandbox_error == sum(o == Outcome.SANDBOX_ERROR for o in outcome.values())
    for part in records:
        shuffle.shuffle(part)
    assert make_pairs(*records, config, 3) == (pairs, counts)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (CODES[0], CODES[1], True),
        ("def f():\n    x = 1\n    y = 2\n    return x", "def f():\n    x = 1\n    y = 2\n    return y", False),
        ("def f(a):\n    return a", "def f(b):\n    return b", False),  # callers may name a parameter
        ("def f():\n    global x\n    x = 1", "def f():\n    global y\n    y = 1", False),
        ("def f():\n    x = 1\n    return locals()", "def f():\n    y = 1\n    return locals()", False),
        ("x = 1", "y = 1", False),
    ],
)
def test_names_of_locals_make_no_difference_and_others_do(a, b, same):
    assert (program_key(a, names=True) == program_key(b, names=True)) is same
    assert program_key(a) != program_key(b)


def test_balance_chooses_the_pairs_of_equal_length():
    codes = [f"def f(a):\n    return {n}" for n in range(4)]
    outcomes = (Outcome.PASSED, Outcome.PASSED, Outcome.FAILED, Outcome.FAILED)
    draws = [list(zip(codes, outcomes, (9, 4, 4, 2), strict=True))] * 20
    means = []
    for balance in (False, True):
        config = SelectionConfig(max_pairs=1, choice="random", balance_lengths=balance)
        pairs, _ = make_pairs(*_records(draws), config, 0)
        means.append(mean_length_difference(pairs))
    assert means[1] == 0 and means[0] > 2


def test_decided_needs_both_sides():
    assert decided(4, 5, max_pairs=4) and not decided(9, 3, max_pairs=4)
    for bad in ((-1, 0, 1), (0, 0, 0)):
        with pytest.raises(ValueError, match="must be >="):
            decided(bad[0], bad[1], max_pairs=bad[2])
