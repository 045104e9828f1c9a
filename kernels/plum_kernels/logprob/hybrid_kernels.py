"""Device code of the hybrid back end: rows of logits that the device's own product wrote, to statistics or gradients.

Letters: N rows, V vocabulary. u = z * log2(e), see kernels/README.md. Every output element has one writer.
"""

from __future__ import annotations

import triton
import triton.language as tl

from plum_kernels.logprob.triton_kernels import FLOOR, LN_2, base_two, logit_gradient


@triton.jit
def _logits(
    a_ptr, b_ptr, columns, V, inner, outer, HAS_BIAS: tl.constexpr, SOFTCAP: tl.constexpr
):  # fmt: skip
    """u of one row at ``columns``; -inf right of the vocabulary."""
    a = tl.load(a_ptr + columns, mask=columns < V, other=0.0).to(tl.float32)
    if HAS_BIAS:
        a += tl.load(b_ptr + columns, mask=columns < V, other=0.0).to(tl.float32)
    return tl.where(columns < V, base_two(a, inner, outer, SOFTCAP), float("-inf"))


@triton.jit
def row_statistics(
    a_ptr, b_ptr, y_ptr,  # (N, stride) fp32 raw logits, (V,), (N,)
    picked_ptr, m_ptr, s_ptr, t_ptr,  # (N,) fp32 each: the target's u, the maximum, the sums
    stride, V, inner, outer,
    HAS_BIAS: tl.constexpr, SOFTCAP: tl.constexpr, ENTROPY: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """One row, read once: each lane keeps its own maximum and sums, and they meet at the end. Grid: (N,)."""
    row = tl.program_id(0).to(tl.int64)
    a_ptr += row * stride
    m = tl.full((BLOCK,), FLOOR, tl.float32)
    s = tl.zeros((BLOCK,), tl.float32)
    t = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, V, BLOCK):
        u = _logits(a_ptr, b_ptr, first + tl.arange(0, BLOCK), V, inner, outer, HAS_BIAS, SOFTCAP)
        higher = tl.maximum(m, u)
        keep = tl.exp2(m - higher)
        e = tl.exp2(u - higher)
        if ENTROPY:
            finite = tl.where(e > 0, u - higher, 0.0)  # 0 * -inf would be NaN
            t = keep * (t + (m - higher) * LN_2 * s) + e * finite * LN_2
        s = s * keep + e
        m = higher
    highest = tl.max(m, 0)
    scale = tl.exp2(m - highest)
    tl.store(m_ptr + row, highest)
    tl.store(s_ptr + row, tl.sum(s * scale, 0))
    if ENTROPY:
        tl.store(t_ptr + row, tl.sum(scale * (t + (m - highest) * LN_2 * s), 0))
    target = tl.load(y_ptr + row) + tl.arange(0, 1)
    picked = _logits(a_ptr, b_ptr, target, V, inner, outer, HAS_BIAS, SOFTCAP)
    tl.store(picked_ptr + row + tl.arange(0, 1), picked)


@triton.jit
def row_gradient(
    a_ptr, b_ptr, y_ptr, m_ptr, flow_ptr, target_ptr, spread_ptr, level_ptr,  # as tile_gradient has them
    g_ptr,  # (N, g_stride): dloss / da; may be a_ptr itself, each element is read before it is written
    stride, g_stride, V, inner, outer, scale,
    HAS_BIAS: tl.constexpr, SOFTCAP: tl.constexpr, ENTROPY: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """BLOCK logits of one row. Grid: (N, V / BLOCK)."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    u = _logits(a_ptr + row * stride, b_ptr, columns, V, inner, outer, HAS_BIAS, SOFTCAP)
    m = tl.load(m_ptr + row)
    spread = m
    level = m
    if ENTROPY:
        spread = tl.load(spread_ptr + row)
        level = tl.load(level_ptr + row)
    dz = logit_gradient(
        u, m, tl.load(flow_ptr + row), spread, level, columns == tl.load(y_ptr + row), tl.load(target_ptr + row),
        columns < V, outer, scale, SOFTCAP, ENTROPY,
    )  # fmt: skip
    tl.store(g_ptr + row * g_stride + columns, dz.to(g_ptr.dtype.element_ty), mask=columns < V)
