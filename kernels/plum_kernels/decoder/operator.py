"""Launches of the decoder's small kernels, as operators of ``torch.library`` with their gradients.

Letters in shapes: N rows, I inner width, D width, T tokens, P positions, H heads, E head width, R rotated channels.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
from torch import Tensor

from plum_kernels.decoder import triton_kernels as kernels

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BLOCK = 32 if INTERPRETED else 1024  # elements of a program of swiglu
PROGRAMS = 3 if INTERPRETED else 256  # that share the rows where a weight's gradient is summed


def kept(x: Tensor) -> torch.dtype:
    """What a kernel writes; the interpreter narrows to bf16 by truncation, so there torch narrows."""
    return torch.float32 if INTERPRETED else x.dtype


def _like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=kept(x), device=x.device)


def width_of(d: int) -> dict[str, int]:
    block = triton.next_power_of_2(d)
    return {"BLOCK": block, "num_warps": 1 if block <= 256 else 4 if block <= 4096 else 8}


@torch.library.custom_op("plum_kernels::swiglu", mutates_args=())
def swiglu_op(gate: Tensor, up: Tensor) -> Tensor:
    gate, up = gate.contiguous(), up.contiguous()
    out = _like(gate)
    if out.numel():
        kernels.swiglu_forward[(triton.cdiv(out.numel(), BLOCK),)](gate, up, out, out.numel(), BLOCK=BLOCK)
    return out.to(gate.dtype)


@torch.library.custom_op("plum_kernels::swiglu_gradient", mutates_args=())
def swiglu_gradient(gate: Tensor, up: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    gate, up, grad = gate.contiguous(), up.contiguous(), grad.contiguous()
    dgate, dup = _like(gate), _like(up)
    if dup.numel():
        grid = (triton.cdiv(dup.numel(), BLOCK),)
        kernels.swiglu_backward[grid](gate, up, grad, dgate, dup, dup.numel(), BLOCK=BLOCK)
    return dgate.to(gate.dtype), dup.to(up.dtype)


@torch.library.custom_op("plum_kernels::add_rms_norm", mutates_args=())
def add_norm_op(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(N, D) normed, (N, D) sum, (N,) fp32 inverse root mean square."""
    x, residual, weight = x.contiguous(), residual.contiguous(), weight.contiguous()
    out, total = _like(x), _like(x)
    inverse = torch.empty(len(x), dtype=torch.float32, device=x.device)
    if out.numel():
        kernels.add_norm_forward[(len(x),)](
            x, residual, weight, out, total, inverse, x.shape[1], eps, **width_of(x.shape[1])
        )
    return out.to(x.dtype), total.to(x.dtype), inverse


@torch.library.custom_op("plum_kernels::add_rms_norm_gradient", mutates_args=())
def add_norm_gradient(
    dout: Tensor, dtotal: Tensor, total: Tensor, inverse: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """(N, D) gradient of x and residual alike, (D,) of the weight."""
    rows, width = total.shape
    programs = max(1, min(PROGRAMS, rows))
    dx, dw = _like(total), torch.empty(programs, width, dtype=torch.float32, device=total.device)
    if not dx.numel():
        return dx.to(total.dtype), torch.zeros_like(weight)
    kernels.add_norm_backward[(programs,)](
        dout.contiguous(), dtotal.contiguous(), total.contiguous(), inverse, weight.contiguous(),
        dx, dw, rows, width, programs, **width_of(width),
    )  # fmt: skip
    return dx.to(total.dtype), dw.sum(0).to(weight.dtype)


@torch.library.custom_op("plum_kernels::norm_rotate", mutates_args=())
def norm_rotate_op(x: Tensor, cos: Tensor, sin: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """(T, H, E) rotated, and (T * H,) fp32 inverse root mean square, (0,) without a weight."""
    x = x.contiguous()
    tokens, heads, width = x.shape
    out = _like(x)
    inverse = torch.empty(0 if weight is None else tokens * heads, dtype=torch.float32, device=x.device)
    if out.numel():
        kernels.norm_rotate_forward[(tokens * heads,)](
            x, cos.contiguous(), sin.contiguous(), x if weight is None else weight.contiguous(), out, inverse,
            width, cos.shape[1], heads, len(cos), eps, NORM=weight is not None, **width_of(width),
        )  # fmt: skip
    return out.to(x.dtype), inverse


@torch.library.custom_op("plum_kernels::norm_rotate_gradient", mutates_args=())
def norm_rotate_gradient(
    dout: Tensor, x: Tensor, cos: Tensor, sin: Tensor, weight: Tensor | None, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    """(T, H, E) gradient of x, (E,) of the weight, (0,) without one."""
    tokens, heads, width = x.shape
    programs = max(1, min(PROGRAMS if weight is not None else 1 << 30, tokens * heads))
    dx, dw = _like(x), torch.zeros(0 if weight is None else programs, width, dtype=torch.float32, device=x.device)
    if dx.numel():
        kernels.norm_rotate_backward[(programs,)](
            dout.contiguous(), x.contiguous(), cos.contiguous(), sin.contiguous(),
            x if weight is None else weight.contiguous(), inverse, dx, dw,
            tokens * heads, width, cos.shape[1], heads, len(cos), programs, NORM=weight is not None, **width_of(width),
        )  # fmt: skip
    return dx.to(x.dtype), x.new_zeros(0) if weight is None else dw.sum(0).to(weight.dtype)


@swiglu_op.register_fake
def _(gate: Tensor, up: Tensor) -> Tensor:
    return gate.new_empty(gate.shape)


@swiglu_gradient.register_fake
def _(gate: Tensor, up: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    return gate.new_empty(gate.shape), up.new_empty(up.shape)


@add_norm_op.register_fake
def _(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape), x.new_empty(x.shape[0], dtype=torch.float32)


@add_norm_gradient.register_fake
def _(dout: Tensor, dtotal: Tensor, total: Tensor, inverse: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return total.new_empty(total.shape), weight.new_empty(weight.shape)


@norm_rotate_op.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    rows = 0 if weight is None else x.shape[0] * x.shape[1]
    return x.new_empty(x.shape), x.new_empty(rows, dtype=torch.float32)


@norm_rotate_gradient.register_fake
def _(
    dout: Tensor, x: Tensor, cos: Tensor, sin: Tensor, weight: Tensor | None, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(0) if weight is None else weight.new_empty(weight.shape)


def _save_swiglu(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _swiglu_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    dgate, dup = swiglu_gradient(*ctx.saved_tensors, grad)
    return dgate, dup


def _save_add_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(output[1], output[2], inputs[2])


def _add_norm_backward(ctx: Any, dout: Tensor, dtotal: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    dx, dw = add_norm_gradient(dout, dtotal, *ctx.saved_tensors)
    return dx, dx, dw, None


def _save_norm_rotate(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:4], output[1])


def _norm_rotate_backward(ctx: Any, dout: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    x, cos, sin, weight, inverse = ctx.saved_tensors
    dx, dw = norm_rotate_gradient(dout, x, cos, sin, weight, inverse)
    return dx, None, None, None if weight is None else dw, None


swiglu_op.register_autograd(_swiglu_backward, setup_context=_save_swiglu)
add_norm_op.register_autograd(_add_norm_backward, setup_context=_save_add_norm)
norm_rotate_op.register_autograd(_norm_rotate_backward, setup_context=_save_norm_rotate)
