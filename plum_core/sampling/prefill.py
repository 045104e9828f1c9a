"""Prefill: several prompts in one right-padded forward, their keys and values kept for all of their samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from plum_core.sampling.params import Request
from plum_models.decoder import Decoder, causal_attention


@dataclass(frozen=True, slots=True)
class Prompts:
    """P prefilled prompts: keys and values (layers, P, G, S, 2E), lengths (P,), logits (P, V) fp32 after each."""

    kv: Tensor
    lengths: Tensor
    logits: Tensor


def prefill(decoder: Decoder, requests: Sequence[Request]) -> Prompts:
    """One forward over right-padded prompts; a pad is behind every real token, so it is never attended to."""
    device = decoder.embed_tokens.weight.device
    lengths = torch.tensor([len(r.token_ids) for r in requests], device=device)
    ids = torch.zeros((len(requests), int(lengths.max())), dtype=torch.int64, device=device)
    for row, request in enumerate(requests):
        ids[row, : len(request.token_ids)] = torch.tensor(request.token_ids)
    kept: list[Tensor] = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        kept.append(torch.cat((k, v), -1).transpose(1, 2))
        return causal_attention(layer, q, k, v)

    hidden = decoder(ids, attend=attend)
    last = hidden[torch.arange(len(requests), device=device), lengths - 1]
    return Prompts(torch.stack(kept), lengths, decoder.logits(last).float())
