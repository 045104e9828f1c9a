"""Penalties on tokens that a sample has seen, applied to logits before temperature.

Repetition divides a positive logit and multiplies a negative one, once for each id of the prompt or of what was drawn
(Keskar et al. 2019, CTRL, section 4.1; transformers' rule for negative logits). Presence and frequency subtract
``presence`` once and ``frequency`` times the count for ids that were drawn, the prompt not counted (the OpenAI API's
definition). Repetition comes first. R rows, V vocabulary, P prompt positions, T drawn positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from plum_core.sampling.params import SamplingParams


@dataclass(frozen=True, slots=True)
class Past:
    """What each row has seen. prompt: (R, P) int64, drawn: (R, T) int64, both -1 where there is none."""

    prompt: Tensor
    drawn: Tensor


class History:
    """The prompts' ids by place, kept only where a repetition penalty asks for them."""

    def __init__(self, params: SamplingParams, capacity: int, device: torch.device) -> None:
        self.needs_prompt = params.repetition_penalty != 1
        self.prompts = torch.full((capacity, 0), -1, dtype=torch.int64, device=device)

    def enter(self, place: int, token_ids: Sequence[int]) -> None:
        if self.needs_prompt:
            short = len(token_ids) - self.prompts.shape[1]
            self.prompts = F.pad(self.prompts, (0, max(0, short)), value=-1)
            self.prompts[place] = -1
            self.prompts[place, : len(token_ids)] = torch.tensor(token_ids, device=self.prompts.device)

    def of(self, places: Tensor, counts: Tensor, ids: Tensor) -> Past:
        """places, counts: (R,) int64, counts of what was drawn; ids: (places, tokens) the table of it."""
        longest = int(counts.max()) if len(counts) else 0
        drawn = ids[places, :longest]
        behind = torch.arange(longest, device=ids.device) >= counts.unsqueeze(1)
        return Past(self.prompts[places], drawn.masked_fill(behind, -1))


def penalise(logits: Tensor, past: Past, params: SamplingParams) -> Tensor:
    """(R, V) logits after the penalties of ``params``; the logits given are not changed."""
    vocabulary = logits.shape[-1]
    out = F.pad(logits, (0, 1))  # a column more for what is not there
    drawn = torch.where(past.drawn < 0, vocabulary, past.drawn)
    if params.repetition_penalty != 1:
        seen = torch.cat((torch.where(past.prompt < 0, vocabulary, past.prompt), drawn), -1)
        score = out.gather(-1, seen)
        factor = params.repetition_penalty
        out = out.scatter(-1, seen, torch.where(score < 0, score * factor, score / factor))
    if params.frequency_penalty:
        counts = torch.zeros_like(out).scatter_add(-1, drawn, torch.ones_like(drawn, dtype=out.dtype))
        out = out - params.frequency_penalty * counts
    if params.presence_penalty:
        out = out.scatter(-1, drawn, out.gather(-1, drawn) - params.presence_penalty)
    return out[:, :vocabulary].contiguous()
