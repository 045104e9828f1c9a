"""RMSNorm against its definition."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from plum_kernels import rms_norm
from plum_kernels.norm import reference_rms_norm, rms_norm_op

pytestmark = pytest.mark.poison


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (2, 3, 96), (0, 8)], ids=str)
def test_gradcheck(shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    w = torch.randn(shape[-1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-6), (x, w))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-4, 100.0])
def test_as_exact_as_the_definition(dtype, scale):
    base = [torch.randn(64, 96) * scale, torch.randn(96), torch.randn(64, 96)]
    base = [t.to(dtype) for t in base]

    def run(function, dtype):
        x, w, g = (t.to(dtype) for t in base)
        x.requires_grad_(), w.requires_grad_()
        out = function(x, w, 1e-6)
        out.backward(g)
        return out.detach().double(), x.grad.double(), w.grad.double()

    exact = run(reference_rms_norm, torch.float64)
    for ours, plain, truth in zip(run(rms_norm, dtype), run(reference_rms_norm, dtype), exact, strict=True):
        hair = 4e-6 if dtype == torch.float32 else torch.finfo(dtype).eps / 2
        allowed = (plain - truth).abs().max() + hair * truth.abs().max()
        assert (ours - truth).abs().max() <= allowed


def test_the_value_is_the_definitions_to_the_bit():
    x, w = torch.randn(33, 96), torch.randn(96)
    assert torch.equal(rms_norm(x, w, 1e-6), reference_rms_norm(x, w, 1e-6))
    with torch.no_grad():
        assert torch.equal(rms_norm(x, w, 1e-6), reference_rms_norm(x, w, 1e-6))


def test_a_zero_row_is_finite():
    x = torch.zeros(2, 4, requires_grad=True)
    rms_norm(x, torch.ones(4), 1e-6).sum().backward()
    assert x.grad.isfinite().all()


def test_widths_must_agree():
    with pytest.raises(ValueError, match=r"weight must be \(4,\)"):
        rms_norm(torch.zeros(2, 4), torch.ones(3), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_operator_is_well_registered_and_compiles(dtype):
    x, w = torch.randn(7, 5).to(dtype).requires_grad_(), torch.randn(5).requires_grad_()
    torch.library.opcheck(rms_norm_op, (x, w, 1e-6))
    compiled = torch.compile(rms_norm, fullgraph=True, backend="aot_eager")
    for got, want in zip(
        *(torch.autograd.grad(f(x, w, 1e-6).sum(), (x, w)) for f in (compiled, rms_norm)), strict=True
    ):
        assert torch.equal(got, want)


def test_activation_checkpointing():
    x, w = torch.randn(7, 5, requires_grad=True), torch.randn(5, requires_grad=True)
    kept = checkpoint(rms_norm, x, w, 1e-6, use_reentrant=False)
    for got, want in zip(*(torch.autograd.grad(o.sum(), (x, w)) for o in (kept, rms_norm(x, w, 1e-6))), strict=True):
        assert torch.equal(got, want)
