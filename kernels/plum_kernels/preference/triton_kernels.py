"""Device code of ``preference_loss``: one program a pair (or a sequence with its verdict) does all of it in one launch.

It adds up its tokens, evaluates the objective and its derivatives by the two sums, and writes each token's gradient.
Sums and formulas run in the dtype of the log-probs, fp32 or fp64. Every output element has one writer.
"""

from __future__ import annotations

import triton
import triton.language as tl

CERTAIN = tl.constexpr(-1e-6)


@triton.jit
def _sigmoid(x):
    e = tl.exp(-tl.abs(x))  # never overflows, and sigmoid(-x) keeps its small values
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def _log_sigmoid(x):
    e = tl.exp(-tl.abs(x))
    u = 1.0 + e  # log1p without a library: the rounding of u is divided out (Kahan)
    log1p = tl.where(u == 1.0, e, tl.log(u) * e / tl.where(u == 1.0, 1.0, u - 1.0))
    return tl.minimum(x, 0.0) - log1p


@triton.jit
def _one_minus_exp(x):
    """1 - exp(x), x < 0: fifteen terms of the series near 0, where the difference would cancel."""
    near = tl.maximum(x, -0.5)
    series = near / 15.0 + 1.0
    for i in tl.static_range(1, 14):
        series = series * near / (15.0 - i) + 1.0
    return tl.where(x > -0.5, -near * series, 1.0 - tl.exp(x))


@triton.jit
def _sum(
    logp_ptr, ref_ptr, scored_ptr, weight_ptr, start, stop,
    HAS_REF: tl.constexpr, HAS_MASK: tl.constexpr, HAS_WEIGHTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """(log-probs, log-ratios) weighted and summed over [start, stop), and how many tokens are scored there."""
    dtype: tl.constexpr = logp_ptr.dtype.element_ty
    policy = tl.zeros((BLOCK,), dtype)
    reference = tl.zeros((BLOCK,), dtype)
    length = tl.zeros((BLOCK,), dtype)
    for first in range(start, stop, BLOCK):
        at = first + tl.arange(0, BLOCK)
        keep = at < stop
        if HAS_MASK:
            keep = keep & (tl.load(scored_ptr + at, mask=keep, other=0) != 0)
        own = tl.load(logp_ptr + at, mask=keep, other=0.0)
        if HAS_WEIGHTS:
            weight = tl.load(weight_ptr + at, mask=keep, other=0.0)
            own = own * weight
        policy += own
        if HAS_REF:
            theirs = tl.load(ref_ptr + at, mask=keep, other=0.0).to(dtype)
            if HAS_WEIGHTS:
                theirs = theirs * weight
            reference += theirs
        length += keep.to(dtype)
    total = tl.sum(policy, 0)
    return total, total - tl.sum(reference, 0), tl.maximum(tl.sum(length, 0), 1.0)


@triton.jit
def _spread(
    grad_ptr, scored_ptr, weight_ptr, value, start, stop,
    HAS_MASK: tl.constexpr, HAS_WEIGHTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``value`` times its weight to every scored token of [start, stop), 0 to the others."""
    for first in range(start, stop, BLOCK):
        at = first + tl.arange(0, BLOCK)
        inside = at < stop
        out = tl.zeros((BLOCK,), grad_ptr.dtype.element_ty) + value
        if HAS_WEIGHTS:
            out = out * tl.load(weight_ptr + at, mask=inside, other=0.0)
        if HAS_MASK:
            out = tl.where(tl.load(scored_ptr + at, mask=inside, other=0) != 0, out, 0.0)
        tl.store(grad_ptr + at, out, mask=inside)


@triton.jit
def _of_margin(m, E: tl.constexpr, LOG_E: tl.constexpr, LOG_KEPT: tl.constexpr, CODE: tl.constexpr):
    """(loss, its derivative) of a margin, for the objectives that are a function of one; E the labels' smoothing."""
    KEPT: tl.constexpr = 1.0 - E
    won = _sigmoid(m)
    lost = _sigmoid(-m)
    if CODE == 2:
        SCALE: tl.constexpr = 1.0 / (1.0 - 2.0 * E)
        loss = (-KEPT * _log_sigmoid(m) + E * _log_sigmoid(-m)) * SCALE
        slope = (-KEPT * lost - E * won) * SCALE
    elif CODE == 5:
        loss = tl.maximum(1.0 - m, 0.0)
        slope = tl.where(m < 1.0, tl.full((), -1.0, m.dtype), tl.full((), 0.0, m.dtype))
    elif CODE == 6:
        loss = won * (_log_sigmoid(m) - LOG_KEPT) + lost * (_log_sigmoid(-m) - LOG_E)
        slope = won * lost * (m - LOG_KEPT + LOG_E)
    else:
        loss = -KEPT * _log_sigmoid(m) - E * _log_sigmoid(-m)
        slope = -KEPT * lost + E * won
    return loss, slope


@triton.jit
def _of_pair(
    c, r, n, k, BETA: tl.constexpr, E: tl.constexpr, LOG_E: tl.constexpr, LOG_KEPT: tl.constexpr,
    EXTRA: tl.constexpr, CODE: tl.constexpr,
):  # fmt: skip
    """(loss, d loss / d c, d loss / d r); ``EXTRA`` is penalty, sums or gamma."""
    HALF: tl.constexpr = 0.5 / BETA
    if CODE == 4:
        by_n = 1.0 if EXTRA > 0 else 1.0 / n
        by_k = 1.0 if EXTRA > 0 else 1.0 / k
        d = c * by_n - r * by_k - HALF
        return d * d, 2.0 * d * by_n, -2.0 * d * by_k
    elif CODE == 7:
        loss = -_log_sigmoid(BETA * c) - 0.5 * _log_sigmoid(-BETA * c) - 0.5 * _log_sigmoid(-BETA * r)
        return loss, BETA * (0.5 * _sigmoid(BETA * c) - _sigmoid(-BETA * c)), 0.5 * BETA * _sigmoid(BETA * r)
    elif CODE == 8:
        loss = -_log_sigmoid(BETA * c) - _log_sigmoid(-BETA * r)
        return loss, -BETA * _sigmoid(-BETA * c), BETA * _sigmoid(BETA * r)
    elif CODE == 9:
        return (c - HALF) * (c - HALF) + (r + HALF) * (r + HALF), 2.0 * (c - HALF), 2.0 * (r + HALF)
    elif CODE == 10:
        bad = _sigmoid(-BETA * c)
        good = _sigmoid(BETA * r)
        return bad + good, -BETA * bad * _sigmoid(BETA * c), BETA * good * _sigmoid(-BETA * r)
    elif CODE == 11:
        m = BETA * (c - r)
        slope = BETA * _sigmoid(m) * _sigmoid(-m)
        loss = _sigmoid(BETA * c) + _sigmoid(-m)
        return loss, BETA * _sigmoid(BETA * c) * _sigmoid(-BETA * c) - slope, slope
    elif CODE == 13:
        x = tl.minimum(c / n, CERTAIN)
        y = tl.minimum(r / k, CERTAIN)
        p = _one_minus_exp(x)
        q = _one_minus_exp(y)
        loss, slope = _of_margin(x - tl.log(p) - (y - tl.log(q)), E, LOG_E, LOG_KEPT, CODE)
        by_c = tl.where(c / n <= CERTAIN, slope / (p * n), 0.0)
        by_r = tl.where(r / k <= CERTAIN, -slope / (q * k), 0.0)
        return BETA * loss, BETA * by_c, BETA * by_r
    elif CODE == 3:
        loss, slope = _of_margin(BETA * (c - r - EXTRA * tl.maximum(-c, 0.0)), E, LOG_E, LOG_KEPT, CODE)
        return loss, BETA * slope * tl.where(c < 0, tl.full((), 1.0 + EXTRA, c.dtype), 1.0), -BETA * slope
    elif CODE == 1 or CODE == 12:
        m = BETA * (c / n - r / k) - EXTRA
        loss, slope = _of_margin(m, E, LOG_E, LOG_KEPT, CODE)
        return loss, BETA * slope / n, -BETA * slope / k
    else:
        loss, slope = _of_margin(BETA * (c - r), E, LOG_E, LOG_KEPT, CODE)
        return loss, BETA * slope, -BETA * slope


@triton.jit
def pair_loss(
    logp_ptr, ref_ptr, scored_ptr, weight_ptr, cu_ptr,  # (T,), (T,), (T,) uint8, (T,), (2 B + 1,)
    alignment_ptr,  # (2 B,)
    loss_ptr, grad_ptr, shown_ptr,  # (B,), (T,), (2, 2 B) rewards and log-probs
    pairs,
    BETA: tl.constexpr, E: tl.constexpr, LOG_E: tl.constexpr, LOG_KEPT: tl.constexpr, EXTRA: tl.constexpr,
    CODE: tl.constexpr, HAS_REF: tl.constexpr, HAS_MASK: tl.constexpr, HAS_WEIGHTS: tl.constexpr,
    HAS_ALIGNMENT: tl.constexpr, MEANS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    pair = tl.program_id(0).to(tl.int64)
    a = tl.load(cu_ptr + 2 * pair).to(tl.int64)
    b = tl.load(cu_ptr + 2 * pair + 1).to(tl.int64)
    z = tl.load(cu_ptr + 2 * pair + 2).to(tl.int64)
    policy_c, c, n = _sum(logp_ptr, ref_ptr, scored_ptr, weight_ptr, a, b, HAS_REF, HAS_MASK, HAS_WEIGHTS, BLOCK)
    policy_r, r, k = _sum(logp_ptr, ref_ptr, scored_ptr, weight_ptr, b, z, HAS_REF, HAS_MASK, HAS_WEIGHTS, BLOCK)
    loss, by_c, by_r = _of_pair(c, r, n, k, BETA, E, LOG_E, LOG_KEPT, EXTRA, CODE)
    if HAS_ALIGNMENT:
        aligned = tl.exp(tl.load(alignment_ptr + 2 * pair)) * tl.exp(tl.load(alignment_ptr + 2 * pair + 1))
        loss = loss * aligned
        by_c = by_c * aligned
        by_r = by_r * aligned
    tl.store(loss_ptr + pair, loss)
    _spread(grad_ptr, scored_ptr, weight_ptr, by_c, a, b, HAS_MASK, HAS_WEIGHTS, BLOCK)
    _spread(grad_ptr, scored_ptr, weight_ptr, by_r, b, z, HAS_MASK, HAS_WEIGHTS, BLOCK)
    per_c = n if MEANS else 1.0
    per_r = k if MEANS else 1.0
    tl.store(shown_ptr + 2 * pair, BETA * (c / per_c))
    tl.store(shown_ptr + 2 * pair + 1, BETA * (r / per_r))
    tl.store(shown_ptr + 2 * pairs + 2 * pair, policy_c / per_c)
    tl.store(shown_ptr + 2 * pairs + 2 * pair + 1, policy_r / per_r)


@triton.jit
def sequence_loss(
    logp_ptr, ref_ptr, scored_ptr, weight_ptr, cu_ptr,  # (T,), (T,), (T,) uint8, (T,), (S + 1,)
    desirable_ptr, point_ptr,  # (S,) uint8, () in the log-probs' dtype
    loss_ptr, grad_ptr, shown_ptr,  # (S,), (T,), (2, S)
    sequences,
    BETA: tl.constexpr, GOOD: tl.constexpr, BAD: tl.constexpr, CODE: tl.constexpr,
    HAS_MASK: tl.constexpr, HAS_WEIGHTS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Single verdicts, by the distance to the point."""
    i = tl.program_id(0).to(tl.int64)
    a = tl.load(cu_ptr + i).to(tl.int64)
    b = tl.load(cu_ptr + i + 1).to(tl.int64)
    policy, ratio, _ = _sum(logp_ptr, ref_ptr, scored_ptr, weight_ptr, a, b, True, HAS_MASK, HAS_WEIGHTS, BLOCK)
    good = tl.load(desirable_ptr + i) != 0
    x = BETA * (tl.load(point_ptr) - ratio)
    x = tl.where(good, x, -x)
    if CODE == 17:
        loss = -_log_sigmoid(-x)
        slope = BETA * _sigmoid(x)
    else:
        weight = tl.where(good, tl.full((), GOOD, x.dtype), tl.full((), BAD, x.dtype))
        loss = weight * _sigmoid(x)
        slope = BETA * weight * _sigmoid(x) * _sigmoid(-x)
    tl.store(loss_ptr + i, loss)
    _spread(grad_ptr, scored_ptr, weight_ptr, tl.where(good, -slope, slope), a, b, HAS_MASK, HAS_WEIGHTS, BLOCK)
    tl.store(shown_ptr + i, BETA * ratio)
    tl.store(shown_ptr + sequences + i, policy)
