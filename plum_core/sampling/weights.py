"""The weights in the shape that decoding wants: fewer products, and laid out for them where asked.

``packed`` is for CPUs: oneDNN's own layout of every matrix, made once, so that a product of few rows does not reorder
its weights in each step. Costs a second copy of the output head and of the matrices that write to the residual
stream. In fp32 it is another kernel than F.linear's, with other roundings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plum_models.attention import JoinedLinear
from plum_models.decoder import Decoder, Layer, for_inference
from plum_models.norms import RMSNorm


class Packed(nn.Module):
    """x @ weight.T + bias from oneDNN's layout of the weight, (outputs, inputs); rows: how many are usual."""

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return out


class OneCallNorm(nn.Module):
    """``plum_models.norms.RMSNorm`` of fp32 by torch's own."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


@dataclass(frozen=True, slots=True)
class Weights:
    """What a batch decodes with. product: by the output head, where F.linear does not do it."""

    decoder: Decoder
    product: Packed | None = None


def can_pack(like: Tensor) -> bool:
    return like.device.type == "cpu" and torch.backends.mkldnn.is_available()


def weights_of(decoder: Decoder, packed_rows: int = 0) -> Weights:
    """The decoder's weights as they are now. packed_rows: 0, or how many rows a product has at most."""
    twin = for_inference(decoder)
    _call_norms_at_once(twin)
    if not packed_rows:
        return Weights(twin)
    for layer in twin.layers:
        assert isinstance(layer, Layer)  # a ModuleList has no types of its own
        for module in (layer.self_attn, layer.mlp):
            found = getattr(module, "joined", None)
            if isinstance(found, JoinedLinear):
                module.joined = Packed(found.weight, found.bias, packed_rows)
            for name in ("o_proj", "down_proj", "c_fc", "c_proj"):
                linear = getattr(module, name, None)
                if type(linear) is nn.Linear:  # an adapter's linear computes more than its matrix
                    setattr(module, name, Packed(linear.weight, linear.bias, packed_rows))
    return Weights(twin, Packed(twin.head_weight, None, packed_rows))


def _call_norms_at_once(twin: nn.Module) -> None:
    """In fp32 torch's rms_norm is RMSNorm to the bit, in one call for six; in other dtypes it rounds elsewhere."""
    for module in list(twin.modules()):
        for name, norm in module.named_children():
            if type(norm) is RMSNorm and norm.weight.dtype == torch.float32:
                setattr(module, name, OneCallNorm(norm.weight, norm.eps))
