"""Log-probs and preference losses from hidden states and head, forward and backward.

pytest kernels/benchmarks/suite --benchmark-json out.json
"""

from __future__ import annotations

import pytest
import torch

from plum_kernels import linear_logprob, linear_preference

from .conftest import differentiate

DTYPES = [torch.bfloat16, torch.float32]


def runs(backend: str, device: str) -> bool:
    from plum_kernels.compiled.head import missing

    if backend == "compiled":
        return device == "cpu" and not any(missing(dtype) for dtype in DTYPES)
    return backend != "triton" or device == "cuda"


def problem(shape, dtype, device):
    rows, width, vocabulary = shape
    g = torch.Generator(device).manual_seed(0)
    x = torch.randn(rows, width, generator=g, device=device).to(dtype)
    w = (torch.randn(vocabulary, width, generator=g, device=device) * 3 / width**0.5).to(dtype)
    y = torch.randint(vocabulary, (rows,), generator=g, device=device)
    return x, w, y, torch.randn(rows, generator=g, device=device)


@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", ["reference", "blocked", "compiled", "triton"])
def test_linear_logprob(backend, dtype, frozen, device, sized, timed):
    if not runs(backend, device):
        pytest.skip(f"{backend} does not run on this {device}")
    shape = sized(gpu=(8192, 4096, 152_064), cpu=(512, 512, 16_000), tiny=(9, 8, 33))
    x, w, y, upstream = problem(shape, dtype, device)
    leaves = {"x": x.requires_grad_()} | ({} if frozen else {"w": w.requires_grad_()})

    def work(name=backend):
        return differentiate(linear_logprob(x, w, y, backend=name).logp, upstream, leaves)

    timed(work, lambda: work("reference"), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", ["reference", "blocked", "compiled", "triton"])
def test_linear_preference(backend, dtype, device, sized, timed):
    if not runs(backend, device):
        pytest.skip(f"{backend} does not run on this {device}")
    shape = sized(gpu=(8192, 4096, 152_064), cpu=(512, 512, 16_000), tiny=(32, 8, 33))
    x, w, y, _ = problem(shape, dtype, device)
    leaves = {"x": x.requires_grad_(), "w": w.requires_grad_()}
    cu = torch.arange(0, shape[0] + 1, shape[0] // 16, device=device)
    ref = torch.full((shape[0],), -5.0, device=device)

    def work(name=backend):
        loss = linear_preference(x, w, y, cu, ref, objective="dpo", backend=name).loss
        return differentiate(loss, torch.ones_like(loss), leaves)

    timed(work, lambda: work("reference"), dtype)
