"""The norms of the layouts. D width of what is normalised, in every shape."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plum_kernels import rms_norm
from plum_models.config import DecoderConfig


class RMSNorm(nn.Module):
    """x / rms(x) * weight (Zhang and Sennrich 2019); the statistics in fp32, as every checkpoint expects."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return rms_norm(x, self.weight, self.eps)


class ShiftedRMSNorm(nn.Module):
    """x / rms(x) * (1 + weight), all in fp32 and rounded once (Gemma, arXiv 2403.08295)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return rms_norm(x.float(), 1.0 + self.weight.float(), self.eps).to(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) * weight + bias (Ba et al. 2016, eq. 4)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


NORMS: dict[str, type[RMSNorm] | type[ShiftedRMSNorm] | type[LayerNorm]] = {
    "rms": RMSNorm,
    "rms_shifted": ShiftedRMSNorm,
    "layer": LayerNorm,
}


def make_norm(c: DecoderConfig) -> nn.Module:
    """The norm of the residual stream."""
    return NORMS[c.norm](c.hidden_size, c.rms_norm_eps)
