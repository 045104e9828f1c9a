"""The decoder's small kernels under Triton's interpreter; ``test_triton.py`` starts it, as it does triton_cases.py."""

from __future__ import annotations

import os

import pytest
import torch
from test_decoder_kernels import ALL, CASES, call, leaves, outcome, tables

if os.environ.get("TRITON_INTERPRET") != "1":
    raise RuntimeError("set TRITON_INTERPRET=1 before the start")

from plum_kernels.decoder import operator

pytestmark = pytest.mark.poison
HAIR = {torch.float32: 2e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}


@pytest.mark.parametrize("dtype", HAIR, ids=str)
@pytest.mark.parametrize(("name", "shape"), ALL, ids=str)
def test_error_budget(name, shape, dtype):
    for norm in (True, False) if name == "norm_rotate" else (True,):
        exact = outcome(name, shape, dtype, cast=torch.float64, norm=norm)
        plain = outcome(name, shape, dtype, norm=norm)
        ours = outcome(name, shape, dtype, "triton", norm=norm)
        for i, (got, usual, truth) in enumerate(zip(ours, plain, exact, strict=True)):
            if truth.numel():
                allowed = (usual - truth).abs().max() + HAIR[dtype] * (1 + truth.abs().max())
                assert (got - truth).abs().max() <= allowed, i


def test_operators_are_well_registered():
    gate, up = (t.requires_grad_() for t in leaves("swiglu", (3, 7), torch.float32))
    torch.library.opcheck(operator.swiglu_op, (gate, up))
    x, residual, weight = (t.requires_grad_() for t in leaves("add_rms_norm", (3, 7), torch.float32))
    torch.library.opcheck(operator.add_norm_op, (x, residual, weight, 1e-6))
    heads, scale = (t.requires_grad_() for t in leaves("norm_rotate", (4, 2, 6), torch.float32))
    for given in (scale, None):
        torch.library.opcheck(operator.norm_rotate_op, (heads, *tables((4, 2, 6)), given, 1e-6))


@pytest.mark.parametrize("name", CASES)
def test_compiles_as_one_graph_and_takes_strides(name):
    arrays = [t.T.contiguous().T for t in leaves(name, (7, 13) if name != "norm_rotate" else (7, 3, 6), torch.float32)]
    compiled = torch.compile(lambda *a: call(name, a, "triton"), fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*arrays), call(name, arrays), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_twenty_runs_are_bit_equal():
    first = outcome("add_rms_norm", (7, 13), torch.bfloat16, "triton")
    for _ in range(19):
        again = outcome("add_rms_norm", (7, 13), torch.bfloat16, "triton")
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
