"""sample_tokens' kernels under Triton's interpreter; ``test_triton.py`` starts it, as it does triton_cases.py."""

from __future__ import annotations

import os

import pytest
import torch
from test_sample import OPTIONS, call, case

from plum_core.sampling.gpu_draw import gpu_draw
from plum_core.sampling.params import SamplingParams
from plum_core.sampling.penalties import Past
from plum_kernels.sample import sample_tokens

if os.environ.get("TRITON_INTERPRET") != "1":
    raise RuntimeError("set TRITON_INTERPRET=1 before the start")

pytestmark = pytest.mark.poison
# a row is read 32 logits at a time
SHAPES = [(1, 1), (5, 7), (3, 31), (3, 32), (3, 33), (0, 9)]


def agree(got, want):
    assert torch.equal(got[0], want[0])
    for ours, truth in zip(got[1:], want[1:], strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equal_to_the_definition(options):
    for dtype, rows in ((torch.float32, 12), (torch.bfloat16, 6)):
        arrays = case(rows=rows, dtype=dtype)
        agree(call(arrays, "triton", **options), call(arrays, "reference", **options))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ugly_shapes(shape):
    arrays = case(*shape)
    for options in (OPTIONS[0], OPTIONS[1], OPTIONS[-1], OPTIONS[6]):
        agree(call(arrays, "triton", **options), call(arrays, "reference", **options))


def test_logits_of_minus_infinity_ties_and_extremes():
    logits = torch.full((4, 70), -torch.inf)
    logits[0, 69] = 0.0  # one token alone, in the last visit
    logits[1, ::7] = 1e4
    logits[2] = 0.0  # all alike
    logits[3, :3] = torch.tensor([-1e4, -1e4 - 1, 3e38])
    arrays = (logits, torch.arange(4), torch.arange(4), *case(4)[3:])
    for options in ({}, {"top_k": 1}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.9}, {"temperature": 0.0}):
        agree(call(arrays, "triton", **options), call(arrays, "reference", **options))


def test_a_row_gets_the_same_bits_in_any_batch():
    arrays = case(rows=6)
    whole = call(arrays, "triton", **OPTIONS[-1])
    alone = call(tuple(x[4:5] for x in arrays), "triton", **OPTIONS[-1])
    padded = (arrays[0], *arrays[1:4], torch.nn.functional.pad(arrays[4], (0, 5), value=-1))
    for got, want, more in zip(alone, whole, call(padded, "triton", **OPTIONS[-1]), strict=True):
        assert torch.equal(got[0], want[4]) and torch.equal(more, want)


def test_rows_with_a_stride():
    logits, *rest = case(rows=4)
    wide = torch.nn.functional.pad(logits, (0, 11), value=9.0)[:, : logits.shape[1]]
    assert torch.equal(call((wide, *rest), "triton")[0], call((logits, *rest), "triton")[0])


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "min_p": 0.2}], ids=str)
def test_draws_follow_the_distribution(options):
    """Chi-square of 600 draws; at 5 degrees of freedom or fewer one seed in ten thousand would pass 25."""
    logits = torch.tensor([0.3, -0.4, 0.9, 0.0, -1.0, 0.5])
    count = 600
    tokens, _, sampled = sample_tokens(
        logits.expand(count, -1).contiguous(),
        torch.arange(count),
        torch.zeros(count).long(),
        backend="triton",
        **options,
    )
    scaled = logits / options.get("temperature", 1.0)
    if "min_p" in options:
        scaled[scaled.softmax(0) < options["min_p"] * scaled.softmax(0).max()] = -torch.inf
    chances = scaled.softmax(0)
    torch.testing.assert_close(sampled, chances.log()[tokens], rtol=1e-5, atol=1e-5)
    seen, expected = torch.bincount(tokens, minlength=6), chances * count
    held = expected > 0
    assert not seen[~held].any()
    assert ((seen - expected)[held] ** 2 / expected[held]).sum() < 25
    wrong = expected[held].flip(0)  # the test can fail
    assert ((seen[held] - wrong) ** 2 / wrong).sum() > 25


def test_the_samplers_call_draws_the_same():
    logits, seeds, positions, prompt, drawn = arrays = case(rows=5)
    params = SamplingParams(top_p=0.8, repetition_penalty=1.2, temperature=0.9)
    got = gpu_draw(logits, seeds, positions, params, Past(prompt, drawn))
    agree(got, call(arrays, "reference", top_p=0.8, repetition_penalty=1.2, temperature=0.9))
