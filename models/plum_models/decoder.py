"""The decoder, from scratch: one forward for every layout that ``families`` reads.

Letters in shapes: B rows, S positions, D width, V vocabulary.

The decoder owns no key/value memory. It hands every layer's q, k and v to ``attend``, which decides what is
attended to: the causal default for training, a cache that lives in the sampler for decoding.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plum_models.attention import Attend, Attention, causal, joined, soft_cap
from plum_models.config import DecoderConfig
from plum_models.linear import Linear
from plum_models.mla import LatentAttention
from plum_models.mlp import GatedMLP, PlainMLP
from plum_models.moe import SparseMLP
from plum_models.norms import make_norm
from plum_models.recompute import call
from plum_models.rope import rotary_tables

Tables = tuple[Tensor, Tensor]  # cos and signed sin
M = TypeVar("M", bound=nn.Module)


def make_mlp(c: DecoderConfig, layer: int) -> nn.Module:
    """The feed-forward part of ``layer``: sparse, gated or plain."""
    if layer in c.sparse_layers:
        return SparseMLP(c)
    return (GatedMLP if c.gated_mlp else PlainMLP)(c, c.intermediate_size)


class Layer(nn.Module):
    """Attention and MLP, each added to the residual stream from behind its norm.

    With ``sandwich_norms`` their answers are normalised too, and the names are Gemma 2's: post_attention_layernorm
    then stands behind attention, not before the MLP.
    """

    def __init__(self, c: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = make_norm(c)
        self.self_attn = LatentAttention(c) if c.kv_lora_rank else Attention(c)
        self.post_attention_layernorm = make_norm(c)
        self.mlp = make_mlp(c, layer)
        self.pre_feedforward_layernorm = make_norm(c) if c.sandwich_norms else None
        self.post_feedforward_layernorm = make_norm(c) if c.sandwich_norms else None

    def forward(self, x: Tensor, q_tables: Tables, k_tables: Tables, layer: int, attend: Attend) -> Tensor:
        """(B, S, D) to (B, S, D)."""
        return self.after(x, attend(layer, *self.before(x, q_tables, k_tables)))

    def before(self, x: Tensor, q_tables: Tables, k_tables: Tables) -> tuple[Tensor, Tensor, Tensor]:
        """What ``attend`` takes."""
        return self.self_attn.qkv(self.input_layernorm(x), q_tables, k_tables)

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        """What is made of ``attend``'s answer (B, S, H, E)."""
        mixed = self.self_attn.out(attended)
        if self.pre_feedforward_layernorm is None or self.post_feedforward_layernorm is None:
            x = x + mixed
            added: Tensor = self.mlp(self.post_attention_layernorm(x))
            return x + added
        x = x + self.post_attention_layernorm(mixed)
        added = self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
        return x + added


class Decoder(nn.Module):
    """Token ids to hidden states. Parameter names are Hugging Face's, less their ``model.`` prefix."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = "none"  # what the backward computes again: see ``recompute``
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = make_norm(config)
        self.lm_head = None if config.tie_word_embeddings else Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """The output matrix, (V, D): the embedding itself where the two are tied."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(self, token_ids: Tensor, positions: Tensor | None = None, attend: Attend | None = None) -> Tensor:
        """Hidden states after the final norm.

        token_ids: (B, S) int64 in [0, V). positions: (S,) or (B, S), 0..S-1 where not given. attend: ``causal`` of
        this config where not given. Returns (B, S, D) in the weights' dtype. Logits are ``logits(hidden)``; training
        never forms them, see ``plum_kernels.linear_logprob``.
        """
        if positions is None:
            positions = torch.arange(token_ids.shape[1], device=token_ids.device)
        attend = attend or causal(self.config)
        q_tables, k_tables = self._tables(positions)
        x = self.embed_tokens(token_ids)
        if self.config.scale_embeddings:
            x = x * torch.tensor(self.config.hidden_size**0.5, dtype=x.dtype)  # rounded first, as Gemma was trained
        for i, layer in enumerate(self.layers):
            if self.checkpointing == "none":
                x = layer(x, q_tables, k_tables, i, attend)
            else:
                x = call(self.checkpointing, i, layer, x, q_tables, k_tables, i, attend)
        return self.norm(x)

    def _tables(self, positions: Tensor) -> tuple[Tables, Tables]:
        """Rotary tables for q and for k; q's carry what turns ``attend``'s divisor sqrt(head_dim) into the layout's."""
        c = self.config
        cos, sin = rotary_tables(positions, c.rotary_dim, c.rope_theta, c.rope, c.max_position_embeddings)
        if c.query_pre_attn_scalar is None or c.query_pre_attn_scalar == c.head_dim:
            return (cos, sin), (cos, sin)
        scale = (c.head_dim / c.query_pre_attn_scalar) ** 0.5
        return (cos * scale, sin * scale), (cos, sin)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., V), in the weights' dtype."""
        return soft_cap(F.linear(hidden, self.head_weight), self.config.logit_softcap)


@torch.no_grad()
def for_inference(decoder: Decoder) -> Decoder:
    """The same function with fewer calls: q, k and v as one matrix, gate and up of a dense layer as one.

    The joined matrices are copies of the weights as they are now; every other weight is shared with ``decoder``.
    """
    twin = _twin(decoder)
    for layer in twin.layers:
        assert isinstance(layer, Layer)  # a ModuleList has no types of its own
        attention, mlp = layer.self_attn, layer.mlp
        if isinstance(attention, Attention):
            attention.joined = joined([attention.q_proj, attention.k_proj, attention.v_proj])
        if isinstance(mlp, GatedMLP):
            mlp.joined = joined([mlp.gate_proj, mlp.up_proj])
    return twin


def _twin(module: M) -> M:
    """The module with modules of its own all the way down, and the same tensors."""
    out = copy.copy(module)
    out.__dict__["_parameters"] = dict(module._parameters)
    out.__dict__["_buffers"] = dict(module._buffers)
    out.__dict__["_modules"] = {name: m if m is None else _twin(m) for name, m in module._modules.items()}
    return out
