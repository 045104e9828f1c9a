"""Every Triton kernel against its reference, within the error budget, before anything is timed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from on_gpu import decoding, sampling
from on_gpu.bench import Bench, Row, within_budget
from plum_kernels import (
    add_rms_norm,
    linear_logprob,
    linear_preference,
    norm_rotate,
    packed_attention,
    preference_loss,
    split_qkv,
    swiglu,
)
from plum_kernels.attention.interface import ATTENTION_BACKENDS, available
from plum_kernels.preference.formulas import SPECS

HAIR = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-10}
SHAPES = [(1, 8, 1), (0, 16, 9), (7, 5, 13), (127, 64, 509), (129, 72, 1031), (513, 256, 32003)]  # N x D x V
OPTIONS = [{}, {"temperature": 0.7, "softcap": 30.0, "logit_scale": 0.5}]


def results(out: list[Tensor], leaves: list[Tensor], seed: int = 1) -> list[Tensor]:
    """Values and gradients for one random upstream."""
    g = torch.Generator().manual_seed(seed)
    total = sum((part * torch.randn(part.shape, generator=g).to(part)).sum() for part in out)
    assert isinstance(total, Tensor)
    total.backward()
    return [t.detach() for t in (*out, *(leaf.grad for leaf in leaves if leaf.grad is not None))]


def compare(
    compute: Callable[[list[Tensor], str], list[Tensor]], arrays: list[Tensor], backend: str, hair: float
) -> Row:
    """``compute(leaves, backend)`` on the kernel, on the reference in the same dtype, and in fp64."""
    kinds = [("reference", torch.float64), ("reference", arrays[0].dtype), (backend, arrays[0].dtype)]
    made = []
    for name, dtype in kinds:
        leaves = [t.detach().to(dtype).requires_grad_() for t in arrays]
        made.append(results(compute(leaves, name), leaves))
    exact, plain, got = made
    return {"budget_used": max(within_budget(*parts, hair) for parts in zip(got, plain, exact, strict=True))}


def _logprob(
    bench: Bench, shape: tuple[int, int, int], dtype: torch.dtype, options: dict[str, float], backend: str
) -> Row:
    n, d, v = shape
    g = torch.Generator().manual_seed(n)
    arrays = [torch.randn(*s, generator=g).to(bench.device, dtype) for s in ((n, d), (v, d), (v,))]
    y = torch.randint(0, v, (n,), generator=g)
    y[::3] = -100
    y = y.to(bench.device)

    def compute(leaves: list[Tensor], backend: str) -> list[Tensor]:
        x, w, b = leaves
        out = linear_logprob(x, w, y, bias=b, entropy=True, backend=backend, **options)
        return [part for part in out if part is not None]

    return compare(compute, arrays, backend, HAIR[dtype])


def preference_inputs(bench: Bench, name: str, rows: int = 300) -> tuple[Tensor, dict[str, Tensor]]:
    g = torch.Generator().manual_seed(0)
    cu = torch.tensor([0, 1, 8, 70, 71, 150, 300]) * rows // 300
    values = {
        "desirable": torch.arange(6) % 3 != 0,
        "kl": torch.tensor(0.3),
        "shift": torch.tensor(-0.4),
        "alignment": torch.linspace(-0.5, 0.2, 6),
        "weights": torch.rand(rows, generator=g),
    }
    needs = {need: values[need].to(bench.device) for need in SPECS[name].needs}
    if SPECS[name].reference:
        needs["ref_logps"] = -torch.rand(rows, generator=g).to(bench.device)
    return cu.to(bench.device), needs


def _widened(needs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {k: v if v.dtype == torch.bool else v.to(dtype) for k, v in needs.items()}


def _preference(bench: Bench, name: str) -> Row:
    cu, needs = preference_inputs(bench, name)
    logps = -torch.rand(300, generator=torch.Generator().manual_seed(1)).to(bench.device)

    def compute(leaves: list[Tensor], backend: str) -> list[Tensor]:
        given = _widened(needs, leaves[0].dtype)
        return [preference_loss(leaves[0], cu, objective=name, backend=backend, **given).losses]

    return compare(compute, [logps], bench.triton, 1e-5)


def _head(bench: Bench, dtype: torch.dtype, threshold: float) -> Row:
    cu, needs = preference_inputs(bench, "dpo")
    g = torch.Generator().manual_seed(2)
    arrays = [torch.randn(*s, generator=g).to(bench.device, dtype) for s in ((300, 64), (1031, 64), (1031,))]
    y = torch.randint(0, 1031, (300,), generator=g).to(bench.device)
    reported = []

    def compute(leaves: list[Tensor], backend: str) -> list[Tensor]:
        x, w, b = leaves
        given = _widened(needs, torch.promote_types(x.dtype, torch.float32))
        kept = threshold if backend != "reference" or bench.dry else 0.0
        out = linear_preference(x, w, y, cu, bias=b, objective="dpo", threshold=kept, backend=backend, **given)
        reported.append(float(out.dropped.sum() * w.norm(dim=1).max()))
        return [out.loss]

    row = compare(compute, arrays, bench.triton, HAIR[dtype] + threshold * 100)
    return row | {"dropped": reported[-1]}


def _decoder(bench: Bench, name: str, dtype: torch.dtype) -> Row:
    g = torch.Generator().manual_seed(3)
    shape = (37, 6, 130) if name in ("norm_rotate", "split_qkv") else (37, 1030)
    x, other, weight = (torch.randn(*s, generator=g).to(bench.device, dtype) for s in (shape, shape, shape[-1:]))
    angles = torch.randn(37, 64, generator=g).to(bench.device)

    def compute(leaves: list[Tensor], backend: str) -> list[Tensor]:
        if name == "swiglu":
            return [swiglu(leaves[0], leaves[1], backend=backend)]
        if name == "add_rms_norm":
            return list(add_rms_norm(leaves[0], leaves[1], leaves[2], 1e-6, backend=backend))
        tables = (angles.cos(), angles.sin())
        cos, sin = (torch.cat((t, t), -1).to(torch.promote_types(leaves[0].dtype, torch.float32)) for t in tables)
        if name == "split_qkv":
            return list(split_qkv(leaves[0].flatten(1), cos, sin, 2, 130, *leaves[1:], backend=backend))
        return [norm_rotate(leaves[0], cos, sin, leaves[1], backend=backend)]

    arrays = {"swiglu": [x, other], "add_rms_norm": [x, other, weight], "norm_rotate": [x, weight]}
    arrays["split_qkv"] = [x, weight, torch.flip(weight, (0,))]
    return compare(compute, arrays[name], bench.triton, HAIR[dtype])


def _attention(bench: Bench, backend: str, window: int | None) -> Row:
    g = torch.Generator().manual_seed(4)
    lengths = torch.tensor([0, 1, 7, 64, 130])
    cu = lengths.cumsum(0).to(bench.device)
    arrays = [torch.randn(202, h, 64, generator=g).to(bench.device, torch.bfloat16) for h in (4, 2, 2)]
    if reason := available(backend, arrays[0]):
        return {"skipped": reason}

    def compute(leaves: list[Tensor], name: str) -> list[Tensor]:
        return [packed_attention(*leaves, cu, 130, window=window, backend=name)]

    return compare(compute, arrays, backend, 2**-6)


def _bit_equal(bench: Bench, function: str) -> Row:
    g = torch.Generator().manual_seed(5)
    n, v = (33, 101) if bench.dry else (257, 5003)
    x, w = (torch.randn(s, 128, generator=g).to(bench.device, torch.bfloat16) for s in (n, v))
    y = torch.randint(0, v, (n,), generator=g).to(bench.device)
    arrays = [x, w]
    if function == "packed_attention":
        arrays = [torch.randn(n, h, 64, generator=g).to(bench.device, torch.bfloat16) for h in (4, 2, 2)]
    cu = torch.tensor([0, 1, n // 2, n], device=bench.device)
    name = "hybrid" if function == "hybrid" and not bench.dry else bench.triton
    first: list[Tensor] = []
    for _ in range(20):
        leaves = [t.detach().requires_grad_() for t in arrays]
        if function == "packed_attention":
            made = results([packed_attention(*leaves, cu, n, backend=bench.triton)], leaves)
        else:
            made = results([linear_logprob(leaves[0], leaves[1], y, backend=name).logp], leaves)
        first = first or made
        assert all(torch.equal(a, b) for a, b in zip(first, made, strict=True)), "two runs differ"
    return {"runs": 20}


def run(bench: Bench) -> None:
    for dtype in HAIR:
        for shape in SHAPES[:4] if bench.dry else SHAPES:
            for options in OPTIONS:
                for backend in dict.fromkeys((bench.triton, "reference" if bench.dry else "hybrid")):
                    name = f"linear_logprob {backend} {'x'.join(map(str, shape))} {str(dtype)[6:]} {options or ''}"
                    bench.item(name.strip(), partial(_logprob, bench, shape, dtype, options, backend))
    for objective in SPECS:
        if not objective.startswith("aot"):  # they sort, and have no kernel
            bench.item(f"preference_loss {objective}", partial(_preference, bench, objective))
    for dtype in (torch.float32, torch.bfloat16):
        for threshold in (0.0, 1e-5):
            name = f"linear_preference {str(dtype)[6:]} threshold {threshold}"
            bench.item(name, partial(_head, bench, dtype, threshold))
        for function in ("swiglu", "add_rms_norm", "norm_rotate", "split_qkv"):
            bench.item(f"{function} {str(dtype)[6:]}", partial(_decoder, bench, function, dtype))
    for backend in ATTENTION_BACKENDS[:-1]:
        for window in (None, 33):
            bench.item(f"packed_attention {backend} window {window}", partial(_attention, bench, backend, window))
    for function in ("linear_logprob", "hybrid", "packed_attention"):
        bench.item(f"{function}: twenty runs are bit-equal", partial(_bit_equal, bench, function))
    sampling.check(bench)
    decoding.check(bench)
