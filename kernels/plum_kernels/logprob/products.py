"""From the gradient of the logits, a chunk of rows at a time, to those of hidden states, weight and bias.

Letters in shapes: N rows, D width, V vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor

from plum_kernels.logprob.blocks import spans

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def row_stride(weight: Tensor) -> int:
    """Elements from one row of logits to the next: rows start on 16 bytes."""
    return -(-len(weight) // 8) * 8


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in fp32, from fp32 sums without a rounding to the operands' dtype where the device can."""
    if a.dtype == torch.float32:
        return a @ b
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float()


def products(
    make: Callable[[slice, Tensor], None],  # writes da of some rows into the first of (size, stride)
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    wanted: tuple[bool, bool, bool],
    size: int,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients (N, D), (V, D) and (V,), None where not wanted, from chunks of ``size`` rows; their sums are fp32."""
    want_x, want_w, want_b = wanted
    # the interpreter narrows to bf16 by truncation, so there the kernel stores fp32 and torch narrows
    buffer = x.new_empty(size, row_stride(weight), dtype=torch.float32 if INTERPRETED else x.dtype)
    dx = torch.empty_like(x) if want_x else None
    dw = torch.zeros_like(weight, dtype=torch.float32) if want_w else None
    db = torch.zeros(len(weight), dtype=torch.float32, device=x.device) if want_b else None
    for r in spans(len(x), size):
        make(r, buffer)
        da = buffer[: r.stop - r.start, : len(weight)].to(x.dtype)
        if dx is not None:
            torch.mm(da, weight, out=dx[r])
        if dw is not None:
            dw += product(da.T, x[r])
        if db is not None:
            db += da.sum(0, dtype=torch.float32)
    return (
        dx,
        None if dw is None else dw.to(weight.dtype),
        None if db is None or bias is None else db.to(bias.dtype),
    )
