"""One new token a row through the decoder, in as few calls as torch needs: at small sizes a call costs more than its
arithmetic.

The same function as ``Decoder.forward`` of one position a row, with residual sums inside the products, frequencies of
the rotation made once, and no dimension of positions. Letters in shapes: R rows, D width, E head width, H query and G
key/value heads.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plum_kernels.dense import ONEDNN_IS_FASTER
from plum_models.attention import Attend, Attention
from plum_models.config import DecoderConfig
from plum_models.decoder import Decoder, Layer
from plum_models.linear import Linear
from plum_models.mlp import GatedMLP
from plum_models.rope import frequencies

PLAIN = (nn.Linear, Linear)  # a matrix and nothing more; an adapter's linear computes more
Added = Callable[[Tensor, Tensor], Tensor]  # (R, D) residual and (R, I) input to residual + linear(input)


def can_run(config: DecoderConfig) -> bool:
    """Whether the layout is one of those that this step knows: the others decode by ``Decoder.forward``."""
    plain = not config.kv_lora_rank and not config.sandwich_norms and not config.scale_embeddings
    scaled = config.query_pre_attn_scalar not in (None, config.head_dim)
    return plain and not scaled and config.rope.kind != "dynamic"


def added(linear: nn.Module) -> Added:
    """The sum of a residual and a linear layer's answer as one call where the layer is a plain matrix."""
    own = getattr(linear, "added", None)
    if own is not None:
        return own
    if type(linear) not in PLAIN or linear.bias is not None:
        return lambda residual, x: residual + linear(x)
    assert isinstance(linear, nn.Linear)
    if linear.weight.dtype == torch.float32 and ONEDNN_IS_FASTER:  # than addmm, by more than a call
        return lambda residual, x: residual + linear(x)
    transposed = linear.weight.t()
    return lambda residual, x: torch.addmm(residual, x, transposed)


class LeanStep:
    """``decoder``: of ``for_inference``, whose joined matrices are used; ``can_run`` of its config must hold."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.config = decoder, decoder.config
        c = self.config
        weight = decoder.embed_tokens.weight
        self.frequencies = frequencies(c.rotary_dim, c.rope_theta, c.rope, weight.device)
        self.whole = c.rotary_dim == c.head_dim
        self.layers = []
        for layer in decoder.layers:
            assert isinstance(layer, Layer) and isinstance(layer.self_attn, Attention)  # ``can_run``
            mlp = layer.mlp if isinstance(layer.mlp, GatedMLP) else None
            down = None if mlp is None else added(mlp.down_proj)
            self.layers.append((layer, layer.self_attn, added(layer.self_attn.o_proj), mlp, down))

    def __call__(self, token_ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """(R,) int64 ids and their positions to (R, D), the state after the final norm."""
        x = F.embedding(token_ids, self.decoder.embed_tokens.weight)
        turn = self._turning(positions)
        for number, (layer, attention, out, mlp, down) in enumerate(self.layers):
            q, k, v = self._heads(attention, layer.input_layernorm(x), turn)
            attended = attend(number, q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1))
            x = out(x, attended.view(len(x), -1))
            normed = layer.post_attention_layernorm(x)
            if mlp is None or mlp.joined is None or down is None:
                x = x + layer.mlp(normed.unsqueeze(1)).squeeze(1)
            else:
                inner = mlp.joined(normed)
                half = inner.shape[1] // 2
                x = down(x, mlp.act(inner[:, :half]).mul_(inner[:, half:]))
        return self.decoder.norm(x)

    def _turning(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and signed sin of ``rope.rotary_tables``, (R, 1, rotated channels) fp32."""
        angles = positions.float().unsqueeze(-1) * self.frequencies
        cos, sin = angles.cos(), angles.sin()
        if self.config.rope.attention_factor != 1:
            cos, sin = cos * self.config.rope.attention_factor, sin * self.config.rope.attention_factor
        return torch.cat((cos, cos), -1).unsqueeze(1), torch.cat((-sin, sin), -1).unsqueeze(1)

    def _heads(self, attention: Attention, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """(R, D) to q (R, H, E), k and v (R, G, E), q and k with their positions."""
        assert attention.joined is not None  # ``for_inference``
        heads, groups, width = attention.heads, attention.kv_heads, attention.head_dim
        x = attention.joined(x).view(len(x), -1, width)
        if attention.q_norm is not None and attention.k_norm is not None:
            q, k, v = x.split((heads, groups, groups), dim=1)
            return self._turned(attention.q_norm(q), *turn), self._turned(attention.k_norm(k), *turn), v
        turned = self._turned(x[:, : heads + groups], *turn)
        return turned[:, :heads], turned[:, heads:], x[:, heads + groups :]

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """``rope.rotate`` of (R, heads, E)."""
        wide = (x if self.whole else x[..., : cos.shape[-1]]).float()
        first, second = wide.chunk(2, dim=-1)
        out = torch.addcmul(wide * cos, torch.cat((second, first), dim=-1), sin).to(x.dtype)
        return out if self.whole else torch.cat((out, x[..., cos.shape[-1] :]), dim=-1)
