"""Which back end is the fastest, function by function: what ``backend="auto"`` will mean on this device.

A step forward and backward is timed for each candidate; the winners and the fastest tiles become the device's page in
``plum_kernels/measured``, which is committed with the results.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from on_gpu.bench import Bench, Row
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
from plum_kernels.attention.interface import available

Call = Callable[[str], Any]  # of a back end's name


def _leaves(bench: Bench, *shapes: tuple[int, ...]) -> list[Tensor]:
    g = torch.Generator(bench.device).manual_seed(0)
    made = (torch.randn(*s, generator=g, device=bench.device).bfloat16() * s[-1] ** -0.25 for s in shapes)
    return [t.requires_grad_() for t in made]


def _logprob(bench: Bench) -> Call:
    n, d, v = (24, 8, 64) if bench.dry else (4096, 4096, 152064)
    x, w = _leaves(bench, (n, d), (v, d))
    y = torch.arange(n, device=bench.device) % v
    return lambda backend: linear_logprob(x, w, y, backend=backend).logp


def _pairs(bench: Bench, rows: int) -> dict[str, Any]:
    cu = torch.arange(0, rows + 1, rows // 8, device=bench.device)
    return {"cu_seqlens": cu, "ref_logps": -torch.rand(rows, device=bench.device), "objective": "dpo"}


def _head(bench: Bench) -> Call:
    n, d, v = (24, 8, 64) if bench.dry else (4096, 4096, 152064)
    x, w = _leaves(bench, (n, d), (v, d))
    y = torch.arange(n, device=bench.device) % v
    return lambda backend: linear_preference(x, w, y, **_pairs(bench, n), backend=backend).loss


def _loss(bench: Bench) -> Call:
    rows = 64 if bench.dry else 65536
    logps = (-torch.rand(rows, device=bench.device)).requires_grad_()
    pairs = _pairs(bench, rows)
    return lambda backend: preference_loss(logps, **pairs, backend=backend).losses


def _attention(bench: Bench) -> Call:
    lengths, heads = ([3, 9, 4], 2) if bench.dry else ([512, 1024, 200, 2048, 312, 4096], 28)
    cu = torch.tensor([0, *lengths], device=bench.device).cumsum(0)
    q, k, v = _leaves(bench, *((sum(lengths), h, 128) for h in (heads, max(1, heads // 7), max(1, heads // 7))))

    def call(backend: str) -> Tensor:
        if reason := available(backend, q):
            raise ValueError(reason)
        return packed_attention(q, k, v, cu, max(lengths), backend=backend)

    return call


def _decoder(bench: Bench, name: str) -> Call:
    rows, width = (8, 512) if bench.dry else (8192, 4608)
    x, other, weight, head = _leaves(bench, (rows, width), (rows, width), (width,), (128,))
    angles = torch.randn(rows, 64, device=bench.device)
    cos, sin = (torch.cat((t, t), -1) for t in (angles.cos(), angles.sin()))
    calls: dict[str, Call] = {
        "swiglu": lambda backend: swiglu(x, other, backend=backend),
        "add_rms_norm": lambda backend: add_rms_norm(x, other, weight, 1e-6, backend=backend),
        "norm_rotate": lambda backend: norm_rotate(x.view(rows, -1, 128), cos, sin, head, backend=backend),
        "split_qkv": lambda backend: split_qkv(x, cos, sin, 1, 128, head, head, backend=backend),
    }
    return calls[name]


CONTESTS: dict[str, tuple[tuple[str, ...], Callable[[Bench], Call]]] = {
    "linear_logprob": (("blocked", "triton", "hybrid"), _logprob),
    "linear_preference": (("blocked", "triton"), _head),
    "packed_attention": (("flash", "varlen", "triton", "sdpa"), _attention),
    "preference_loss": (("reference", "triton"), _loss),
    **{
        name: (("reference", "triton"), partial(_decoder, name=name))
        for name in ("swiglu", "add_rms_norm", "norm_rotate", "split_qkv")
    },
}
OF_A_GPU = ("triton", "hybrid", "flash", "varlen")  # left out of a dry run


def _timed(bench: Bench, call: Call, backend: str) -> Row:
    def step() -> None:
        out = call(backend)
        parts = out if isinstance(out, tuple) else (out,)
        torch.autograd.backward(parts, [torch.ones_like(part) for part in parts])

    return bench.measure(step, seconds=1.0)


def run(bench: Bench) -> dict[str, str]:
    """The fastest back end of each function of which every candidate that can run was timed; empty in a dry run."""
    fastest = {}
    for function, (candidates, make) in CONTESTS.items():
        call = make(bench)
        found = {}
        for backend in candidates:
            if bench.dry and backend in OF_A_GPU:
                continue
            name = f"{function}: {backend}"
            bench.item(name, partial(_timed, bench, call, backend), ours=False)
            row = bench.rows[-1] if bench.rows and bench.rows[-1]["name"] == name else {}
            if row.get("ms"):
                found[backend] = row["ms"]
        if len(found) > 1:
            fastest[function] = min(found, key=lambda backend: found[backend])
    return fastest
