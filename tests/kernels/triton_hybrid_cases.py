"""linear_logprob's hybrid back end under Triton's interpreter; ``test_triton.py`` starts it."""

from __future__ import annotations

import os

import pytest
import torch
from test_linear_logprob import OPTIONS, assert_within_budget, make_inputs, outcome, plain

from plum_kernels import linear_logprob, linear_preference

if os.environ.get("TRITON_INTERPRET") != "1":
    raise RuntimeError("set TRITON_INTERPRET=1 before the start")

from plum_kernels.logprob import hybrid
from plum_kernels.logprob.operator import fused_logprob

pytestmark = pytest.mark.poison
HAIR = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-10}  # its gradient of the logits is rounded too
# a row is read 16 logits at a time
SHAPES = [(1, 1, 1), (7, 5, 13), (8, 16, 16), (9, 16, 17), (23, 3, 47), (0, 4, 9)]
real_logit_rows = hybrid.logit_rows


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    """Logits of 2 rows in work and chunks of 5, so that small shapes meet every boundary."""
    monkeypatch.setattr(hybrid, "logit_rows", lambda rows, stride: 2)
    monkeypatch.setattr(hybrid, "chunk_rows", lambda rows, stride, size: 5)
    monkeypatch.setattr(hybrid, "TRAINED_ROWS", 5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", HAIR, ids=str)
def test_error_budget(shape, dtype):
    for seed, options in enumerate(OPTIONS):
        inputs = make_inputs(shape, dtype, seed=seed)
        exact = outcome(inputs, dtype=torch.float64, backend="reference", **options)
        got = outcome(inputs, backend="hybrid", **options)
        assert_within_budget(got, outcome(inputs, compute=plain, **options), exact, HAIR[dtype])


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)], ids=str)
@pytest.mark.parametrize("entropy", [True, False])
def test_each_gradient_alone(wanted, entropy):
    inputs = make_inputs((23, 3, 47), torch.float32)
    everything = outcome(inputs, backend="hybrid", entropy=entropy)
    some = outcome(inputs, backend="hybrid", wanted=wanted, entropy=entropy)
    assert {k for k in some if k.startswith("d")} == {f"d{k}" for k, w in zip("xwb", wanted, strict=True) if w}
    for name, value in some.items():
        torch.testing.assert_close(value, everything[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e4], ids=["equal logits", "logits of 1e4"])
def test_extreme_logits(scale):
    inputs = make_inputs((23, 3, 47), torch.float32, scale=scale, bias=False)
    exact = outcome(inputs, dtype=torch.float64, backend="reference")
    got = outcome(inputs, backend="hybrid")
    assert_within_budget(got, outcome(inputs, compute=plain), exact, 1e-6)
    assert all(value.isfinite().all() for value in got.values())


def test_a_bias_of_minus_infinity_removes_a_token():
    x, w, _, y, upstream = make_inputs((9, 3, 47), torch.float32)
    b = torch.zeros(47)
    b[16:32] = -torch.inf  # all that one visit reads
    y[(y >= 16) & (y < 32)] = 3
    keep = torch.cat((torch.arange(16), torch.arange(32, 47)))
    moved = torch.where(y >= 32, y - 16, y)
    full = outcome((x, w, b, y, upstream), backend="hybrid", wanted=(True, True, False))
    less = outcome((x, w[keep], None, moved, upstream), backend="hybrid")
    for name in ("logp", "logsumexp", "entropy", "dx"):
        torch.testing.assert_close(full[name], less[name], rtol=1e-5, atol=1e-5)
    assert not full["dw"][16:32].any()


def test_twenty_runs_are_bit_equal():
    inputs = make_inputs((9, 16, 17), torch.bfloat16)
    first = outcome(inputs, backend="hybrid")
    for _ in range(19):
        again = outcome(inputs, backend="hybrid")
        assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_confident_rows_gradient_is_not_lost_to_the_logits_rounding():
    """Logits of 40 rounded to bf16 are 0.1 off: a target's gradient p - 1 would be too, where it is 1e-17."""
    x, w = torch.full((1, 16), 4.0, dtype=torch.bfloat16), torch.zeros(32, 16, dtype=torch.bfloat16)
    w[3] = 0.63
    x.requires_grad_()
    linear_logprob(x, w, torch.tensor([3]), backend="hybrid").logp.sum().backward()
    assert x.grad.abs().max() < 1e-6


def test_operator_is_well_registered_and_compiles():
    x, w, b, y, _ = make_inputs((9, 16, 17), torch.float32)
    operands = (x.requires_grad_(), w.requires_grad_(), y, b)
    torch.library.opcheck(fused_logprob, (*operands, -100, [1.3, 0.6, 5.0], True, False, "hybrid"))
    compiled = torch.compile(linear_logprob, fullgraph=True, backend="aot_eager")
    got, want = (call(x, w, y, bias=b, backend="hybrid").logp for call in (compiled, linear_logprob))
    assert torch.equal(got, want)


def test_what_it_cannot_take_is_refused():
    x, w, y = torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(2).long()
    with pytest.raises(ValueError, match="backend hybrid has no fp64"):
        linear_logprob(x.double(), w.double(), y, backend="hybrid")
    with pytest.raises(ValueError, match="hybrid is of linear_logprob alone"):
        linear_preference(x, w, y, torch.tensor([0, 1, 2]), torch.zeros(2), objective="dpo", backend="hybrid")


def test_the_workspace_of_the_promised_shape_fits():
    """4096 rows of 152064 logits in bf16, and what is in work in fp32: under 1.5 GiB."""
    assert real_logit_rows(8192, 152064) * 152064 * 4 + 4096 * 152064 * 2 < 1.5 * 2**30
