"""The dense feed-forward layers. D width, I inner width."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from plum_models.attention import Joined
from plum_models.config import DecoderConfig
from plum_models.linear import Linear


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh approximation (Hendrycks and Gimpel 2016, section 2)."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "gelu": F.gelu, "gelu_tanh": gelu_tanh}


class GatedMLP(nn.Module):
    """down(act(gate(x)) * up(x)): SwiGLU where the activation is silu (Shazeer 2020)."""

    def __init__(self, c: DecoderConfig, inner: int) -> None:
        super().__init__()
        self.gate_proj = Linear(c.hidden_size, inner, bias=c.mlp_bias)
        self.up_proj = Linear(c.hidden_size, inner, bias=c.mlp_bias)
        self.down_proj = Linear(inner, c.hidden_size, bias=c.mlp_bias)
        self.act = ACTIVATIONS[c.activation]
        self.joined: Joined | None = None  # gate and up as one product, (..., D) to (..., 2I)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        if self.joined is None:
            gate, up = self.gate_proj(x), self.up_proj(x)
        else:
            gate, up = self.joined(x).chunk(2, dim=-1)
        return self.down_proj(self.act(gate) * up)


class PlainMLP(nn.Module):
    """c_proj(act(c_fc(x))): two matrices and no gate (Vaswani et al. 2017, eq. 2), in StarCoder2's names."""

    def __init__(self, c: DecoderConfig, inner: int) -> None:
        super().__init__()
        self.c_fc = Linear(c.hidden_size, inner, bias=c.mlp_bias)
        self.c_proj = Linear(inner, c.hidden_size, bias=c.mlp_bias)
        self.act = ACTIVATIONS[c.activation]

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return self.c_proj(self.act(self.c_fc(x)))
