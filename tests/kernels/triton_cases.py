"""The Triton kernels under Triton's interpreter, which must be chosen before triton is imported.

``test_triton.py`` runs this file in a process of its own:

    TRITON_INTERPRET=1 PYTHONPATH=tests/kernels python -m pytest tests/kernels/triton_cases.py
"""

from __future__ import annotations

import os

import pytest
import torch
from test_linear_logprob import OPTIONS, assert_within_budget, make_inputs, outcome, plain

from plum_kernels import linear_logprob

if os.environ.get("TRITON_INTERPRET") != "1":
    raise RuntimeError("set TRITON_INTERPRET=1 before the start")

from plum_kernels.logprob import triton_backend
from plum_kernels.logprob.operator import fused_logprob

pytestmark = pytest.mark.poison
HAIR = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-10}  # its gradient of the logits is rounded too
# a tile is 16 rows x 32 columns x 16 deep
SHAPES = [(1, 1, 1), (7, 5, 13), (16, 16, 32), (17, 16, 33), (23, 24, 79), (37, 8, 151), (0, 4, 9)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", HAIR, ids=str)
def test_error_budget(shape, dtype):
    for seed, options in enumerate(OPTIONS):
        inputs = make_inputs(shape, dtype, seed=seed)
        exact = outcome(inputs, dtype=torch.float64, backend="reference", **options)
        fused = outcome(inputs, backend="triton", **options)
        assert_within_budget(fused, outcome(inputs, compute=plain, **options), exact, HAIR[dtype])


@pytest.mark.parametrize("descriptors", [True, False])
def test_both_ways_to_load_agree(descriptors, monkeypatch):
    monkeypatch.setattr(triton_backend, "has_descriptors", lambda x, w: descriptors)
    inputs = make_inputs((17, 16, 33), torch.float32)
    exact = outcome(inputs, dtype=torch.float64, backend="reference")
    assert_within_budget(outcome(inputs, backend="triton"), outcome(inputs, compute=plain), exact, 1e-6)


def test_chunks_of_the_backward_meet_every_row(monkeypatch):
    inputs = make_inputs((37, 8, 151), torch.float32)
    whole = outcome(inputs, backend="triton")
    monkeypatch.setattr(triton_backend, "chunk_rows", lambda rows, stride, size: 16)
    for name, value in outcome(inputs, backend="triton").items():
        torch.testing.assert_close(value, whole[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)], ids=str)
def test_each_gradient_alone(wanted):
    inputs = make_inputs((23, 24, 79), torch.float32)
    everything = outcome(inputs, backend="triton")
    some = outcome(inputs, backend="triton", wanted=wanted)
    assert {k for k in some if k.startswith("d")} == {f"d{k}" for k, w in zip("xwb", wanted, strict=True) if w}
    assert all(torch.equal(value, everything[name]) for name, value in some.items())


@pytest.mark.parametrize("entropy", [True, False])
@pytest.mark.parametrize("scale", [0.0, 1e4], ids=["equal logits", "logits of 1e4"])
def test_extreme_logits(scale, entropy):
    inputs = make_inputs((23, 3, 47), torch.float32, scale=scale, bias=False)
    exact = outcome(inputs, dtype=torch.float64, backend="reference", entropy=entropy)
    fused = outcome(inputs, backend="triton", entropy=entropy)
    assert_within_budget(fused, outcome(inputs, compute=plain, entropy=entropy), exact, 1e-6)
    assert all(value.isfinite().all() for value in fused.values())


def test_a_bias_of_minus_infinity_removes_a_whole_tile():
    x, w, _, y, upstream = make_inputs((17, 16, 79), torch.float32)
    b = torch.zeros(79)
    b[32:64] = -torch.inf
    y[(y >= 32) & (y < 64)] = 3
    keep = torch.cat((torch.arange(32), torch.arange(64, 79)))
    moved = torch.where(y >= 64, y - 32, y)
    full = outcome((x, w, b, y, upstream), backend="triton", wanted=(True, True, False))
    less = outcome((x, w[keep], None, moved, upstream), backend="triton")
    for name in ("logp", "logsumexp", "entropy", "dx"):
        torch.testing.assert_close(full[name], less[name], rtol=1e-5, atol=1e-5)
    assert not full["dw"][32:64].any()


def test_twenty_runs_are_bit_equal():
    inputs = make_inputs((17, 16, 33), torch.bfloat16)
    first = outcome(inputs, backend="triton")
    for _ in range(19):
        again = outcome(inputs, backend="triton")
        assert all(torch.equal(first[name], again[name]) for name in first)


def test_operator_is_well_registered_and_compiles():
    x, w, b, y, _ = make_inputs((9, 16, 40), torch.float32)
    operands = (x.requires_grad_(), w.requires_grad_(), y, b)
    torch.library.opcheck(fused_logprob, (*operands, -100, [1.3, 0.6, 5.0], True, False, "triton"))
    compiled = torch.compile(linear_logprob, fullgraph=True, backend="aot_eager")
    got, want = (call(x, w, y, bias=b, backend="triton").logp for call in (compiled, linear_logprob))
    assert torch.equal(got, want)


def test_fp64_is_refused():
    with pytest.raises(ValueError, match="backend triton has no fp64"):
        linear_logprob(
            torch.zeros(2, 3, dtype=torch.float64), torch.zeros(4, 3, dtype=torch.float64), torch.zeros(2).long(),
            backend="triton",
        )  # fmt: skip
