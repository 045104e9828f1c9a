"""The weights in the shape that decoding wants: fewer products, and laid out for them where asked.

``packed`` is for CPUs: oneDNN's own layout of every matrix, made once, so that a product of few rows does not reorder
its weights in each step. Costs a second copy of the output head and of the matrices that write to the residual
stream. In fp32 it is another kernel than F.linear's, with other roundings.

``int8`` reads a quarter or half of the bytes, where few rows decode and reading weights is the work: another policy,
whose log-probs are its own and not the trainer's. ``tiled``: products whose sums do not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plum_core.sampling.cache import Cache
from plum_core.sampling.lean import LeanStep, can_run
from plum_core.sampling.native import NativeCache, NativeStep
from plum_models.attention import JoinedLinear
from plum_models.decoder import Decoder, Layer, for_inference
from plum_models.norms import RMSNorm

TILE = 32  # rows of a product where products must not depend on the batch


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


class OneCallNorm(nn.Module):
    """``plum_models.norms.RMSNorm`` of fp32 by torch's own."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


Product = Packed | Int8 | Tiled
Kind = Literal["plain", "int8", "tiled"]


@dataclass(frozen=True, slots=True)
class Weights:
    """What a batch decodes with. product: by the output head, where F.linear does not do it.

    step: one token a row in fewer calls than the decoder's forward, for the layouts that ``lean`` knows.
    native: that by compiled functions (``native.py``), where asked; they draw too.
    """

    decoder: Decoder
    product: Product | None = None
    step: LeanStep | None = None
    native: NativeStep | None = None

    def decode(self, token_ids: Tensor, positions: Tensor, cache: Cache | NativeCache) -> Tensor:
        """The states (R, 1, D) after one new token a row; token_ids, positions: (R,) int64."""
        if isinstance(cache, NativeCache):
            assert self.native is not None  # the cache was made for it
            return self.native(token_ids, positions, cache).unsqueeze(1)
        cache.begin_step()
        if self.step is None:
            return self.decoder(token_ids.unsqueeze(1), positions.unsqueeze(1), cache.attend)
        return self.step(token_ids, positions, cache.attend).unsqueeze(1)


def can_pack(like: Tensor) -> bool:
    return like.device.type == "cpu" and torch.backends.mkldnn.is_available()


def weights_of(decoder: Decoder, packed_rows: int = 0, native_rows: int = 0, kind: Kind = "plain") -> Weights:
    """The decoder's weights as they are now. packed_rows, native_rows: 0, or how many rows a step has at most.

    kind: ``int8`` or ``tiled`` products in place of the matrices.
    """
    twin = for_inference(decoder)
    _call_norms_at_once(twin)
    product = None
    if kind != "plain":
        product = _replaced(twin, Int8 if kind == "int8" else Tiled)
    elif packed_rows:
        product = _replaced(twin, lambda weight, bias: Packed(weight, bias, packed_rows))
    step = LeanStep(twin) if can_run(twin.config) else None
    return Weights(twin, product, step, NativeStep(twin, native_rows) if native_rows else None)


def _replaced(twin: Decoder, make: Callable[[Tensor, Tensor | None], Product]) -> Product:
    """Other products in place of the twin's matrices; the output head's is returned."""
    for layer in twin.layers:
        assert isinstance(layer, Layer)  # a ModuleList has no types of its own
        for module in (layer.self_attn, layer.mlp):
            found = getattr(module, "joined", None)
            if isinstance(found, JoinedLinear):
                module.joined = make(found.weight, found.bias)
            for name in ("o_proj", "down_proj", "c_fc", "c_proj"):
                linear = getattr(module, name, None)
                if type(linear) is nn.Linear:  # an adapter's linear computes more than its matrix
                    setattr(module, name, make(linear.weight, linear.bias))
    return make(twin.head_weight, None)


def _call_norms_at_once(twin: nn.Module) -> None:
    """In fp32 torch's rms_norm is RMSNorm to the bit, in one call for six; in other dtypes it rounds elsewhere."""
    for module in list(twin.modules()):
        for name, norm in module.named_children():
            if type(norm) is RMSNorm and norm.weight.dtype == torch.float32:
                setattr(module, name, OneCallNorm(norm.weight, norm.eps))
