"""What stands around the head: preference losses of log-probs, norms, SwiGLU, packed attention."""

from __future__ import annotations

import pytest
import torch

from plum_kernels import add_rms_norm, packed_attention, preference_loss, rms_norm, swiglu
from plum_kernels.attention.interface import ATTENTION_BACKENDS, available

from .conftest import differentiate

DTYPES = [torch.bfloat16, torch.float32]


def normal(*shape, dtype, device, seed=0):
    g = torch.Generator(device).manual_seed(seed)
    return torch.randn(*shape, generator=g, device=device).to(dtype).requires_grad_()


def on_device(backend, device):
    if backend == "triton" and device != "cuda":
        pytest.skip("a Triton kernel needs a GPU to be timed")


@pytest.mark.parametrize("objective", ["dpo", "kto", "simpo", "orpo"])
@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_preference_loss(backend, objective, device, sized, timed):
    on_device(backend, device)
    pairs, length = sized(gpu=(512, 1024), cpu=(64, 256), tiny=(2, 5))
    logps = (normal(2 * pairs * length, dtype=torch.float32, device=device).detach().abs() * -1).requires_grad_()
    cu = torch.arange(0, 2 * pairs * length + 1, length, device=device)
    given = {"ref_logps": logps.detach() - 0.1} if objective in ("dpo", "kto") else {}
    if objective == "kto":
        given |= {"desirable": torch.arange(2 * pairs, device=device) % 2 == 0, "kl": torch.zeros((), device=device)}

    def work(name=backend):
        losses = preference_loss(logps, cu, objective=objective, backend=name, **given).losses
        return differentiate(losses, torch.ones_like(losses), {"logps": logps})

    timed(work, lambda: work("reference"), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_swiglu(backend, dtype, device, sized, timed):
    on_device(backend, device)
    shape = sized(gpu=(16_384, 14_336), cpu=(1024, 4864), tiny=(3, 7))
    gate, up = (normal(*shape, dtype=dtype, device=device, seed=seed) for seed in (0, 1))

    def work(name=backend):
        return differentiate(swiglu(gate, up, backend=name), up.detach(), {"gate": gate, "up": up})

    timed(work, lambda: work("reference"), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_add_rms_norm(backend, dtype, device, sized, timed):
    on_device(backend, device)
    rows, width = sized(gpu=(16_384, 4096), cpu=(2048, 896), tiny=(3, 8))
    x, residual = (normal(rows, width, dtype=dtype, device=device, seed=seed) for seed in (0, 1))
    weight = normal(width, dtype=dtype, device=device, seed=2)

    def work(name=backend):
        out, _ = add_rms_norm(x, residual, weight, 1e-6, backend=name)
        return differentiate(out, x.detach(), {"x": x, "residual": residual, "weight": weight})

    timed(work, lambda: work("reference"), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rms_norm(dtype, device, sized, timed):
    rows, width = sized(gpu=(16_384, 4096), cpu=(2048, 896), tiny=(3, 8))
    x, weight = normal(rows, width, dtype=dtype, device=device), normal(width, dtype=dtype, device=device, seed=1)

    def plain():
        wide = x.float()
        out = wide * (wide.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        return differentiate((out * weight.float()).to(dtype), x.detach(), {"x": x, "weight": weight})

    timed(
        lambda: differentiate(rms_norm(x, weight, 1e-6), x.detach(), {"x": x, "weight": weight}),
        plain,
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", ATTENTION_BACKENDS)
def test_packed_attention(backend, dtype, device, sized, timed):
    heads, groups, width, lengths = sized(
        gpu=(32, 8, 128, [1024] * 16), cpu=(14, 2, 64, [128, 64, 200, 120]), tiny=(2, 1, 16, [3, 1, 5])
    )
    tokens = sum(lengths)
    q = normal(tokens, heads, width, dtype=dtype, device=device)
    k, v = (normal(tokens, groups, width, dtype=dtype, device=device, seed=seed) for seed in (1, 2))
    reason = available(backend, q)
    if reason:
        pytest.skip(f"{backend} {reason}")
    cu = torch.tensor([0, *lengths], device=device, dtype=torch.int32).cumsum(0, dtype=torch.int32)

    def work(name=backend):
        out = packed_attention(q, k, v, cu, max(lengths), backend=name)
        return differentiate(out, q.detach(), {"q": q, "k": k, "v": v})

    timed(work, lambda: work("reference"), dtype)
