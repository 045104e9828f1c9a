"""Device code of ``split_qkv``: one launch each way. All arithmetic is fp32; every output element has one writer.

Letters: T tokens, P positions, H query heads, G key/value heads, D head width, R rotated channels.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _partner(d, R):
    """The channel that each is rotated with; itself behind the rotated ones."""
    return tl.where(d < R // 2, d + R // 2, tl.where(d < R, d - R // 2, d))


@triton.jit
def split_qkv_forward(
    x_ptr, cos_ptr, sin_ptr, q_weight_ptr, k_weight_ptr,  # (T, H + 2 G, D), (P, R), (P, R), (D,), (D,)
    q_ptr, k_ptr, v_ptr, inverse_ptr,  # (T, H, D), (T, G, D), (T, G, D), (T, H + G) fp32
    D, R, H, G, P, eps, NORM: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """One head of one token. Grid: (T, H + 2 G)."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    d = tl.arange(0, BLOCK)
    inside = d < D
    x_ptr += (token * (H + 2 * G) + head) * D
    x = tl.load(x_ptr + d, mask=inside, other=0.0)
    if head >= H + G:
        tl.store(v_ptr + (token * G + head - H - G) * D + d, x.to(v_ptr.dtype.element_ty), mask=inside)
    else:
        other = _partner(d, R)
        own = x.to(tl.float32)
        partner = tl.load(x_ptr + other, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            inverse = tl.rsqrt(tl.sum(own * own, 0) / D + eps)
            tl.store(inverse_ptr + token * (H + G) + head, inverse)
            w_ptr = q_weight_ptr if head < H else k_weight_ptr
            own *= inverse * tl.load(w_ptr + d, mask=inside, other=0.0).to(tl.float32)
            partner *= inverse * tl.load(w_ptr + other, mask=inside, other=0.0).to(tl.float32)
        table = token % P * R
        c = tl.load(cos_ptr + table + d, mask=d < R, other=1.0)
        s = tl.load(sin_ptr + table + d, mask=d < R, other=0.0)
        out = own * c + partner * s
        if head < H:
            tl.store(q_ptr + (token * H + head) * D + d, out.to(q_ptr.dtype.element_ty), mask=inside)
        else:
            tl.store(k_ptr + (token * G + head - H) * D + d, out.to(k_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _turned_back(
    dout_ptr, x_ptr, c, s, w, inverse, dx_ptr, d, other, D, NORM: tl.constexpr,
):  # fmt: skip
    """One head: the rotation's transpose, then the norm's gradient into dx; what it adds to the weight's gradient."""
    inside = d < D
    dn = tl.load(dout_ptr + d, mask=inside, other=0.0).to(tl.float32) * c
    dn += tl.load(dout_ptr + other, mask=inside, other=0.0).to(tl.float32) * s
    dw = dn
    if NORM:
        n = tl.load(x_ptr + d, mask=inside, other=0.0).to(tl.float32) * inverse
        dw = dn * n
        g = dn * w
        dn = (g - n * (tl.sum(g * n, 0) / D)) * inverse
    tl.store(dx_ptr + d, dn.to(dx_ptr.dtype.element_ty), mask=inside)
    return dw


@triton.jit
def split_qkv_backward(
    dq_ptr, dk_ptr, dv_ptr, x_ptr, cos_ptr, sin_ptr, q_weight_ptr, k_weight_ptr, inverse_ptr,
    dx_ptr, dw_ptr,  # (T, H + 2 G, D), (programs, H + G, D) fp32: what each head adds to its norm's gradient
    T, D, R, H, G, P, programs, NORM: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """One head of every ``programs``-th token, in order. Grid: (programs, H + 2 G)."""
    head = tl.program_id(1)
    d = tl.arange(0, BLOCK)
    inside = d < D
    other = _partner(d, R)
    w = tl.zeros((BLOCK,), tl.float32)
    dw = tl.zeros((BLOCK,), tl.float32)
    if NORM:
        if head < H:
            w = tl.load(q_weight_ptr + d, mask=inside, other=0.0).to(tl.float32)
        else:
            w = tl.load(k_weight_ptr + d, mask=inside, other=0.0).to(tl.float32)
    for step in range(tl.program_id(0), T, programs):
        token = tl.cast(step, tl.int64)
        at = (token * (H + 2 * G) + head) * D
        if head >= H + G:
            dv = tl.load(dv_ptr + (token * G + head - H - G) * D + d, mask=inside, other=0.0)
            tl.store(dx_ptr + at + d, dv.to(dx_ptr.dtype.element_ty), mask=inside)
        else:
            table = token % P * R
            c = tl.load(cos_ptr + table + d, mask=d < R, other=1.0)
            s = tl.load(sin_ptr + table + other, mask=d < R, other=0.0)
            inverse = 1.0
            if NORM:
                inverse = tl.load(inverse_ptr + token * (H + G) + head)
            up_ptr = dq_ptr + (token * H + head) * D if head < H else dk_ptr + (token * G + head - H) * D
            dw += _turned_back(up_ptr, x_ptr + at, c, s, w, inverse, dx_ptr + at, d, other, D, NORM)
    if NORM:
        mine = d < tl.where(head < H + G, D, 0)  # v has no norm
        tl.store(dw_ptr + (tl.program_id(0) * (H + G) + head) * D + d, dw, mask=mine)
