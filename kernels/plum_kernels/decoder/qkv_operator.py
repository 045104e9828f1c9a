"""Launches of ``split_qkv`` as operators of ``torch.library``.

Letters in shapes: T tokens, P positions, H query heads, G key/value heads, E head width, R rotated channels.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from plum_kernels.decoder import qkv_kernels as kernels
from plum_kernels.decoder.operator import PROGRAMS, kept, width_of


@torch.library.custom_op("plum_kernels::split_qkv", mutates_args=())
def split_qkv_op(
    x: Tensor, cos: Tensor, sin: Tensor, q_weight: Tensor | None, k_weight: Tensor | None, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x (T, H + 2 G, E) to q (T, H, E), k, v (T, G, E), and inverse roots (T * (H + G),) fp32, (0,) without norms."""
    x = x.contiguous()
    tokens, total, width = x.shape
    heads = total - 2 * groups
    q, k, v = (torch.empty((tokens, n, width), dtype=kept(x), device=x.device) for n in (heads, groups, groups))
    norm = q_weight is not None and k_weight is not None
    inverse = torch.empty(tokens * (heads + groups) if norm else 0, dtype=torch.float32, device=x.device)
    if x.numel():
        kernels.split_qkv_forward[(tokens, total)](
            x, cos.contiguous(), sin.contiguous(), *_weights(x, q_weight, k_weight), q, k, v, inverse,
            width, cos.shape[1], heads, groups, len(cos), eps, NORM=norm, **width_of(width),
        )  # fmt: skip
    return q.to(x.dtype), k.to(x.dtype), v.to(x.dtype), inverse


def _weights(x: Tensor, q_weight: Tensor | None, k_weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both norms' weights, or something that nothing reads."""
    if q_weight is None or k_weight is None:
        return x, x
    return q_weight.contiguous(), k_weight.contiguous()


@torch.library.custom_op("plum_kernels::split_qkv_gradient", mutates_args=())
def split_qkv_gradient(
    dq: Tensor, dk: Tensor, dv: Tensor, x: Tensor, cos: Tensor, sin: Tensor, q_weight: Tensor | None,
    k_weight: Tensor | None, inverse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(T, H + 2 G, E) gradient of x, (E,) of each norm's weight, (0,) without norms."""
    tokens, total, width = x.shape
    heads, groups = dq.shape[1], dk.shape[1]
    norm = q_weight is not None and k_weight is not None
    programs = max(1, min(triton.cdiv(8 * PROGRAMS, total) if norm else tokens, tokens))
    dx = torch.empty(x.shape, dtype=kept(x), device=x.device)
    dw = torch.empty((programs if norm else 0, heads + groups, width), dtype=torch.float32, device=x.device)
    if dx.numel():
        kernels.split_qkv_backward[(programs, total)](
            dq.contiguous(), dk.contiguous(), dv.contiguous(), x.contiguous(), cos.contiguous(), sin.contiguous(),
            *_weights(x, q_weight, k_weight), inverse, dx, dw,
            tokens, width, cos.shape[1], heads, groups, len(cos), programs, NORM=norm, **width_of(width),
        )  # fmt: skip
    if q_weight is None or k_weight is None:
        return dx.to(x.dtype), x.new_zeros(0), x.new_zeros(0)
    if not dx.numel():
        return dx.to(x.dtype), torch.zeros_like(q_weight), torch.zeros_like(k_weight)
    of_q, of_k = (part.sum((0, 1)) for part in dw.split((heads, groups), 1))
    return dx.to(x.dtype), of_q.to(q_weight.dtype), of_k.to(k_weight.dtype)


@split_qkv_op.register_fake
def _(
    x: Tensor, cos: Tensor, sin: Tensor, q_weight: Tensor | None, k_weight: Tensor | None, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tokens, total, width = x.shape
    heads = total - 2 * groups
    norms = 0 if q_weight is None or k_weight is None else tokens * (heads + groups)
    q, k, v = (x.new_empty((tokens, n, width)) for n in (heads, groups, groups))
    return q, k, v, x.new_empty(norms, dtype=torch.float32)


@split_qkv_gradient.register_fake
def _(
    dq: Tensor, dk: Tensor, dv: Tensor, x: Tensor, cos: Tensor, sin: Tensor, q_weight: Tensor | None,
    k_weight: Tensor | None, inverse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    if q_weight is None or k_weight is None:
        return x.new_empty(x.shape), x.new_empty(0), x.new_empty(0)
    return x.new_empty(x.shape), q_weight.new_empty(q_weight.shape), k_weight.new_empty(k_weight.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:5], output[3])


def _backward(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *saved, inverse = ctx.saved_tensors
    dx, of_q, of_k = split_qkv_gradient(dq, dk, dv, *saved, inverse)
    norm = saved[3] is not None
    return dx, None, None, of_q if norm else None, of_k if norm else None, None, None


split_qkv_op.register_autograd(_backward, setup_context=_save)
