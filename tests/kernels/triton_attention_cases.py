"""packed_attention's kernels under Triton's interpreter; ``test_triton.py`` starts it, as it does triton_cases.py."""

from __future__ import annotations

import os

import pytest
import torch
from test_packed_attention import inputs, outcome

from plum_kernels import packed_attention

if os.environ.get("TRITON_INTERPRET") != "1":
    raise RuntimeError("set TRITON_INTERPRET=1 before the start")

from plum_kernels.attention import operator

pytestmark = pytest.mark.poison
# weights and the scores' gradients are rounded to the operands' dtype before their products
HAIR = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}
# tiles are 16 x 8, 8 x 16 and 16 x 16
LENGTHS = [
    (1,),  # everything is an edge
    (37,),  # one sequence alone
    (0, 7, 0, 0, 13, 0),  # empty ones at every place
    (15, 16, 17, 1),  # a tile - 1, a tile, a tile + 1
    (7, 8, 9, 23),
]
SHAPES = [
    {"heads": 4, "groups": 2, "width": 8},
    {"heads": 3, "groups": 1, "width": 20},  # a width that is no power of two
    {"heads": 2, "groups": 2, "width": 16},
]
OPTIONS = [{}, {"window": 9}, {"window": 1}, {"scale": 0.7, "window": 16}]


def within_budget(got, plain, exact, dtype):
    for name, ours, usual, truth in zip(("out", "dq", "dk", "dv"), got, plain, exact, strict=True):
        allowed = (usual.double() - truth).abs().max() + HAIR[dtype] * (1 + truth.abs().max())
        assert (ours.double() - truth).abs().max() <= allowed, name


@pytest.mark.parametrize("dtype", HAIR, ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_error_budget(lengths, dtype):
    for shape, options in zip(SHAPES * 2, OPTIONS, strict=False):
        *arrays, cu = inputs(dtype, lengths=lengths, **shape)
        exact = outcome("reference", [t.double() for t in arrays], cu, **options)
        plain = outcome("reference", arrays, cu, **options)
        within_budget(outcome("triton", arrays, cu, **options), plain, exact, dtype)


def test_the_budget_can_be_missed():
    *arrays, cu = inputs(torch.float32)
    exact = outcome("reference", [t.double() for t in arrays], cu)
    with pytest.raises(AssertionError, match="out"):
        within_budget(outcome("triton", arrays, cu, window=3), outcome("reference", arrays, cu), exact, torch.float32)


@pytest.mark.parametrize("scale", [0.0, 1e4], ids=["equal scores", "scores of 1e4"])
def test_extreme_scores(scale):
    *arrays, cu = inputs(torch.float32, lengths=(17, 5))
    exact = outcome("reference", [t.double() for t in arrays], cu, scale=scale)
    plain = outcome("reference", arrays, cu, scale=scale)
    got = outcome("triton", arrays, cu, scale=scale)
    assert all(t.isfinite().all() for t in got)
    for ours, usual, truth in zip(got, plain, exact, strict=True):
        # a score's gradient is the difference of two rounded numbers, times the scale
        allowed = (usual.double() - truth).abs().max() + 2e-6 * max(1, scale) * (1 + truth.abs().max())
        assert (ours.double() - truth).abs().max() <= allowed


def test_the_logsumexp_is_that_of_the_scores():
    q, k, v, cu = inputs(torch.float32, heads=2, groups=1, lengths=(5, 0, 18))
    _, lse = operator.packed_attention_op(q, k, v, cu, 0, 0.3)
    for a, b in ((0, 5), (5, 23)):
        scores = torch.einsum("qhe,ke->hqk", q[a:b], k[a:b, 0]) * 0.3
        hidden = torch.ones(b - a, b - a, dtype=torch.bool).triu(1)
        torch.testing.assert_close(lse[:, a:b], scores.masked_fill(hidden, -torch.inf).logsumexp(-1))


def test_parts_of_one_projection_are_read_where_they_lie():
    qkv = torch.randn(23, 4 + 2 + 2, 8)
    cu = torch.tensor([0, 9, 23])
    parts = qkv.split((4, 2, 2), 1)
    assert not parts[0].is_contiguous()
    got, want = outcome("triton", parts, cu), outcome("reference", [t.double() for t in parts], cu)
    for ours, truth in zip(got, want, strict=True):
        torch.testing.assert_close(ours.double(), truth, rtol=1e-5, atol=1e-5)
    spread = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in parts]  # the last dimension is not dense
    assert torch.equal(outcome("triton", spread, cu)[0], got[0])


def test_a_sequence_gets_the_same_bits_in_any_batch():
    q, k, v, cu = inputs(torch.float32, lengths=(17, 3, 21))
    whole = packed_attention(q, k, v, cu, 21, backend="triton")
    alone = packed_attention(q[20:], k[20:], v[20:], torch.tensor([0, 21]), 21, backend="triton")
    assert torch.equal(whole[20:], alone)


def test_twenty_runs_are_bit_equal():
    *arrays, cu = inputs(torch.bfloat16, heads=2, groups=1, lengths=(9, 3))
    first = outcome("triton", arrays, cu)
    for _ in range(19):
        assert all(torch.equal(a, b) for a, b in zip(first, outcome("triton", arrays, cu), strict=True))


@pytest.mark.parametrize("wanted", range(3))
def test_each_gradient_alone(wanted):
    *arrays, cu = inputs(torch.float32)
    leaves = [t.detach().requires_grad_(i == wanted) for i, t in enumerate(arrays)]
    packed_attention(*leaves, cu, 7, backend="triton").sum().backward()
    assert [t.grad is not None for t in leaves] == [i == wanted for i in range(3)]


def test_tiles_cover_every_row_once():
    for lengths in LENGTHS:
        cu = torch.tensor([0, *lengths]).cumsum(0)
        sequences, blocks = operator.tile_tables(cu, int(cu[-1]), 8)
        found = [(s, b) for s, b in zip(sequences.tolist(), blocks.tolist(), strict=True) if s >= 0]
        assert sorted(found) == [(s, b) for s, n in enumerate(lengths) for b in range(-(-n // 8))]
        assert [b for _, b in found] == sorted((b for _, b in found), reverse=True)  # the longest work first


def test_operator_is_well_registered_and_compiles():
    q, k, v, cu = inputs(torch.float32)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    torch.library.opcheck(operator.packed_attention_op, (*leaves, cu, 3, 0.4))
    compiled = torch.compile(packed_attention, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, k, v, cu, 7, backend="triton"), packed_attention(q, k, v, cu, 7, backend="triton"))


def test_activation_checkpointing():
    from torch.utils.checkpoint import checkpoint

    *arrays, cu = inputs(torch.float32)
    want = outcome("triton", arrays, cu)
    leaves = [t.detach().requires_grad_() for t in arrays]
    out = checkpoint(lambda *a: packed_attention(*a, cu, 7, backend="triton"), *leaves, use_reentrant=False)
    weights = torch.linspace(-1, 1, out.numel()).view(out.shape)
    for got, truth in zip(torch.autograd.grad((out * weights).sum(), leaves), want[1:], strict=True):
        assert torch.equal(got, truth)
