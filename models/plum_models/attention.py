"""Grouped-query attention and the hook through which training, prefill and cached decoding attend.

Letters in shapes: B rows, S positions, D width, H query heads, G key/value heads, E head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plum_kernels import linear
from plum_kernels.decoder.interface import has_kernel, split_qkv
from plum_models.config import DecoderConfig
from plum_models.linear import Linear
from plum_models.lora import effective_weight
from plum_models.norms import RMSNorm
from plum_models.rope import rotate

# (layer, q (B,S,H,E), k (B,S,G,E), v (B,S,G,E)) -> (B,S,H,E); q and k carry their rotary positions already, and
# scores are q . k / sqrt(E): a layout with another divisor has it in q
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]

# several linear layers of one input, their answers side by side
Joined = Callable[[Tensor], Tensor]


def causal_attention(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Each position attends to itself and to those before it in its row.

    Right padding therefore needs no mask: a pad is never in front of a real token.
    """
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        is_causal=True,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return out.transpose(1, 2)


def windowed_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """``causal_attention`` to the last ``window`` positions, the own one included (Beltagy et al. 2020)."""
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=_visible(q.shape[1], window, q.device),
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return out.transpose(1, 2)


def capped_attention(q: Tensor, k: Tensor, v: Tensor, cap: float, window: int | None) -> Tensor:
    """Causal attention over scores cap * tanh(score / cap) (Gemma 2, arXiv 2408.00118, section 2)."""
    groups, width = k.shape[2], q.shape[3]
    grouped = q.unflatten(2, (groups, -1))  # (B, S, G, H/G, E)
    scores = torch.einsum("bsgje,btge->bgjst", grouped, k) * width**-0.5
    scores = soft_cap(scores, cap).masked_fill(~_visible(q.shape[1], window, q.device), -torch.inf)
    weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)  # fp32: a bf16 sum of weights drifts from one
    return torch.einsum("bgjst,btge->bsgje", weights, v).flatten(2, 3)


def soft_cap(x: Tensor, cap: float | None) -> Tensor:
    """cap * tanh(x / cap), or x where there is no cap."""
    return x if cap is None else cap * torch.tanh(x / cap)


def _visible(length: int, window: int | None, device: torch.device) -> Tensor:
    """(S, S) bool, query by key."""
    age = torch.arange(length, device=device)
    age = age.unsqueeze(1) - age
    return (age >= 0) & (age < (length if window is None else window))


def causal(config: DecoderConfig) -> Attend:
    """What a decoder of this config attends to where each row holds the positions 0 to S - 1."""
    cap = config.attention_softcap
    if cap is None and not config.sliding_layers:
        return causal_attention

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        window = config.window(layer)
        window = None if window is None or window >= q.shape[1] else window
        if cap is not None:
            return capped_attention(q, k, v, cap, window)
        return causal_attention(layer, q, k, v) if window is None else windowed_attention(q, k, v, window)

    return attend


class Attention(nn.Module):
    """Projections, norms of q and k where the layout has them, rotation, and whatever ``attend`` does."""

    def __init__(self, c: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.q_proj = Linear(c.hidden_size, self.heads * c.head_dim, bias=c.attention_bias)
        self.k_proj = Linear(c.hidden_size, self.kv_heads * c.head_dim, bias=c.attention_bias)
        self.v_proj = Linear(c.hidden_size, self.kv_heads * c.head_dim, bias=c.attention_bias)
        self.o_proj = Linear(self.heads * c.head_dim, c.hidden_size, bias=c.attention_out_bias)
        self.eps = c.rms_norm_eps
        self.q_norm = RMSNorm(c.head_dim, c.rms_norm_eps) if c.qk_norm else None
        self.k_norm = RMSNorm(c.head_dim, c.rms_norm_eps) if c.qk_norm else None
        self.joined: Joined | None = None

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S, D) to q (B, S, H, E), k and v (B, S, G, E), before their rotary positions."""
        if self.joined is None:
            q, k, v = (p(x).unflatten(-1, (-1, self.head_dim)) for p in (self.q_proj, self.k_proj, self.v_proj))
        else:
            heads = self.joined(x).unflatten(-1, (-1, self.head_dim))
            q, k, v = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=-2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return q, k, v

    def qkv(
        self, x: Tensor, q_tables: tuple[Tensor, Tensor], k_tables: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What is attended to, at its positions: (B, S, D) to q (B, S, H, E), k and v (B, S, G, E).

        Tables: cos and signed sin of ``rope.rotary_tables``, those of q times its scale.
        """
        if self.joined is not None and q_tables[0] is k_tables[0] and has_kernel("split_qkv", x):
            cos, sin = (table.flatten(0, -2) for table in q_tables)
            of_q, of_k = (None if norm is None else norm.weight for norm in (self.q_norm, self.k_norm))
            return split_qkv(self.joined(x), cos, sin, self.kv_heads, self.head_dim, of_q, of_k, self.eps)
        if self.joined is not None and self.q_norm is None and q_tables[0] is k_tables[0]:  # one rotation for both
            heads = self.joined(x).unflatten(-1, (-1, self.head_dim))
            turned, v = heads.split((self.heads + self.kv_heads, self.kv_heads), dim=-2)
            q, k = rotate(turned, *q_tables).split((self.heads, self.kv_heads), dim=-2)
            return q, k, v
        q, k, v = self.project(x)
        return rotate(q, *q_tables), rotate(k, *k_tables), v

    def out(self, attended: Tensor) -> Tensor:
        """(B, S, H, E) to (B, S, D)."""
        mixed: Tensor = self.o_proj(attended.flatten(-2))
        return mixed


@dataclass(frozen=True, slots=True)
class JoinedLinear:
    """weight (sum of outputs, inputs) and bias of several linear layers, one below the other."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def joined(linears: Sequence[nn.Linear]) -> JoinedLinear:
    """Linear layers of one input as a single one: fewer and larger matrix products."""
    biases: list[Tensor] = [linear.bias for linear in linears if linear.bias is not None]
    weights = [effective_weight(linear) for linear in linears]
    return JoinedLinear(torch.cat(weights), torch.cat(biases) if biases else None)
