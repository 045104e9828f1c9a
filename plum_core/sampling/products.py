"""Products of states and weights, in place of F.linear: ``Packed`` by oneDNN's layout, ``Compiled`` by ours.

Either layout is made once for an update, so that a product of few rows does not reorder its weights in each step, and
costs a second copy of the output head and of the matrices that write to the residual stream. Roundings are others than
F.linear's. ``Int8`` reads a quarter or half of the bytes: another policy, whose log-probs are its own and not the
trainer's. ``Tiled``: sums that do not depend on the batch, by torch's products.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plum_kernels.cpu_decode import Matrix

TILE = 32  # rows of a product where products must not depend on the batch


class Compiled(nn.Module):
    """x @ weight.T + bias by ``plum_kernels.cpu_decode.Matrix``: every row as if it were alone, to the bit."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.matrix = Matrix(weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        out = self.matrix.linear(x.reshape(-1, x.shape[-1]).contiguous())
        return out.view(*x.shape[:-1], -1)

    def added(self, residual: Tensor, x: Tensor) -> Tensor:
        """residual (R, outputs) + forward(x), x (R, inputs), rounded once."""
        return self.matrix.linear(x, residual)


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

    def added(self, residual: Tensor, x: Tensor) -> Tensor:
        """residual (R, outputs) + forward(x), x (R, inputs), in one call."""
        binary = torch.ops.mkldnn._linear_pointwise.binary
        out: Tensor = binary(x, residual, self.weight, self.bias, "add")
        return out


class Int8(nn.Module):
    """x @ weight.T + bias with the weight (outputs, inputs) as whole numbers of -127 to 127 and a scale an output.

    The scale is the output's largest magnitude / 127 (as LLM.int8 has it for weights, Dettmers et al. 2022, section
    2.1); inputs stay as they are.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        wide = weight.detach().float()
        scales = (wide.abs().amax(1) / 127).clamp_min_(torch.finfo(torch.float32).tiny)
        self.weight = (wide / scales.unsqueeze(1)).round_().clamp_(-127, 127).to(torch.int8)
        self.scales, self.bias = scales.to(weight.dtype), bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        out = torch._weight_int8pack_mm(x.reshape(-1, x.shape[-1]), self.weight, self.scales)
        out = out if self.bias is None else out + self.bias
        return out.view(*x.shape[:-1], -1)


class Tiled(nn.Module):
    """x @ weight.T + bias, TILE rows at a time and never fewer: a row's sums do not depend on the rows beside it."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight.detach(), bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        flat = x.reshape(-1, x.shape[-1])
        padded = F.pad(flat, (0, 0, 0, -len(flat) % TILE))  # a copy where tiles are not full; aligned in any case
        out = flat.new_empty((len(padded), len(self.weight)))
        transposed = self.weight.t()
        for first in range(0, len(padded), TILE):
            torch.mm(padded[first : first + TILE], transposed, out=out[first : first + TILE])
        out = out[: len(flat)] if self.bias is None else out[: len(flat)] + self.bias
        return out.view(*x.shape[:-1], -1)
