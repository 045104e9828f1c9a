"""The hybrid back end: the device's own product writes logits, and row kernels make of them what is asked.

Logits are fp32 and few rows at a time, so that neither log-probs nor gradients see a rounding of them; their gradient
goes, in the operands' dtype, into a larger chunk from which the two last products are made. With fp32 operands the
chunk itself holds the logits and is overwritten. Letters in shapes: N rows, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from plum_kernels.logprob.blocks import Transform, Upstream, spans
from plum_kernels.logprob.hybrid_kernels import row_gradient, row_statistics
from plum_kernels.logprob.products import INTERPRETED, products, row_stride
from plum_kernels.logprob.triton_backend import chunk_rows, of_rows

LOGIT_BYTES = 300 << 20  # fp32 logits in work: with a chunk of 4096 x 152064 in bf16 1.45 GiB
TRAINED_ROWS = 4096  # of a chunk at least: the trained head's fp32 gradient is read and written once a chunk
BLOCK = 16 if INTERPRETED else 2048  # logits of a row at a time
WARPS = 1 if INTERPRETED else 8


def logit_rows(rows: int, stride: int) -> int:
    """Rows of fp32 logits in work, in whole tiles of a product, at least one."""
    return min(max(1, rows), max(128, LOGIT_BYTES // (4 * stride) // 128 * 128))


class Rows:
    """Logits of some rows at a time, and the launches over them."""

    def __init__(self, x: Tensor, weight: Tensor, bias: Tensor | None, transform: Transform, entropy: bool) -> None:
        self.x, self.weight, self.bias, self.transform, self.entropy = x, weight, bias, transform, entropy

    def logits(self, r: slice, out: Tensor) -> Tensor:
        """(rows, V) fp32 raw logits without the bias, into ``out``."""
        x, weight = self.x[r], self.weight.T
        if x.dtype == torch.float32:
            return torch.mm(x, weight, out=out)
        if x.is_cuda:
            return torch.mm(x, weight, out_dtype=torch.float32, out=out)
        return torch.mm(x.float(), weight.float(), out=out)

    def __call__(
        self, kernel: Any, grid: tuple[int, ...], logits: Tensor, *arguments: Any, scale: float | None = None
    ) -> None:
        softcap = self.transform.softcap is not None
        kernel[grid](
            logits, self.weight if self.bias is None else self.bias, *arguments,
            len(self.weight), self.transform.inner, self.transform.outer if softcap else 1.0,
            *([] if scale is None else [scale]),
            HAS_BIAS=self.bias is not None, SOFTCAP=softcap, ENTROPY=self.entropy, BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip


def statistics(rows: Rows, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N,) each: the target's u, and m, s, t, as the blocked path has them."""
    x, weight = rows.x, rows.weight
    stride = row_stride(weight)
    out = torch.zeros(4, len(x), dtype=torch.float32, device=x.device)
    size = logit_rows(len(x), stride)
    buffer = torch.empty(size, stride, dtype=torch.float32, device=x.device)
    for r in spans(len(x), size):
        logits = rows.logits(r, buffer[: r.stop - r.start, : len(weight)])
        rows(row_statistics, (len(logits),), logits, targets[r], *(part[r] for part in out), stride)
    picked, m, s, t = out
    return picked, m, s, t


def gradients(
    rows: Rows,
    targets: Tensor,
    state: tuple[Tensor, Tensor, Tensor],
    g: Upstream,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """As ``blocked.gradients``. Sums over chunks are fp32."""
    x, weight, of_row = rows.x, rows.weight, of_rows(state, g)
    stride = row_stride(weight)
    few = logit_rows(len(x), stride)
    own = None if x.dtype == torch.float32 else torch.empty(few, stride, dtype=torch.float32, device=x.device)

    def make(chunk: slice, buffer: Tensor) -> None:
        for part in spans(chunk.stop - chunk.start, few):
            r = slice(chunk.start + part.start, chunk.start + part.stop)
            out = buffer[part] if own is None else own
            logits = rows.logits(r, out[: r.stop - r.start, : len(weight)])
            rows(
                row_gradient, (len(logits), triton.cdiv(len(weight), BLOCK)), logits, targets[r],
                *(values[r] for values in of_row), buffer[part], stride, stride, scale=rows.transform.gain,
            )  # fmt: skip

    size = chunk_rows(len(x), stride, x.element_size())
    if wanted[1]:
        size = max(size, min(len(x), TRAINED_ROWS))
    size = triton.cdiv(size, few) * few  # products of forward's very shapes: the logits are the same to the last bit
    return products(make, x, weight, rows.bias, wanted, size)
