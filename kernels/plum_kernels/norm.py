"""RMSNorm with its gradient written out: fewer passes over memory than autograd's chain of small operations.

Letters in shapes: N rows, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def reference_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x**2) + eps) * weight over the last dimension (Zhang and Sennrich 2019, eq. 4).

    The statistics and the quotient are fp32 (fp64 for fp64 inputs), rounded to x's dtype before the weight is
    applied, as every Llama and Qwen checkpoint was trained.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


@torch.library.custom_op("plum_kernels::rms_norm", mutates_args=())
def rms_norm_op(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(..., D) the result, then for backward the quotient (..., D) and the inverse of the root (..., 1)."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    inverse = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    normed = wide * inverse
    return normed.to(x.dtype) * weight, normed, inverse


@rms_norm_op.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    wide = torch.promote_types(x.dtype, torch.float32)
    out = torch.empty_like(x, dtype=torch.promote_types(x.dtype, weight.dtype))
    return out, torch.empty_like(x, dtype=wide), x.new_empty((*x.shape[:-1], 1), dtype=wide)


@torch.library.custom_op("plum_kernels::rms_norm_gradient", mutates_args=())
def rms_norm_gradient(grad: Tensor, normed: Tensor, inverse: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """n the quotient, g = grad * weight: dx = (g - n mean(g n)) / rms, dweight = sum over rows of grad n.

    dx comes in the quotient's dtype.
    """
    width = normed.shape[-1]
    wide = grad.to(normed.dtype)
    product = wide * normed
    weight32 = weight.to(normed.dtype)
    dweight = product.reshape(-1, width).sum(0)
    mean = (product @ weight32).div_(width).unsqueeze(-1)
    dx = (wide * weight32).addcmul_(normed, mean, value=-1).mul_(inverse)
    return dx, dweight.to(weight.dtype, copy=True)


@rms_norm_gradient.register_fake
def _(grad: Tensor, normed: Tensor, inverse: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(normed), torch.empty_like(weight)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, _ = inputs
    _, normed, inverse = output
    ctx.save_for_backward(normed, inverse, weight)
    ctx.dtype = x.dtype
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    """The last two outputs are for backward alone and send nothing."""
    if grad is None:
        return None, None, None
    dx, dweight = rms_norm_gradient(grad, *ctx.saved_tensors)
    return dx.to(ctx.dtype), dweight, None


rms_norm_op.register_autograd(_backward, setup_context=_save)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm of the last dimension: ``reference_rms_norm``, with fewer passes over memory in backward.

    x: (..., D), weight: (D,), both floating. Returns (..., D) in the wider of the two dtypes. First order only.
    Raises ValueError where the widths differ.
    """
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"weight must be ({x.shape[-1]},) for x {tuple(x.shape)}, got {tuple(weight.shape)}")
    if not torch.is_grad_enabled():
        return reference_rms_norm(x, weight, eps)
    out, _, _ = rms_norm_op(x, weight, eps)
    return out
