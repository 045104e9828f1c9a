"""Prefill: several prompts in one right-padded forward, their keys and values kept for all of their samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from plum_core.sampling.params import Request
from plum_models.attention import causal
from plum_models.config import DecoderConfig
from plum_models.decoder import Decoder


@dataclass(frozen=True, slots=True)
class Prompts:
    """Keys and values of P prompts: kv (2, layers, P, G, S, E) in the weights' dtype; lengths (P,) int64."""

    kv: Tensor
    lengths: Tensor

    @classmethod
    def none(cls, c: DecoderConfig, like: Tensor) -> Prompts:
        kv = like.new_empty((2, c.num_hidden_layers, 0, c.num_key_value_heads, 0, c.head_dim))
        return cls(kv, torch.zeros(0, dtype=torch.int64, device=like.device))

    def select(self, which: Sequence[int]) -> Prompts:
        index = torch.tensor(which, dtype=torch.int64, device=self.lengths.device)
        lengths = self.lengths[index]
        longest = int(lengths.max()) if which else 0
        return Prompts(self.kv[..., :longest, :].index_select(2, index), lengths)

    def join(self, other: Prompts) -> Prompts:
        longest = max(self.kv.shape[4], other.kv.shape[4])
        both = [F.pad(p.kv, (0, 0, 0, longest - p.kv.shape[4])) for p in (self, other)]
        return Prompts(torch.cat(both, 2), torch.cat((self.lengths, other.lengths)))


def prefill(decoder: Decoder, requests: Sequence[Request], alone: bool = False) -> tuple[Prompts, Tensor]:
    """The prompts, and (P, D) the state after each one's last token.

    One forward over right-padded prompts: a pad is behind every real token, so it is never attended to. alone: a
    forward for each, where no bit may depend on the others.
    """
    if alone and len(requests) > 1:
        prompts, states = prefill(decoder, requests[:1])
        for request in requests[1:]:
            more, state = prefill(decoder, [request])
            prompts, states = prompts.join(more), torch.cat((states, state))
        return prompts, states
    device = decoder.head_weight.device
    lengths = torch.tensor([len(r.token_ids) for r in requests], device=device)
    longest = max(len(r.token_ids) for r in requests)
    ids = torch.tensor([(*r.token_ids, *[0] * (longest - len(r.token_ids))) for r in requests], device=device)
    kv: list[Tensor] = []
    own = causal(decoder.config)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        kv.append(torch.stack((k, v)).transpose(2, 3))
        return own(layer, q, k, v)

    hidden = decoder(ids, attend=attend)
    last = hidden[torch.arange(len(requests), device=device), lengths - 1]
    return Prompts(torch.stack(kv, 1), lengths), last
