"""Device code of a trained head: exponentials kept by tile, turned into gradients, and products over kept tiles alone.

Letters: N rows of a chunk, D width, V vocabulary; one tile BM rows x BV columns; e = 2**(u - its tile's maximum), so
that bf16 keeps p to 2**-9 of itself however small it is. Every output element has one writer.
"""

from __future__ import annotations

import triton
import triton.language as tl

from plum_kernels.logprob.triton_kernels import FLOOR, _swizzle, _tile


@triton.jit
def tile_exponentials(
    x_ptr, w_ptr, b_ptr, y_ptr,
    picked_ptr,  # (N,) fp32: the target's u, by the one tile that holds it
    m_ptr, s_ptr,  # (V / BV, N) fp32 each: a tile's maximum and sum
    e_ptr,  # (N, stride): e, times the slope of the soft cap
    stride, N, V, D, row_tiles, column_tiles, inner, outer,
    HAS_BIAS: tl.constexpr, SOFTCAP: tl.constexpr, DESCRIPTORS: tl.constexpr, WIDEN: tl.constexpr,
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
    mine = (target >= column) & (target < column + BV) & (rows < N)
    tl.store(picked_ptr + rows, tl.sum(tl.where(target[:, None] == columns[None, :], u, 0.0), 1), mask=mine)
    m = tl.maximum(tl.max(u, 1), FLOOR)
    e = tl.exp2(u - m[:, None])
    at = column_tile.to(tl.int64) * N + rows
    tl.store(m_ptr + at, m, mask=rows < N)
    tl.store(s_ptr + at, tl.sum(e, 1), mask=rows < N)
    if SOFTCAP:
        tanh = u / outer
        e = tl.where((columns < V)[None, :], e * (1.0 - tanh * tanh), 0.0)
    to = tl.arange(0, BM)[:, None] * stride + columns[None, :]  # 32 bits within a tile's rows: fewer registers
    tl.store(
        e_ptr + row.to(tl.int64) * stride + to,
        e.to(e_ptr.dtype.element_ty),
        mask=(rows < N)[:, None] & (columns < V)[None, :],
    )


@triton.jit
def tile_finish(
    e_ptr, y_ptr,  # (N, stride) in place; (N,)
    factor_ptr,  # (V / BV, N) fp32: what a tile's exponentials count in each row
    own_ptr,  # (N,) fp32: the gradient of the target's raw logit
    active_ptr,  # (N / BM, V / BV) uint8; 0 fills the tile with zeros
    stride, N, V, column_tiles,
    BM: tl.constexpr, BV: tl.constexpr, SUB: tl.constexpr,
) -> None:  # fmt: skip
    row_tile, column_tile = tl.program_id(0), tl.program_id(1)
    on = tl.load(active_ptr + row_tile * column_tiles + column_tile).to(tl.int32)
    for part in range(0, BM, SUB):
        rows = row_tile * BM + part + tl.arange(0, SUB)
        columns = column_tile * BV + tl.arange(0, BV)
        inside = (rows < N)[:, None] & (columns < V)[None, :]
        at = rows.to(tl.int64)[:, None] * stride + columns[None, :]
        if on > 0:
            e = tl.load(e_ptr + at, mask=inside, other=0.0).to(tl.float32)
            factor = tl.load(factor_ptr + column_tile.to(tl.int64) * N + rows, mask=rows < N, other=0.0)
            own = tl.load(own_ptr + rows, mask=rows < N, other=0.0)
            target = tl.load(y_ptr + rows, mask=rows < N, other=-1)
            da = tl.where(target[:, None] == columns[None, :], own[:, None], e * factor[:, None])
            tl.store(e_ptr + at, da.to(e_ptr.dtype.element_ty), mask=inside)
        else:
            tl.store(e_ptr + at, tl.zeros((SUB, BV), e_ptr.dtype.element_ty), mask=inside)


@triton.jit
def kept_dx(
    da_ptr, w_ptr, dx_ptr,  # (N, stride), (V, D), (N, D)
    tiles_ptr, counts_ptr,  # (N / BM, V / BV) int32: the kept tiles of a row block come first; (N / BM,) int32
    stride, N, V, D, column_tiles,
    WIDEN: tl.constexpr, BM: tl.constexpr, BV: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr,
) -> None:  # fmt: skip
    """dx of a row block: da @ W over the tiles that are kept."""
    row_tile = tl.program_id(1)
    rows, ds = row_tile * BM + tl.arange(0, BM), tl.program_id(0) * BD + tl.arange(0, BD)
    acc = tl.zeros((BM, BD), tl.float32)
    for i in range(0, tl.load(counts_ptr + row_tile)):
        column = tl.load(tiles_ptr + row_tile * column_tiles + i) * BV
        for k in range(0, BV, BK):
            vs = column + k + tl.arange(0, BK)
            da_at = rows.to(tl.int64)[:, None] * stride + vs[None, :]
            w_at = vs.to(tl.int64)[:, None] * D + ds[None, :]
            da = tl.load(da_ptr + da_at, mask=(rows < N)[:, None] & (vs < V)[None, :], other=0.0)
            w = tl.load(w_ptr + w_at, mask=(vs < V)[:, None] & (ds < D)[None, :], other=0.0)
            if WIDEN:
                da = da.to(tl.float32)
                w = w.to(tl.float32)
            acc = tl.dot(da, w, acc, input_precision="ieee")
    out = rows.to(tl.int64)[:, None] * D + ds[None, :]
    tl.store(dx_ptr + out, acc.to(dx_ptr.dtype.element_ty), mask=(rows < N)[:, None] & (ds < D)[None, :])


@triton.jit
def kept_dw(
    da_ptr, x_ptr, dw_ptr,  # (N, stride), (N, D), (V, D) fp32: added to
    blocks_ptr, counts_ptr,  # (V / BV, N / BM) int32: the row blocks that keep a tile come first; (V / BV,) int32
    stride, N, V, D, row_tiles,
    WIDEN: tl.constexpr, BM: tl.constexpr, BV: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    BK: tl.constexpr,
) -> None:  # fmt: skip
    """dW of BN columns of the vocabulary: da.T @ x over the row blocks that keep their tile."""
    column_tile = tl.program_id(1) * BN // BV
    vs, ds = tl.program_id(1) * BN + tl.arange(0, BN), tl.program_id(0) * BD + tl.arange(0, BD)
    count = tl.load(counts_ptr + column_tile)
    acc = tl.zeros((BN, BD), tl.float32)
    for i in range(0, count):
        row = tl.load(blocks_ptr + column_tile * row_tiles + i) * BM
        for k in range(0, BM, BK):
            rows = row + k + tl.arange(0, BK)
            da_at = rows.to(tl.int64)[:, None] * stride + vs[None, :]
            x_at = rows.to(tl.int64)[:, None] * D + ds[None, :]
            da = tl.load(da_ptr + da_at, mask=(rows < N)[:, None] & (vs < V)[None, :], other=0.0)
            x = tl.load(x_ptr + x_at, mask=(rows < N)[:, None] & (ds < D)[None, :], other=0.0)
            if WIDEN:
                da = da.to(tl.float32)
                x = x.to(tl.float32)
            acc = tl.dot(tl.trans(da), x, acc, input_precision="ieee")
    if count > 0:
        out = vs.to(tl.int64)[:, None] * D + ds[None, :]
        inside = (vs < V)[:, None] & (ds < D)[None, :]
        tl.store(dw_ptr + out, tl.load(dw_ptr + out, mask=inside, other=0.0) + acc, mask=inside)
