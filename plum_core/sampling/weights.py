"""The weights in the shape that decoding wants: fewer products, of the kind that was asked for (``products.py``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plum_core.sampling.cache import Cache
from plum_core.sampling.lean import PLAIN, LeanStep, can_run
from plum_core.sampling.native import NativeCache, NativeStep
from plum_core.sampling.products import Compiled, Int8, Packed, Tiled
from plum_models.attention import JoinedLinear
from plum_models.decoder import Decoder, Layer, for_inference
from plum_models.norms import RMSNorm

Product = Packed | Int8 | Tiled | Compiled
Kind = Literal["plain", "int8", "tiled", "compiled"]
PRODUCTS: dict[str, type[Int8] | type[Tiled] | type[Compiled]] = {"int8": Int8, "tiled": Tiled, "compiled": Compiled}


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

    kind: of the products in place of the matrices.
    """
    twin = for_inference(decoder)
    _call_norms_at_once(twin)
    product = None
    if kind != "plain":
        product = _replaced(twin, PRODUCTS[kind])
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
                if type(linear) in PLAIN:
                    assert isinstance(linear, nn.Linear)
                    setattr(module, name, make(linear.weight, linear.bias))
    return make(twin.head_weight, None)


def _call_norms_at_once(twin: nn.Module) -> None:
    """In fp32 torch's rms_norm is RMSNorm to the bit, in one call for six; in other dtypes it rounds elsewhere."""
    for module in list(twin.modules()):
        for name, norm in module.named_children():
            if type(norm) is RMSNorm and norm.weight.dtype == torch.float32:
                setattr(module, name, OneCallNorm(norm.weight, norm.eps))
