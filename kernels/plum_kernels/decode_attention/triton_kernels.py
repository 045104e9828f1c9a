"""Device code of ``decode_attention``: parts of the keys for tiles of query heads, then a merge by logsumexp.

A part is a fixed number of positions, so what a row gets does not depend on the batch it is in. The rows of a shared
prompt stand in one tile and read its keys once (Hydragen, Juravsky et al. 2024; cascade inference, Ye et al. 2024);
own tokens are the same kernel with one row a tile. Query heads of one key/value head share a tile (GQA).
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def attend_part(
    q_ptr, k_ptr, v_ptr, table_ptr, length_ptr, base_ptr, member_ptr, position_ptr, part_ptr, lse_ptr,
    row_stride, head_stride, group_stride, block_stride, token_stride, table_width, slots, rows, heads, first_part,
    tiles, scale,
    J: tl.constexpr, E: tl.constexpr, E_PAD: tl.constexpr, P: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    SPLIT: tl.constexpr, CAP: tl.constexpr, WINDOW: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """One tile of ROWS (slot, head) lanes of an entry and key/value head over SPLIT positions from split * SPLIT.

    Grid: (entries * tiles, groups, splits). Writes softmax(scores) v of the part and its logsumexp, fp32.
    """
    entry = tl.program_id(0) // tiles
    group = tl.program_id(1)
    split = tl.program_id(2)
    length = tl.load(length_ptr + entry)
    start = split * SPLIT
    if start < length:
        lane = (tl.program_id(0) % tiles) * ROWS + tl.arange(0, ROWS)
        slot = lane // J
        head = group * J + lane % J
        row = tl.load(member_ptr + entry * slots + slot, mask=slot < slots, other=-1)
        real = row >= 0
        row = tl.where(real, row, 0).to(tl.int64)
        e = tl.arange(0, E_PAD)
        some = real[:, None] & (e < E)[None, :]
        q = tl.load(q_ptr + row[:, None] * row_stride + head[:, None] * head_stride + e[None, :], mask=some, other=0.0)
        if WIDEN:  # the interpreter's bf16 product is wrong
            q = q.to(tl.float32)
        position = tl.load(position_ptr + row, mask=real, other=0)
        base = tl.load(base_ptr + entry)
        highest = tl.full((ROWS,), float("-inf"), tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        out = tl.zeros((ROWS, E_PAD), tl.float32)
        stop = tl.minimum(start + SPLIT, length)
        for first in range(start, stop, COLS):
            at = first + tl.arange(0, COLS)
            inside = at < stop
            block = tl.load(table_ptr + entry.to(tl.int64) * table_width + at // P, mask=inside, other=0).to(tl.int64)
            offset = group.to(tl.int64) * group_stride + block * block_stride + (at % P) * token_stride
            there = inside[:, None] & (e < E)[None, :]
            k = tl.load(k_ptr + offset[:, None] + e[None, :], mask=there, other=0.0)
            v = tl.load(v_ptr + offset[:, None] + e[None, :], mask=there, other=0.0)
            if WIDEN:
                k = k.to(tl.float32)
                v = v.to(tl.float32)
            scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
            if CAP > 0:
                scores = CAP * (1.0 - 2.0 / (1.0 + tl.exp2(scores * LOG2_E * 2.0 / CAP)))
            visible = inside[None, :]
            if WINDOW > 0:
                visible = visible & (position[:, None] - (base + at)[None, :] < WINDOW)
            scores = tl.where(visible, scores * LOG2_E, float("-inf"))
            higher = tl.maximum(highest, tl.max(scores, 1))
            shift = tl.where(higher == float("-inf"), 0.0, higher)  # nothing is visible yet: no -inf - -inf
            weights = tl.exp2(scores - shift[:, None])
            keep = tl.exp2(highest - shift)
            total = total * keep + tl.sum(weights, 1)
            out = out * keep[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
            highest = higher
        found = total > 0
        out = out / tl.where(found, total, 1.0)[:, None]
        lse = tl.where(found, (highest + tl.log2(tl.where(found, total, 1.0))) * LN_2, float("-inf"))
        place = ((first_part + split).to(tl.int64) * rows + row) * heads + head
        tl.store(lse_ptr + place, lse, mask=real)
        tl.store(part_ptr + place[:, None] * E + e[None, :], out, mask=some)


@triton.jit
def merge_parts(part_ptr, lse_ptr, out_ptr, parts, lanes, E: tl.constexpr, E_PAD: tl.constexpr):
    """One (row, head): parts weighted by exp(logsumexp), in the order of the parts. lanes: rows * heads."""
    lane = tl.program_id(0).to(tl.int64)
    e = tl.arange(0, E_PAD)
    highest = tl.load(lse_ptr + lane)
    place = lane
    for _ in range(1, parts):
        place += lanes
        highest = tl.maximum(highest, tl.load(lse_ptr + place))
    shift = tl.where(highest == float("-inf"), 0.0, highest)
    total = shift * 0.0
    out = tl.zeros((E_PAD,), tl.float32)
    place = lane
    for _ in range(0, parts):
        weight = tl.exp2((tl.load(lse_ptr + place) - shift) * LOG2_E)
        part = tl.load(part_ptr + place * E + e, mask=e < E, other=0.0)
        total += weight
        out += tl.where(weight > 0.0, weight * part, 0.0)  # a part that was not written may hold anything
        place += lanes
    out = out / tl.where(total > 0, total, 1.0)
    tl.store(out_ptr + lane * E + e, out.to(out_ptr.dtype.element_ty), mask=e < E)
