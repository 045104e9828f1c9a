"""The decode step: one token for every live row. R rows, W window, H query and G key/value heads, E head width.

The weights are re-laid once per call of ``Sampler.sample``: q, k and v as one matrix, gate and up as one, each
norm's scale folded into the matrix that follows it. Same function as ``Decoder.forward`` up to rounding, with half
the calls.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plum_models.decoder import Decoder, rotary_tables


def _joined(linears: list[nn.Linear], scale: Tensor) -> tuple[Tensor, Tensor | None]:
    weight = torch.cat([m.weight for m in linears]) * scale
    return weight, None if linears[0].bias is None else torch.cat([m.bias for m in linears])


class Cache:
    """Keys and values of the live rows, (layers, R, G, L, 2E): one contiguous run of positions a row."""

    def __init__(self, decoder: Decoder, rows: int, positions: int) -> None:
        c = decoder.config
        weight = decoder.embed_tokens.weight
        shape = (c.num_hidden_layers, rows, c.num_key_value_heads, positions, 2 * c.head_dim)
        self.kv = torch.zeros(shape, dtype=weight.dtype, device=weight.device)

    def fill(self, rows: Tensor, prompt_kv: Tensor, prompts: Tensor) -> None:
        """Give rows the keys and values of their prompts: (layers, P, G, S, 2E), one prefill for all its samples."""
        self.kv[:, rows, :, : prompt_kv.shape[3]] = prompt_kv[:, prompts]

    def move(self, to: Tensor, source: Tensor, window: int) -> None:
        self.kv[:, to, :, :window] = self.kv[:, source, :, :window]


class DecodeStep:
    def __init__(self, decoder: Decoder) -> None:
        c = decoder.config
        self.config = c
        self.embedding = decoder.embed_tokens.weight.detach()
        self.layers = [
            (
                *_joined([a.q_proj, a.k_proj, a.v_proj], layer.input_layernorm.weight),
                (a.o_proj.weight, a.o_proj.bias),
                *_joined([m.gate_proj, m.up_proj], layer.post_attention_layernorm.weight),
                (m.down_proj.weight, m.down_proj.bias),
            )
            for layer in decoder.layers
            for a, m in [(layer.self_attn, layer.mlp)]
        ]
        self.head = decoder.head_weight * decoder.norm.weight

    def rotary(self, positions: int) -> tuple[Tensor, Tensor]:
        """cos and signed sin, (positions, E), for the half-split layout."""
        c = self.config
        cos, sin = rotary_tables(torch.arange(positions, device=self.head.device), c.head_dim, c.rope_theta)
        return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)

    def __call__(
        self, tokens: Tensor, lengths: Tensor, window: int, cache: Cache, tables: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Logits (R, V) fp32 of the next token. tokens: (R,) the last one drawn; lengths: (R,) positions before it."""
        c = self.config
        rows = torch.arange(len(tokens), device=tokens.device)
        groups, width = c.num_key_value_heads, c.head_dim
        cos, sin = (t[lengths].unsqueeze(1) for t in tables)
        hidden_positions = torch.arange(window, device=tokens.device) > lengths.unsqueeze(-1)
        mask = torch.zeros(hidden_positions.shape).masked_fill_(hidden_positions, -torch.inf)
        mask = mask.repeat_interleave(groups, 0).unsqueeze(1).to(self.head.dtype)
        x = self.embedding[tokens]
        for layer, (qkv, qkv_bias, out, gate_up, gate_up_bias, down) in enumerate(self.layers):
            h = F.rms_norm(x, (x.shape[-1],), eps=c.rms_norm_eps)
            heads = F.linear(h, qkv, qkv_bias).view(len(tokens), -1, width)
            turned, v = heads[:, :-groups], heads[:, -groups:]
            first, second = turned.chunk(2, -1)
            turned = (turned * cos + torch.cat((second, first), -1) * sin).to(x.dtype)
            q, k = turned[:, :-groups], turned[:, -groups:]
            kv = cache.kv[layer, : len(tokens)]
            kv[rows, :, lengths] = torch.cat((k, v), -1)
            seen = kv[:, :, :window].flatten(0, 1)
            scores = torch.baddbmm(
                mask, q.reshape(len(seen), -1, width), seen[..., :width].transpose(1, 2), alpha=width**-0.5
            )
            o = torch.bmm(scores.softmax(-1), seen[..., width:]).view(len(tokens), -1)
            x = x + F.linear(o, *out)
            gate, up = F.linear(F.rms_norm(x, (x.shape[-1],), eps=c.rms_norm_eps), gate_up, gate_up_bias).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, *down)
        return F.linear(F.rms_norm(x, (x.shape[-1],), eps=c.rms_norm_eps), self.head).float()
