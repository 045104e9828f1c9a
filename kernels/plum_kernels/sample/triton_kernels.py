"""Device code of ``sample_tokens``: a program a row, so that a row's result is a function of that row.

Every filter keeps the logits from some value up. That value is found from its highest bits down: floats of one order
as integers, eight candidates a visit of the row, three bits each. Weights are fp32, their sums fp64, so neither the
width of a visit nor the device moves the drawn token by more than a rounding of one weight.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
WAYS = tl.constexpr(8)  # candidates a visit
LOWEST = tl.constexpr(-2147483648)
MINUS_INF = tl.constexpr(-2139095041)  # as a key: what lies below is NaN


@triton.jit
def penalise_row(
    z_ptr, out_ptr, prompt_ptr, drawn_ptr,  # (R, stride), (R, V) fp32 with the logits in it, (R, P), (R, T)
    stride, V, P, T, repetition, presence, frequency, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """What was seen by a row, BLOCK ids at a time. An id that comes twice is written twice with the same bits.

    Its new logit is a function of its own logit and of its counts, which are taken over all ids: no order enters.
    """
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    for first in range(0, P + T, BLOCK):
        at = first + lane
        id = tl.load(prompt_ptr + row * P + at, mask=at < P, other=-1)
        id = tl.maximum(id, tl.load(drawn_ptr + row * T + at - P, mask=(at >= P) & (at < P + T), other=-1))
        count = tl.zeros((BLOCK,), tl.float32)
        for other in range(0, T, BLOCK):
            there = tl.load(drawn_ptr + row * T + other + lane, mask=other + lane < T, other=-2)
            count += tl.sum((id[:, None] == there[None, :]).to(tl.float32), 1)
        real = (id >= 0) & (id < V)
        z = tl.load(z_ptr + row * stride + id, mask=real, other=0.0).to(tl.float32)
        z = tl.where(z < 0, z * repetition, z / repetition)
        z = z - frequency * count - tl.where(count > 0, presence, 0.0)
        tl.store(out_ptr + row * V + id, z, mask=real)


@triton.jit
def _key(z):
    """int32 of the order of the floats."""
    bits = z.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _float(key):
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _load(z_ptr, first, V, BLOCK: tl.constexpr):
    at = first + tl.arange(0, BLOCK)
    return tl.load(z_ptr + at, mask=at < V, other=float("-inf")).to(tl.float32)


@triton.jit
def _weights(z, least, highest, scale):
    """2**((z - highest) scale) of the logits from ``least`` up, 0 of the rest."""
    return tl.where((z >= least) & (z > float("-inf")), tl.exp2((z - highest) * scale), 0.0)


@triton.jit
def _search(z_ptr, V, wanted, least, highest, scale, MASS: tl.constexpr, BLOCK: tl.constexpr):
    """The greatest logit such that those from it up are ``wanted`` in number, or in mass of what ``least`` keeps."""
    low = tl.full((), LOWEST, tl.int32)
    for step in range(0, 11):
        shift = tl.maximum(29 - 3 * step, 0)
        candidates = low + (tl.arange(0, WAYS) << shift)
        found = tl.zeros((WAYS,), tl.float64)
        for first in range(0, V, BLOCK):
            z = _load(z_ptr, first, V, BLOCK)
            size = _weights(z, least, highest, scale) if MASS else (z > float("-inf")).to(tl.float32)
            above = _key(z)[:, None] >= candidates[None, :]
            found += tl.sum(tl.where(above, size[:, None], 0.0).to(tl.float64), 0)
        enough = (found >= wanted) & (candidates >= low)  # past the last float the sum of the two wraps around
        low += (tl.maximum(tl.sum(enough.to(tl.int32), 0) - 1, 0)) << shift
    return _float(tl.maximum(low, MINUS_INF))


@triton.jit
def _uniform(seed, position):
    """[0, 1) by SplitMix64's finaliser, 53 bits."""
    x = seed.to(tl.uint64) + (position + 1).to(tl.uint64) * 0x9E3779B97F4A7C15
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return ((x ^ (x >> 31)) >> 11).to(tl.int64).to(tl.float64) * 1.1102230246251565e-16


@triton.jit
def draw_row(
    z_ptr, raw_ptr, seed_ptr, place_ptr,  # (R, stride) after penalties, (R, raw_stride) before, (R,) int64 each
    token_ptr, logp_ptr, sampled_ptr,  # (R,) int64, fp32, fp32
    stride, raw_stride, V, top_k, temperature, scale, top_p, floor,  # scale: log2(e) / T; floor: T log(min_p)
    GREEDY: tl.constexpr, TOP_K: tl.constexpr, TOP_P: tl.constexpr, MIN_P: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    z_ptr += row * stride
    raw_ptr += row * raw_stride
    lane = tl.arange(0, BLOCK)
    peak = tl.full((BLOCK,), float("-inf"), tl.float32)
    raw_peak = tl.full((BLOCK,), float("-inf"), tl.float32)
    for first in range(0, V, BLOCK):
        peak = tl.maximum(peak, _load(z_ptr, first, V, BLOCK))
        raw_peak = tl.maximum(raw_peak, _load(raw_ptr, first, V, BLOCK))
    highest = tl.max(peak, 0)
    raw_highest = tl.max(raw_peak, 0)
    least = tl.full((), float("-inf"), tl.float32)
    if TOP_K:
        least = _search(z_ptr, V, top_k, least, highest, scale, False, BLOCK)
    if TOP_P:
        mass = tl.zeros((BLOCK,), tl.float64)
        for first in range(0, V, BLOCK):
            mass += _weights(_load(z_ptr, first, V, BLOCK), least, highest, scale).to(tl.float64)
        enough = tl.sum(mass, 0) * top_p
        least = tl.maximum(least, _search(z_ptr, V, enough, least, highest, scale, True, BLOCK))
    if MIN_P:
        least = tl.maximum(least, highest + floor)
    # two sums in one visit: of what is drawn from, tile by tile as the draw below adds them, and of the row as given
    total = tl.full((), 0.0, tl.float64)
    raw_total = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, V, BLOCK):
        z = _load(z_ptr, first, V, BLOCK)
        total += tl.sum(_weights(z, least, highest, scale).to(tl.float64), 0)
        raw_total += tl.exp2((_load(raw_ptr, first, V, BLOCK) - raw_highest) * LOG2_E).to(tl.float64)
    if GREEDY:
        best = tl.full((BLOCK,), 2147483647, tl.int32)
        for first in range(0, V, BLOCK):
            best = tl.minimum(best, tl.where(_load(z_ptr, first, V, BLOCK) == highest, first + lane, 2147483647))
        token = tl.min(best, 0)
        tl.store(sampled_ptr + row, 0.0)
    else:
        u = _uniform(tl.load(seed_ptr + row), tl.load(place_ptr + row))
        target = tl.minimum(u * total, total * (1.0 - 2.220446049250313e-16))  # u total may round up to total
        before = tl.full((), 0.0, tl.float64)
        base = before
        tile = tl.full((), 0, tl.int32)
        for first in range(0, V, BLOCK):
            after = before + tl.sum(_weights(_load(z_ptr, first, V, BLOCK), least, highest, scale).to(tl.float64), 0)
            crosses = (before <= target) & (after > target)
            tile = tl.where(crosses, first, tile)
            base = tl.where(crosses, before, base)
            before = after
        weights = _weights(_load(z_ptr, tile, V, BLOCK), least, highest, scale)
        ends = base + tl.cumsum(weights.to(tl.float64), 0)
        past = tl.min(tl.where((ends > target) & (weights > 0), lane, BLOCK), 0)
        last = tl.max(tl.where(weights > 0, lane, 0), 0)  # where the tile's parts round to less than their sum
        token = tile + tl.minimum(past, last)
        chosen = tl.load(z_ptr + token).to(tl.float32)
        tl.store(sampled_ptr + row, (chosen - highest) / temperature - tl.log(total).to(tl.float32))
    raw = tl.load(raw_ptr + token).to(tl.float32)
    tl.store(logp_ptr + row, (raw - raw_highest) - tl.log(tl.sum(raw_total, 0)).to(tl.float32))
    tl.store(token_ptr + row, token.to(tl.int64))
