"""packed_attention's back ends against the definition, and in the decoder."""

from __future__ import annotations

import pytest
import torch

from plum_kernels import packed_attention
from plum_kernels.attention.interface import available

LENGTHS = (3, 1, 0, 7, 5)


def inputs(dtype, *, heads=4, groups=2, width=8, lengths=LENGTHS, device="cpu"):
    g = torch.Generator().manual_seed(0)
    cu = torch.tensor([0, *lengths]).cumsum(0)
    make = [torch.randn(int(cu[-1]), h, width, generator=g).to(device, dtype) for h in (heads, groups, groups)]
    return *make, cu.to(device)


def outcome(backend, arrays, cu, **options):
    leaves = [t.detach().requires_grad_() for t in arrays]
    out = packed_attention(*leaves, cu, int(cu.diff().max()) if len(cu) > 1 else 0, backend=backend, **options)
    weights = torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), leaves)]


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("options", [{}, {"window": 3}, {"window": 1}, {"scale": 0.2}], ids=str)
@pytest.mark.parametrize("backend", ["sdpa", "auto"])
def test_values_and_gradients(backend, options, groups):
    *arrays, cu = inputs(torch.float64, groups=groups)
    want = outcome("reference", arrays, cu, **options)
    for got, truth in zip(outcome(backend, arrays, cu, **options), want, strict=True):
        torch.testing.assert_close(got, truth, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", ["flash", "varlen", "triton", "sdpa"])
def test_error_budget_in_bf16(backend):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    *arrays, cu = inputs(torch.bfloat16, width=64, device=device)
    if reason := available(backend, arrays[0]):
        pytest.skip(f"{backend} {reason}")
    exact = outcome("reference", [t.double() for t in arrays], cu)
    for got, truth in zip(outcome(backend, arrays, cu), exact, strict=True):
        assert (got.double() - truth).abs().max() <= 2**-6 * (1 + truth.abs().max())


def test_the_definition_is_each_sequence_alone():
    q, k, v, cu = inputs(torch.float64, groups=4)
    whole = packed_attention(q, k, v, cu, 7, backend="reference")
    for a, b in zip(cu[:-1].tolist(), cu[1:].tolist(), strict=True):
        for t in range(a, b):
            scores = torch.einsum("he,khe->hk", q[t], k[a : t + 1]) / 8**0.5
            want = torch.einsum("hk,khe->he", scores.softmax(-1), v[a : t + 1])
            torch.testing.assert_close(whole[t], want)


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_gradcheck_and_nothing_at_all(backend):
    *arrays, cu = inputs(torch.float64, heads=2, groups=1, width=2, lengths=(3, 2))
    leaves = [t.requires_grad_() for t in arrays]
    assert torch.autograd.gradcheck(lambda *a: packed_attention(*a, cu, 3, backend=backend), leaves)
    *arrays, cu = inputs(torch.float32, lengths=())
    assert outcome(backend, arrays, cu)[0].shape == (0, 4, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(4, 3, 8), "v": torch.zeros(4, 3, 8)}, "multiple of key heads, got 4 and 3"),
        ({"v": torch.zeros(4, 2, 6)}, "k and v"),
        ({"window": 0}, "window must be at least 1"),
        ({"cu_seqlens": torch.tensor([0.0, 4.0])}, "cu_seqlens must be"),
        ({"backend": "fast"}, "backend must be one of auto, flash, varlen, triton, sdpa, reference"),
        ({"backend": "varlen"}, "backend varlen needs a GPU|backend varlen needs bf16"),
        (
            {
                "q": torch.zeros(4, 4, 8).double(),
                "k": torch.zeros(4, 2, 8).double(),
                "v": torch.zeros(4, 2, 8).double(),
                "backend": "triton",
            },
            "backend triton needs a GPU, got|backend triton needs bf16 or fp16",
        ),
        ({"q": torch.zeros(4, 4, 8).double()}, "share one dtype"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_mistakes_are_refused(change, message):
    call = {"q": torch.zeros(4, 4, 8), "k": torch.zeros(4, 2, 8), "v": torch.zeros(4, 2, 8)}
    call |= {"cu_seqlens": torch.tensor([0, 4]), "max_seqlen": 4} | change
    with pytest.raises(ValueError, match=message):
        packed_attention(**call)
