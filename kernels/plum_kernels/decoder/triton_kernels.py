"""Device code of the decoder's small functions. All arithmetic is fp32; every output element has one writer.

Letters: N rows, D width, H heads, R rotated channels, P positions. A weight's gradient is summed by each program over
the rows it walks, in order, into its own line of (programs, D).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def swiglu_forward(gate_ptr, up_ptr, out_ptr, count, BLOCK: tl.constexpr) -> None:
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    g = tl.load(gate_ptr + at, mask=at < count, other=0.0).to(tl.float32)
    u = tl.load(up_ptr + at, mask=at < count, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, (g * tl.sigmoid(g) * u).to(out_ptr.dtype.element_ty), mask=at < count)


@triton.jit
def swiglu_backward(gate_ptr, up_ptr, dout_ptr, dgate_ptr, dup_ptr, count, BLOCK: tl.constexpr) -> None:
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    g = tl.load(gate_ptr + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up_ptr + at, mask=inside, other=0.0).to(tl.float32)
    d = tl.load(dout_ptr + at, mask=inside, other=0.0).to(tl.float32)
    s = tl.sigmoid(g)
    tl.store(dgate_ptr + at, (d * u * s * (1.0 + g * (1.0 - s))).to(dgate_ptr.dtype.element_ty), mask=inside)
    tl.store(dup_ptr + at, (d * g * s).to(dup_ptr.dtype.element_ty), mask=inside)


@triton.jit
def add_norm_forward(
    x_ptr, residual_ptr, weight_ptr, out_ptr, total_ptr, inverse_ptr,  # (N, D) but weight (D,), inverse (N,) fp32
    D, eps, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    at = row * D + d
    x = tl.load(x_ptr + at, mask=d < D, other=0.0).to(tl.float32)
    x += tl.load(residual_ptr + at, mask=d < D, other=0.0).to(tl.float32)
    tl.store(total_ptr + at, x.to(total_ptr.dtype.element_ty), mask=d < D)
    x = x.to(total_ptr.dtype.element_ty).to(tl.float32)  # the norm is of the sum as it is kept
    inverse = tl.rsqrt(tl.sum(x * x, 0) / D + eps)
    w = tl.load(weight_ptr + d, mask=d < D, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, (x * inverse * w).to(out_ptr.dtype.element_ty), mask=d < D)
    tl.store(inverse_ptr + row, inverse)


@triton.jit
def add_norm_backward(
    dout_ptr, dtotal_ptr, total_ptr, inverse_ptr, weight_ptr,
    dx_ptr, dw_ptr,  # (N, D), of x and residual alike; (programs, D) fp32
    N, D, programs, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    d = tl.arange(0, BLOCK)
    w = tl.load(weight_ptr + d, mask=d < D, other=0.0).to(tl.float32)
    dw = tl.zeros((BLOCK,), tl.float32)
    for row in range(tl.program_id(0), N, programs):
        at = tl.cast(row, tl.int64) * D + d
        inverse = tl.load(inverse_ptr + row)
        n = tl.load(total_ptr + at, mask=d < D, other=0.0).to(tl.float32) * inverse
        dn = tl.load(dout_ptr + at, mask=d < D, other=0.0).to(tl.float32)
        dw += dn * n
        g = dn * w
        dx = (g - n * (tl.sum(g * n, 0) / D)) * inverse
        dx += tl.load(dtotal_ptr + at, mask=d < D, other=0.0).to(tl.float32)
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=d < D)
    tl.store(dw_ptr + tl.program_id(0) * D + d, dw, mask=d < D)


@triton.jit
def norm_rotate_forward(
    x_ptr, cos_ptr, sin_ptr, weight_ptr, out_ptr, inverse_ptr,  # (N, D), (P, R), (P, R), (D,), (N, D), (N,)
    D, R, H, P, eps, NORM: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)  # a head of a token
    table = row // H % P * R
    d = tl.arange(0, BLOCK)
    other = tl.where(d < R // 2, d + R // 2, tl.where(d < R, d - R // 2, d))
    x = tl.load(x_ptr + row * D + d, mask=d < D, other=0.0).to(tl.float32)
    partner = tl.load(x_ptr + row * D + other, mask=d < D, other=0.0).to(tl.float32)
    if NORM:
        inverse = tl.rsqrt(tl.sum(x * x, 0) / D + eps)
        x *= inverse * tl.load(weight_ptr + d, mask=d < D, other=0.0).to(tl.float32)
        partner *= inverse * tl.load(weight_ptr + other, mask=d < D, other=0.0).to(tl.float32)
        tl.store(inverse_ptr + row, inverse)
    c = tl.load(cos_ptr + table + d, mask=d < R, other=1.0)
    s = tl.load(sin_ptr + table + d, mask=d < R, other=0.0)
    tl.store(out_ptr + row * D + d, (x * c + partner * s).to(out_ptr.dtype.element_ty), mask=d < D)


@triton.jit
def norm_rotate_backward(
    dout_ptr, x_ptr, cos_ptr, sin_ptr, weight_ptr, inverse_ptr,
    dx_ptr, dw_ptr,  # (N, D), (programs, D) fp32
    N, D, R, H, P, programs, NORM: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """The rotation's transpose, then the norm's gradient."""
    d = tl.arange(0, BLOCK)
    other = tl.where(d < R // 2, d + R // 2, tl.where(d < R, d - R // 2, d))
    dw = tl.zeros((BLOCK,), tl.float32)
    for row in range(tl.program_id(0), N, programs):
        at = tl.cast(row, tl.int64) * D
        table = row // H % P * R
        own = tl.load(dout_ptr + at + d, mask=d < D, other=0.0).to(tl.float32)
        partner = tl.load(dout_ptr + at + other, mask=d < D, other=0.0).to(tl.float32)
        c = tl.load(cos_ptr + table + d, mask=d < R, other=1.0)
        s = tl.load(sin_ptr + table + other, mask=d < R, other=0.0)
        dn = own * c + partner * s
        if NORM:
            inverse = tl.load(inverse_ptr + row)
            n = tl.load(x_ptr + at + d, mask=d < D, other=0.0).to(tl.float32) * inverse
            dw += dn * n
            g = dn * tl.load(weight_ptr + d, mask=d < D, other=0.0).to(tl.float32)
            dn = (g - n * (tl.sum(g * n, 0) / D)) * inverse
        tl.store(dx_ptr + at + d, dn.to(dx_ptr.dtype.element_ty), mask=d < D)
    if NORM:
        tl.store(dw_ptr + tl.program_id(0) * D + d, dw, mask=d < D)
