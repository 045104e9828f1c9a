"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): keys and values out of one small latent.

Letters in shapes: B rows, S positions, D width, H heads, N channels of a head without position, R rotated ones,
E = N + R, W channels of a value.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plum_models.config import DecoderConfig
from plum_models.linear import Linear
from plum_models.norms import RMSNorm
from plum_models.rope import rotate

LATENT_EPS = 1e-6  # of the norms of latents, whatever the config says of the others


def halves(x: Tensor) -> Tensor:
    """(..., R) with rotated pairs side by side to the half-split order that ``rotate`` takes.

    q and k are permuted alike, so their products stay what they are.
    """
    return x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)


class LatentAttention(nn.Module):
    """``Attention``'s place in layouts with ``kv_lora_rank``.

    k and v leave it whole, so whatever attends needs to know nothing of latents. v is filled up with zeros to k's
    width, and the answer cut: one width serves every cache and kernel, at (E - W) / 2E more memory of theirs (a sixth
    where E = 192 and W = 128).
    """

    def __init__(self, c: DecoderConfig) -> None:
        super().__init__()
        self.nope, self.rotated, self.value = c.head_dim - c.rotary_dim, c.rotary_dim, c.v_head_dim
        self.head_dim, self.score_scale = c.head_dim, c.rope.score_scale
        heads, rank, bias = c.num_attention_heads, c.kv_lora_rank, c.attention_bias
        if c.q_lora_rank is None:
            self.q_proj = Linear(c.hidden_size, heads * c.head_dim, bias=False)
        else:
            self.q_a_proj = Linear(c.hidden_size, c.q_lora_rank, bias=bias)
            self.q_a_layernorm = RMSNorm(c.q_lora_rank, LATENT_EPS)
            self.q_b_proj = Linear(c.q_lora_rank, heads * c.head_dim, bias=False)
        self.rank, self.through_latent = rank, c.q_lora_rank is not None
        self.kv_a_proj_with_mqa = Linear(c.hidden_size, rank + self.rotated, bias=bias)
        self.kv_a_layernorm = RMSNorm(rank, LATENT_EPS)
        self.kv_b_proj = Linear(rank, heads * (self.nope + self.value), bias=False)
        self.o_proj = Linear(heads * self.value, c.hidden_size, bias=c.attention_out_bias)

    def _queries(self, x: Tensor) -> Tensor:
        """(B, S, D) to (B, S, H, E)."""
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))) if self.through_latent else self.q_proj(x)
        return q.unflatten(-1, (-1, self.head_dim))

    def qkv(
        self, x: Tensor, q_tables: tuple[Tensor, Tensor], k_tables: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S, D) to q, k and v of (B, S, H, E); tables as ``Attention.qkv`` takes them, R wide."""
        q_nope, q_turned = self._queries(x).split((self.nope, self.rotated), dim=-1)
        latent, shared = self.kv_a_proj_with_mqa(x).split((self.rank, self.rotated), dim=-1)
        k_turned = rotate(halves(shared).unsqueeze(-2), *k_tables)  # (B, S, 1, R): one for all heads
        both = self.kv_b_proj(self.kv_a_layernorm(latent)).unflatten(-1, (-1, self.nope + self.value))
        k_nope, v = both.split((self.nope, self.value), dim=-1)
        q = torch.cat((q_nope, rotate(halves(q_turned), *q_tables)), -1)
        if self.score_scale != 1:
            q = q * self.score_scale
        k = torch.cat((k_nope, k_turned.expand(*k_nope.shape[:-1], -1)), -1)
        return q, k, F.pad(v, (0, self.head_dim - self.value))

    def out(self, attended: Tensor) -> Tensor:
        """(B, S, H, E) to (B, S, D)."""
        mixed: Tensor = self.o_proj(attended[..., : self.value].flatten(-2))
        return mixed
