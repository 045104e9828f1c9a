"""Device code of the Triton back end: one tile of logits, its statistics or its gradient, never the whole matrix.

Letters: N rows, D width, V vocabulary, one tile BM rows x BV columns. u = z * log2(e), see kernels/README.md. Both
kernels make a tile by the same product and differ in what follows it. Every output element has one writer.
"""

from __future__ import annotations

import triton
import triton.language as tl

FLOOR = tl.constexpr(-3.0e38)  # in place of -inf as a maximum: FLOOR - FLOOR is 0 where inf - inf is NaN
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _swizzle(pid, rows, columns, GROUP: tl.constexpr):
    """(row tile, column tile) such that programs that run together share both operands in the level-2 cache."""
    first = pid // (GROUP * columns) * GROUP
    size = tl.minimum(rows - first, GROUP)
    within = pid % (GROUP * columns)
    return first + within % size, within // size


@triton.jit
def base_two(a, inner, outer, SOFTCAP: tl.constexpr):
    """u of raw logits a."""
    u = a * inner
    if SOFTCAP:
        e = tl.exp2(-2.8853900817779268 * tl.abs(u))  # exp(-2 |u|): tanh without a library call
        tanh = (1.0 - e) / (1.0 + e)
        u = tl.where(u < 0, -tanh, tanh) * outer
    return u


@triton.jit
def logit_gradient(
    u, m, flow, spread, level, is_target, own, inside, outer, scale, SOFTCAP: tl.constexpr, ENTROPY: tl.constexpr
):
    """dloss / da of each raw logit; what belongs to a row is broadcast by the caller. See backward."""
    shifted = u - m
    e = tl.exp2(shifted)
    if ENTROPY:
        finite = tl.where(e > 0, shifted, 0.0)
        dz = e * (flow - spread * (finite * LN_2 + level))
    else:
        dz = e * flow
    dz = tl.where(is_target, dz + own, dz) * scale
    if SOFTCAP:
        tanh = u / outer
        dz = tl.where(inside, dz * (1.0 - tanh * tanh), 0.0)
    return dz


@triton.jit
def _tile(
    x_ptr, w_ptr, b_ptr, N, V, D, row, column, inner, outer,
    HAS_BIAS: tl.constexpr, SOFTCAP: tl.constexpr, DESCRIPTORS: tl.constexpr, WIDEN: tl.constexpr,
    BM: tl.constexpr, BV: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """u (BM, BV) fp32 of the tile at (row, column); -inf right of the vocabulary."""
    rows, columns = row + tl.arange(0, BM), column + tl.arange(0, BV)
    acc = tl.zeros((BM, BV), tl.float32)
    if DESCRIPTORS:
        x_desc = tl.make_tensor_descriptor(x_ptr, [N, D], [D, 1], [BM, BK])
        w_desc = tl.make_tensor_descriptor(w_ptr, [V, D], [D, 1], [BV, BK])
    for k in range(0, D, BK):
        if DESCRIPTORS:
            x = x_desc.load([row, k])
            w = w_desc.load([column, k])
        else:
            ks = k + tl.arange(0, BK)
            x_at = rows.to(tl.int64)[:, None] * D + ks[None, :]
            w_at = columns.to(tl.int64)[:, None] * D + ks[None, :]
            x = tl.load(x_ptr + x_at, mask=(rows < N)[:, None] & (ks < D)[None, :], other=0.0)
            w = tl.load(w_ptr + w_at, mask=(columns < V)[:, None] & (ks < D)[None, :], other=0.0)
        if WIDEN:  # the interpreter's bf16 product is wrong
            x = x.to(tl.float32)
            w = w.to(tl.float32)
        acc = tl.dot(x, w.T, acc, input_precision="ieee")
    if HAS_BIAS:
        acc += tl.load(b_ptr + columns, mask=columns < V, other=0.0).to(tl.float32)[None, :]
    return tl.where((columns < V)[None, :], base_two(acc, inner, outer, SOFTCAP), float("-inf"))


@triton.jit
def tile_statistics(
    x_ptr, w_ptr, b_ptr, y_ptr,
    picked_ptr,  # (N,) fp32: the target's u, by the one tile that holds it
    m_ptr, s_ptr, t_ptr,  # (V / BV, N) fp32 each: a tile's maximum and sums
    N, V, D, row_tiles, column_tiles, inner, outer,
    HAS_BIAS: tl.constexpr, SOFTCAP: tl.constexpr, ENTROPY: tl.constexpr,
    DESCRIPTORS: tl.constexpr, WIDEN: tl.constexpr,
    BM: tl.constexpr, BV: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
) -> None:  # fmt: skip
    row_tile, column_tile = _swizzle(tl.program_id(0), row_tiles, column_tiles, GROUP)
    row, column = row_tile * BM, column_tile * BV
    u = _tile(
        x_ptr, w_ptr, b_ptr, N, V, D, row, column, inner, outer,
        HAS_BIAS, SOFTCAP, DESCRIPTORS, WIDEN, BM, BV, BK,
    )  # fmt: skip
    rows, columns = row + tl.arange(0, BM), column + tl.arange(0, BV)
    target = tl.load(y_ptr + rows, mask=rows < N, other=-1)
    is_target = target[:, None] == columns[None, :]
    mine = (target >= column) & (target < column + BV) & (rows < N)
    tl.store(picked_ptr + rows, tl.sum(tl.where(is_target, u, 0.0), 1), mask=mine)
    m = tl.maximum(tl.max(u, 1), FLOOR)
    shifted = u - m[:, None]
    e = tl.exp2(shifted)
    at = column_tile.to(tl.int64) * N + rows
    tl.store(m_ptr + at, m, mask=rows < N)
    tl.store(s_ptr + at, tl.sum(e, 1), mask=rows < N)
    if ENTROPY:
        finite = tl.where(e > 0, shifted, 0.0)  # 0 * -inf would be NaN
        tl.store(t_ptr + at, tl.sum(e * finite, 1) * LN_2, mask=rows < N)


@triton.jit
def tile_gradient(
    x_ptr, w_ptr, b_ptr, y_ptr,
    m_ptr, flow_ptr, target_ptr, spread_ptr, level_ptr,  # (N,) fp32 each, see backward
    g_ptr,  # (N, stride) in the dtype of the products that follow: dloss / da of each raw logit
    stride, N, V, D, row_tiles, column_tiles, inner, outer, scale,
    HAS_BIAS: tl.constexpr, SOFTCAP: tl.constexpr, ENTROPY: tl.constexpr,
    DESCRIPTORS: tl.constexpr, WIDEN: tl.constexpr,
    BM: tl.constexpr, BV: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
) -> None:  # fmt: skip
    row_tile, column_tile = _swizzle(tl.program_id(0), row_tiles, column_tiles, GROUP)
    row, column = row_tile * BM, column_tile * BV
    u = _tile(
        x_ptr, w_ptr, b_ptr, N, V, D, row, column, inner, outer,
        HAS_BIAS, SOFTCAP, DESCRIPTORS, WIDEN, BM, BV, BK,
    )  # fmt: skip
    rows, columns = row + tl.arange(0, BM), column + tl.arange(0, BV)
    real = rows < N
    m = tl.load(m_ptr + rows, mask=real, other=0.0)
    flow = tl.load(flow_ptr + rows, mask=real, other=0.0)
    spread = m
    level = m
    if ENTROPY:
        spread = tl.load(spread_ptr + rows, mask=real, other=0.0)
        level = tl.load(level_ptr + rows, mask=real, other=0.0)
    target = tl.load(y_ptr + rows, mask=real, other=-1)
    own = tl.load(target_ptr + rows, mask=real, other=0.0)
    dz = logit_gradient(
        u, m[:, None], flow[:, None], spread[:, None], level[:, None], target[:, None] == columns[None, :],
        own[:, None], (columns < V)[None, :], outer, scale, SOFTCAP, ENTROPY,
    )  # fmt: skip
    at = rows.to(tl.int64)[:, None] * stride + columns[None, :]
    tl.store(g_ptr + at, dz.to(g_ptr.dtype.element_ty), mask=real[:, None] & (columns < V)[None, :])
