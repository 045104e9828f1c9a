"""Advantages of groups of verdicts, and the weights of a pair's tokens."""

from __future__ import annotations

import math
import random

import pytest
import torch

from plum_core.objectives import (
    common_tokens,
    group_advantages,
    informative_groups,
    ld_weights,
    leave_one_out_advantages,
    overlong_penalty,
    span_weights,
)

NAN = math.nan
VERDICTS = torch.tensor(
    [
        [1.0, 0.0, 0.0, 1.0, 1.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [0.1, 0.1, 0.1, 0.1, 0.1],  # its mean in fp32 is not 0.1
        [1.0, NAN, 0.0, NAN, 0.5],  # two samples without a verdict
        [NAN, NAN, 1.0, NAN, NAN],
        [NAN, NAN, NAN, NAN, NAN],
    ]
)


def test_informative_groups():
    assert informative_groups(VERDICTS).tolist() == [True, False, False, True, False, False]
    assert informative_groups(torch.zeros(2, 1)).tolist() == [False, False]


def test_group_advantages_are_the_formula():
    got = group_advantages(VERDICTS)
    for row in (0, 3):
        scored = ~VERDICTS[row].isnan()
        rewards = VERDICTS[row][scored]
        torch.testing.assert_close(got[row][scored], (rewards - rewards.mean()) / (rewards.std() + 1e-4))
        assert not got[row][~scored].any()
    assert not got[[1, 2, 4, 5]].any(), "a group of equal verdicts teaches nothing, not even a rounding"


def test_other_scales():
    plain = group_advantages(VERDICTS, scale="none")
    assert plain[0].tolist() == pytest.approx([0.4, -0.6, -0.6, 0.4, 0.4])
    flat = VERDICTS[~VERDICTS.isnan()]
    torch.testing.assert_close(group_advantages(VERDICTS, scale="batch"), plain / (flat.std() + 1e-4))


def test_leave_one_out_advantages_are_the_formula():
    got = leave_one_out_advantages(VERDICTS)
    assert got[0].tolist() == pytest.approx([0.5, -0.75, -0.75, 0.5, 0.5])
    assert got[3].tolist() == pytest.approx([0.75, 0, -0.75, 0, 0.0])
    assert not got[[1, 2, 4, 5]].any()
    assert got.sum(1).abs().max() < 1e-6


def test_leave_one_out_advantages_normalised():
    got = leave_one_out_advantages(VERDICTS[:2], normalise=True)
    plain = leave_one_out_advantages(VERDICTS[:2])
    torch.testing.assert_close(got, (plain - plain.mean()) / (plain.std() + 1e-4))


def test_overlong_penalty():
    got = overlong_penalty(torch.tensor([0, 60, 80, 100, 1000]), limit=100, margin=40)
    assert got.tolist() == pytest.approx([0, 0, -0.5, -1, -1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: group_advantages(torch.zeros(3)), r"\(P, K\) and floating-point, got \(3,\)"),
        (lambda: group_advantages(torch.zeros(2, 2, dtype=torch.int64)), "int64"),
        (lambda: group_advantages(torch.zeros(2, 2), scale="std"), "group, batch or none, got 'std'"),
        (lambda: overlong_penalty(torch.zeros(1), limit=10, margin=11), "got 11 of 10"),
        (lambda: ld_weights("a", "b", alpha=-0.1), "got -0.1: 1 is plain DPO"),
        (lambda: span_weights("a", "b", common_weight=-1.0), "common_weight must be >= 0"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def lcs_length(a, b):
    """By the table of textbooks."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@pytest.mark.parametrize("seed", range(200))
def test_common_tokens_are_a_longest_common_subsequence(seed):
    draw = random.Random(seed)
    a, b = ([draw.randrange(draw.choice((2, 5))) for _ in range(draw.choice((0, 1, 7, 63, 64, 65)))] for _ in "ab")
    in_a, in_b = common_tokens(a, b)
    assert [len(in_a), len(in_b)] == [len(a), len(b)]
    assert [x for x, same in zip(a, in_a, strict=True) if same] == [x for x, same in zip(b, in_b, strict=True) if same]
    assert sum(in_a) == lcs_length(a, b) == sum(common_tokens(b, a)[0])


def test_span_weights_focus_on_the_difference():
    right, wrong = ["return", "a", "+", "b"], ["return", "a", "-", "b", "if", "b"]
    assert span_weights(right, wrong, common_weight=0.25) == (
        (0.25, 0.25, 1.0, 0.25),
        (0.25, 0.25, 1.0, 0.25, 1.0, 1.0),
    )
    assert span_weights(right, wrong, common_weight=1.0) == ((1.0,) * 4, (1.0,) * 6)
    assert span_weights(right, right) == ((0.1,) * 4, (0.1,) * 4)
    assert span_weights((), right) == ((), (1.0,) * 4)


def test_ld_weights_fade_what_only_the_longer_one_has():
    assert ld_weights("abc", "wxyzv", alpha=0.3) == ((1.0,) * 3, (1.0, 1.0, 1.0, 0.3, 0.3))
    assert ld_weights("", "x") == ((), (0.5,))
