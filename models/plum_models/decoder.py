"""The decoder, from scratch: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

Letters in shapes: B rows, S positions, D width, H query heads, G key/value heads, E head width, V vocabulary.

The decoder owns no key/value memory. It hands every layer's q, k and v to ``attend``, which decides what is
attended to: the causal default for training, a cache that lives in the sampler for decoding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plum_kernels import rms_norm
from plum_models.config import DecoderConfig

# (layer, q (B,S,H,E), k (B,S,G,E), v (B,S,G,E)) -> (B,S,H,E); q and k carry their rotary positions already
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]

# weight and bias of several linear layers, one below the other
Joined = tuple[Tensor, Tensor | None]


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


class RMSNorm(nn.Module):
    """x / rms(x) * weight (Zhang and Sennrich 2019); the statistics in fp32, as every checkpoint expects."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


def rotary_tables(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and signed sin, (..., E) fp32, of RoFormer's angles position * theta**(-2i/E) (Su et al. 2021, eq. 15).

    Both halves of the half-split layout side by side; the sine carries the minus sign of its first half.
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions.float().unsqueeze(-1) * theta**-exponent
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (x[i], x[i + E/2]): the half-split layout of Hugging Face's Llama weights."""
    x32 = x.float()
    first, second = x32.chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)  # over heads
    return torch.addcmul(x32 * cos, torch.cat((second, first), dim=-1), sin).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.q_proj = nn.Linear(c.hidden_size, self.heads * c.head_dim, bias=c.attention_bias)
        self.k_proj = nn.Linear(c.hidden_size, self.kv_heads * c.head_dim, bias=c.attention_bias)
        self.v_proj = nn.Linear(c.hidden_size, self.kv_heads * c.head_dim, bias=c.attention_bias)
        self.o_proj = nn.Linear(self.heads * c.head_dim, c.hidden_size, bias=c.attention_out_bias)
        self.joined: Joined | None = None

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S, D) to q (B, S, H, E), k and v (B, S, G, E), before their rotary positions."""
        if self.joined is None:
            q, k, v = (p(x).unflatten(-1, (-1, self.head_dim)) for p in (self.q_proj, self.k_proj, self.v_proj))
            return q, k, v
        heads = F.linear(x, *self.joined).unflatten(-1, (-1, self.head_dim))
        q, k, v = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=-2)
        return q, k, v

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layer: int, attend: Attend) -> Tensor:
        q, k, v = self.project(x)
        return self.o_proj(attend(layer, rotate(q, cos, sin), rotate(k, cos, sin), v).flatten(-2))


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, c: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=c.mlp_bias)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=c.mlp_bias)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=c.mlp_bias)
        self.joined: Joined | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.joined is None:
            gate, up = self.gate_proj(x), self.up_proj(x)
        else:
            gate, up = F.linear(x, *self.joined).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


class Layer(nn.Module):
    def __init__(self, c: DecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = MLP(c)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layer: int, attend: Attend) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, layer, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Token ids to hidden states. Parameter names are Hugging Face's, less their ``model.`` prefix."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = (
            None if config.tie_word_embeddings else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        )

    @property
    def head_weight(self) -> Tensor:
        """The output matrix, (V, D): the embedding itself where the two are tied."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(self, token_ids: Tensor, positions: Tensor | None = None, attend: Attend = causal_attention) -> Tensor:
        """Hidden states after the final norm.

        token_ids: (B, S) int64 in [0, V). positions: (S,) or (B, S), 0..S-1 where not given.
        Returns (B, S, D) in the weights' dtype. Logits are ``hidden @ head_weight.T``; training never forms
        them, see ``plum_kernels.linear_logprob``.
        """
        if positions is None:
            positions = torch.arange(token_ids.shape[1], device=token_ids.device)
        cos, sin = rotary_tables(positions, self.config.head_dim, self.config.rope_theta)
        x = self.embed_tokens(token_ids)
        for i, layer in enumerate(self.layers):
            x = layer(x, cos, sin, i, attend)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., V), in the weights' dtype."""
        return F.linear(hidden, self.head_weight)


def joined(linears: Sequence[nn.Linear]) -> Joined:
    """Linear layers of one input as a single one: fewer and larger matrix products."""
    biases: list[Tensor] = [linear.bias for linear in linears if linear.bias is not None]
    weights: list[Tensor] = [linear.weight for linear in linears]
    return torch.cat(weights), torch.cat(biases) if biases else None


@torch.no_grad()
def for_inference(decoder: Decoder) -> Decoder:
    """The same function with fewer calls: q, k and v as one matrix, gate and up as one.

    The joined matrices are copies of the weights as they are now; every other weight is shared with ``decoder``.
    """
    shared = {id(p): p for p in decoder.parameters()}  # what deepcopy takes for copied already
    twin = copy.deepcopy(decoder, shared)
    for layer in twin.layers:
        assert isinstance(layer, Layer)  # a ModuleList has no types of its own
        attention, mlp = layer.self_attn, layer.mlp
        attention.joined = joined([attention.q_proj, attention.k_proj, attention.v_proj])
        mlp.joined = joined([mlp.gate_proj, mlp.up_proj])
    return twin
