"""RMSNorm with its gradient written out: fewer passes over memory than autograd's chain of small operations.

Letters in shapes: N rows, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def reference_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x**2) + eps) * weight over the last dimension (Zhang and Sennrich 2019, eq. 4).

    The statistics and the quotient are fp32 (fp64 for fp64 inputs), rounded to x's dtype before the weight is
    applied, as every Llama and Qwen checkpoint was trained.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        inverse = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        normed = wide * inverse
        ctx.save_for_backward(normed, inverse, weight)
        ctx.dtype = x.dtype
        return normed.to(x.dtype) * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """n the quotient, g = grad * weight: dx = (g - n mean(g n)) / rms, dweight = sum over rows of grad n."""
        normed, inverse, weight = ctx.saved_tensors
        width = normed.shape[-1]
        wide = grad.to(normed.dtype)
        product = wide * normed
        weight32 = weight.to(normed.dtype)
        dweight = product.reshape(-1, width).sum(0)
        mean = (product @ weight32).div_(width).unsqueeze(-1)
        dx = (wide * weight32).addcmul_(normed, mean, value=-1).mul_(inverse)
        return dx.to(ctx.dtype), dweight.to(weight.dtype), None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm of the last dimension: ``reference_rms_norm``, with fewer passes over memory in backward.

    x: (..., D), weight: (D,), both floating. Returns (..., D) in the wider of the two dtypes. First order only.
    Raises ValueError where the widths differ.
    """
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"weight must be ({x.shape[-1]},) for x {tuple(x.shape)}, got {tuple(weight.shape)}")
    if not torch.is_grad_enabled():
        return reference_rms_norm(x, weight, eps)
    out: Tensor = _RMSNorm.apply(x, weight, eps)
    return out
