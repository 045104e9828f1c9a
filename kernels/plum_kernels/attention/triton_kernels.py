"""Device code of packed attention: forward, and two launches backward. Every output element has one writer.

FlashAttention-2's tiling (Dao 2023, arXiv 2307.08691) over sequences that lie end to end: a program knows from two
small tables which sequence and which tile of it are its own, so nothing depends on the longest sequence and an empty
one costs nothing. Scores, weights and sums are fp32, in base 2; weights and score gradients are rounded to the
operands' dtype before their products, as every flash attention does.

Letters: T tokens, H query heads, G key/value heads, J = H / G, E head width, a tile of BM queries x BN keys.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
FLOOR = tl.constexpr(-3.0e38)  # in place of -inf as a maximum: FLOOR - FLOOR is 0 where inf - inf is NaN


@triton.jit
def _rows(ptr, first, count, stride, E: tl.constexpr, E_PAD: tl.constexpr, ROWS: tl.constexpr, WIDEN: tl.constexpr):
    """(ROWS, E_PAD) of one head from row ``first`` on, zeros behind ``count`` rows and E channels."""
    row, e = tl.arange(0, ROWS), tl.arange(0, E_PAD)
    at = (first + row).to(tl.int64)[:, None] * stride + e[None, :]
    inside = (row < count)[:, None]
    if E != E_PAD:
        inside = inside & (e < E)[None, :]
    x = tl.load(ptr + at, mask=inside, other=0.0)
    if WIDEN:  # the interpreter's bf16 product is wrong
        x = x.to(tl.float32)
    return x


@triton.jit
def _put(ptr, x, first, count, stride, E: tl.constexpr, E_PAD: tl.constexpr, ROWS: tl.constexpr):
    """(ROWS, E_PAD) to one head from row ``first`` on."""
    row, e = tl.arange(0, ROWS), tl.arange(0, E_PAD)
    at = (first + row).to(tl.int64)[:, None] * stride + e[None, :]
    tl.store(ptr + at, x.to(ptr.dtype.element_ty), mask=(row < count)[:, None] & (e < E)[None, :])


@triton.jit
def _visible(query, key, length, WINDOW: tl.constexpr):
    """Which keys a query sees: those up to its own position, of the last WINDOW where there is one."""
    seen = (key <= query) & (key < length)
    if WINDOW > 0:
        seen = seen & (query - key < WINDOW)
    return seen


@triton.jit
def _key_tiles(row, length, BM: tl.constexpr, BN: tl.constexpr, WINDOW: tl.constexpr):
    """Of the query tile at ``row``: first key, first and last key of what every query sees whole, last key."""
    stop = tl.minimum(row + BM, length)
    start = row * 0
    whole = start
    if WINDOW > 0:
        start = tl.maximum(row - WINDOW + 1, 0) // BN * BN
        whole = tl.minimum(tl.maximum((row + BM - WINDOW + BN - 1) // BN * BN, start), tl.cdiv(stop, BN) * BN)
    return start, whole, tl.maximum(row // BN * BN, whole), stop


@triton.jit
def _forward_tiles(
    q, out, highest, total, k_ptr, v_ptr, begin, row, length, start, stop, k_stride, v_stride, scale,
    E: tl.constexpr, E_PAD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, WINDOW: tl.constexpr,
    MASKED: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """The running sums after the keys from ``start`` to ``stop``."""
    for key in range(start, stop, BN):
        k = _rows(k_ptr, begin + key, length - key, k_stride, E, E_PAD, BN, WIDEN)
        v = _rows(v_ptr, begin + key, length - key, v_stride, E, E_PAD, BN, WIDEN)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if MASKED:
            seen = _visible((row + tl.arange(0, BM))[:, None], (key + tl.arange(0, BN))[None, :], length, WINDOW)
            scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        keep = tl.exp2(highest - higher)
        total = total * keep + tl.sum(weights, 1)
        out = tl.dot(weights.to(v.dtype), v, out * keep[:, None], input_precision="ieee")
        highest = higher
    return out, highest, total


@triton.jit
def attention_forward(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr,  # (T, H, E), (T, G, E), (T, G, E), (T, H, E) dense, (H, T) fp32
    start_ptr, sequence_ptr, block_ptr,  # (S + 1,), (tiles,), (tiles,) int32; a sequence of -1 is no tile
    q_row, q_head, k_row, k_head, v_row, v_head, T, H, scale,  # strides in elements; scale carries log2(e)
    J: tl.constexpr, E: tl.constexpr, E_PAD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    WINDOW: tl.constexpr, WIDEN: tl.constexpr,
) -> None:  # fmt: skip
    """One query tile of one head. Grid: (tiles, H)."""
    sequence = tl.load(sequence_ptr + tl.program_id(0))
    if sequence >= 0:
        head = tl.program_id(1).to(tl.int64)
        begin = tl.load(start_ptr + sequence)
        length = tl.load(start_ptr + sequence + 1) - begin
        row = tl.load(block_ptr + tl.program_id(0)) * BM
        k_ptr += head // J * k_head
        v_ptr += head // J * v_head
        q = _rows(q_ptr + head * q_head, begin + row, length - row, q_row, E, E_PAD, BM, WIDEN)
        out = tl.zeros((BM, E_PAD), tl.float32)
        highest = tl.full((BM,), FLOOR, tl.float32)
        total = tl.zeros((BM,), tl.float32)
        start, whole, edge, stop = _key_tiles(row, length, BM, BN, WINDOW)
        if WINDOW > 0:
            out, highest, total = _forward_tiles(
                q, out, highest, total, k_ptr, v_ptr, begin, row, length, start, whole, k_row, v_row, scale,
                E, E_PAD, BM, BN, WINDOW, True, WIDEN,
            )  # fmt: skip
        out, highest, total = _forward_tiles(
            q, out, highest, total, k_ptr, v_ptr, begin, row, length, whole, edge, k_row, v_row, scale,
            E, E_PAD, BM, BN, WINDOW, False, WIDEN,
        )  # fmt: skip
        out, highest, total = _forward_tiles(
            q, out, highest, total, k_ptr, v_ptr, begin, row, length, edge, stop, k_row, v_row, scale,
            E, E_PAD, BM, BN, WINDOW, True, WIDEN,
        )  # fmt: skip
        total = tl.where(total > 0, total, 1.0)  # of rows behind the sequence alone
        rows = row + tl.arange(0, BM)
        tl.store(lse_ptr + head * T + begin + rows, (highest + tl.log2(total)) * LN_2, mask=rows < length)
        _put(out_ptr + head * E, out / total[:, None], begin + row, length - row, H * E, E, E_PAD, BM)


@triton.jit
def _query_gradient_tiles(
    dq, q, dout, lse, delta, k_ptr, v_ptr, begin, row, length, start, stop, k_stride, v_stride, scale,
    E: tl.constexpr, E_PAD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, WINDOW: tl.constexpr,
    MASKED: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    for key in range(start, stop, BN):
        k = _rows(k_ptr, begin + key, length - key, k_stride, E, E_PAD, BN, WIDEN)
        v = _rows(v_ptr, begin + key, length - key, v_stride, E, E_PAD, BN, WIDEN)
        p = tl.exp2(tl.dot(q, tl.trans(k), input_precision="ieee") * scale - lse[:, None])
        if MASKED:
            seen = _visible((row + tl.arange(0, BM))[:, None], (key + tl.arange(0, BN))[None, :], length, WINDOW)
            p = tl.where(seen, p, 0.0)
        ds = p * (tl.dot(dout, tl.trans(v), input_precision="ieee") - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
    return dq


@triton.jit
def attention_query_gradient(
    q_ptr, k_ptr, v_ptr, out_ptr, dout_ptr, lse_ptr, delta_ptr, dq_ptr,
    start_ptr, sequence_ptr, block_ptr,
    q_row, q_head, k_row, k_head, v_row, v_head, T, H, scale, factor,  # factor: scale without log2(e)
    J: tl.constexpr, E: tl.constexpr, E_PAD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    WINDOW: tl.constexpr, WIDEN: tl.constexpr,
) -> None:  # fmt: skip
    """One query tile of one head: dq, and delta (H, T) = sum over E of dout out. Grid: (tiles, H)."""
    sequence = tl.load(sequence_ptr + tl.program_id(0))
    if sequence >= 0:
        head = tl.program_id(1).to(tl.int64)
        begin = tl.load(start_ptr + sequence)
        length = tl.load(start_ptr + sequence + 1) - begin
        row = tl.load(block_ptr + tl.program_id(0)) * BM
        k_ptr += head // J * k_head
        v_ptr += head // J * v_head
        q = _rows(q_ptr + head * q_head, begin + row, length - row, q_row, E, E_PAD, BM, WIDEN)
        dout = _rows(dout_ptr + head * E, begin + row, length - row, H * E, E, E_PAD, BM, WIDEN)
        out = _rows(out_ptr + head * E, begin + row, length - row, H * E, E, E_PAD, BM, WIDEN)
        rows = row + tl.arange(0, BM)
        at = head * T + begin + rows
        delta = tl.sum(dout.to(tl.float32) * out.to(tl.float32), 1)
        tl.store(delta_ptr + at, delta, mask=rows < length)
        lse = tl.load(lse_ptr + at, mask=rows < length, other=0.0) * LOG2_E
        start, whole, edge, stop = _key_tiles(row, length, BM, BN, WINDOW)
        dq = tl.zeros((BM, E_PAD), tl.float32)
        if WINDOW > 0:
            dq = _query_gradient_tiles(
                dq, q, dout, lse, delta, k_ptr, v_ptr, begin, row, length, start, whole, k_row, v_row, scale,
                E, E_PAD, BM, BN, WINDOW, True, WIDEN,
            )  # fmt: skip
        dq = _query_gradient_tiles(
            dq, q, dout, lse, delta, k_ptr, v_ptr, begin, row, length, whole, edge, k_row, v_row, scale,
            E, E_PAD, BM, BN, WINDOW, False, WIDEN,
        )  # fmt: skip
        dq = _query_gradient_tiles(
            dq, q, dout, lse, delta, k_ptr, v_ptr, begin, row, length, edge, stop, k_row, v_row, scale,
            E, E_PAD, BM, BN, WINDOW, True, WIDEN,
        )  # fmt: skip
        _put(dq_ptr + head * E, dq * factor, begin + row, length - row, H * E, E, E_PAD, BM)


@triton.jit
def attention_key_gradient(
    q_ptr, k_ptr, v_ptr, dout_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr,
    start_ptr, sequence_ptr, block_ptr,
    q_row, q_head, k_row, k_head, v_row, v_head, T, H, scale, factor,
    J: tl.constexpr, E: tl.constexpr, E_PAD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    WINDOW: tl.constexpr, WIDEN: tl.constexpr,
) -> None:  # fmt: skip
    """One key tile of one key/value head: dk and dv over all query heads of its group. Grid: (tiles, G)."""
    sequence = tl.load(sequence_ptr + tl.program_id(0))
    if sequence >= 0:
        group = tl.program_id(1).to(tl.int64)
        begin = tl.load(start_ptr + sequence)
        length = tl.load(start_ptr + sequence + 1) - begin
        key = tl.load(block_ptr + tl.program_id(0)) * BN
        k = _rows(k_ptr + group * k_head, begin + key, length - key, k_row, E, E_PAD, BN, WIDEN)
        v = _rows(v_ptr + group * v_head, begin + key, length - key, v_row, E, E_PAD, BN, WIDEN)
        dk = tl.zeros((BN, E_PAD), tl.float32)
        dv = tl.zeros((BN, E_PAD), tl.float32)
        stop = length
        if WINDOW > 0:
            stop = tl.minimum(length, key + BN + WINDOW - 1)
        for head in range(group * J, (group + 1) * J):
            for row in range(key // BM * BM, stop, BM):
                rows = row + tl.arange(0, BM)
                q = _rows(q_ptr + head * q_head, begin + row, length - row, q_row, E, E_PAD, BM, WIDEN)
                dout = _rows(dout_ptr + head * E, begin + row, length - row, H * E, E, E_PAD, BM, WIDEN)
                at = head * T + begin + rows
                lse = tl.load(lse_ptr + at, mask=rows < length, other=0.0) * LOG2_E
                delta = tl.load(delta_ptr + at, mask=rows < length, other=0.0)
                # keys x queries, so that both products below take their left side as it was made
                p = tl.exp2(tl.dot(k, tl.trans(q), input_precision="ieee") * scale - lse[None, :])
                seen = _visible(rows[None, :], (key + tl.arange(0, BN))[:, None], length, WINDOW)
                p = tl.where(seen & (rows < length)[None, :], p, 0.0)
                dv = tl.dot(p.to(dout.dtype), dout, dv, input_precision="ieee")
                ds = p * (tl.dot(v, tl.trans(dout), input_precision="ieee") - delta[None, :])
                dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
        groups = H // J
        _put(dk_ptr + group * E, dk * factor, begin + key, length - key, groups * E, E, E_PAD, BN)
        _put(dv_ptr + group * E, dv, begin + key, length - key, groups * E, E, E_PAD, BN)
