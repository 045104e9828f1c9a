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
    """P prefilled prompts.

    keys, values: (layers, P, G, S, E) in the weights' dtype. lengths: (P,) int64.
    hidden: (P, D), the state after each prompt's last token.
    """

    keys: Tensor
    values: Tensor
    lengths: Tensor
    hidden: Tensor


def prefill(decoder: Decoder, requests: Sequence[Request]) -> Prompts:
    """One forward over right-padded prompts; a pad is behind every real token, so it is never attended to."""
    device = decoder.head_weight.device
    lengths = torch.tensor([len(r.token_ids) for r in requests], device=device)
    longest = max(len(r.token_ids) for r in requests)
    ids = torch.tensor([(*r.token_ids, *[0] * (longest - len(r.token_ids))) for r in requests], device=device)
    keys: list[Tensor] = []
    values: list[Tensor] = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys.append(k.transpose(1, 2))
        values.append(v.transpose(1, 2))
        return causal_attention(layer, q, k, v)

    hidden = decoder(ids, attend=attend)
    last = hidden[torch.arange(len(requests), device=device), lengths - 1]
    return Prompts(torch.stack(keys), torch.stack(values), lengths, last)
