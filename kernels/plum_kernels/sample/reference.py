"""The definition of ``sample_tokens``, row by row in plain torch. V vocabulary, P ids that a row has seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MASK = (1 << 64) - 1
GOLDEN, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How a token is drawn. temperature 0 is greedy; top_k 0, top_p 1, min_p 0 and penalties 1, 0, 0 are off."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    @property
    def penalises(self) -> bool:
        return self.repetition_penalty != 1 or bool(self.presence_penalty or self.frequency_penalty)


def uniform(seed: int, position: int) -> float:
    """[0, 1) from (seed, position) by SplitMix64's finaliser (Steele, Lea and Flood 2014), 53 bits."""
    x = (seed + (position + 1) * GOLDEN) & MASK
    x = ((x ^ (x >> 30)) * MIX_1) & MASK
    x = ((x ^ (x >> 27)) * MIX_2) & MASK
    return ((x ^ (x >> 31)) >> 11) * 2.0**-53


def penalised(z: Tensor, prompt: Tensor, drawn: Tensor, draw: Draw) -> Tensor:
    """(V,) logits after repetition (prompt and drawn), then frequency and presence (drawn); ids below 0 are none."""
    out = z.clone()
    prompt, drawn = prompt[prompt >= 0], drawn[drawn >= 0]
    seen = torch.cat((prompt, drawn)).unique()
    out[seen] = torch.where(z[seen] < 0, z[seen] * draw.repetition_penalty, z[seen] / draw.repetition_penalty)
    counts = torch.bincount(drawn, minlength=len(z)).to(z.dtype)
    return out - draw.frequency_penalty * counts - draw.presence_penalty * (counts > 0)


def least_kept(z: Tensor, draw: Draw) -> Tensor:
    """The lowest logit that the filters keep: each of them keeps a prefix of the sorted logits, ties included.

    Top-p counts weights after temperature, and of what top-k keeps; a prefix is the shortest that reaches top_p.
    """
    least = z.amin()
    if draw.top_k and draw.top_k < len(z):
        least = z.topk(draw.top_k).values[-1]
    if draw.top_p < 1:
        ordered = z[z >= least].sort(descending=True).values
        weights = ((ordered - ordered[0]).double() / draw.temperature).exp()
        reached = weights.cumsum(0) >= draw.top_p * weights.sum()
        least = ordered[int(reached.int().argmax())]
    if draw.min_p:
        least = torch.maximum(least, z.amax() + draw.temperature * math.log(draw.min_p))
    return least


def reference_sample_tokens(
    logits: Tensor, seeds: Tensor, positions: Tensor, draw: Draw, prompt: Tensor, drawn: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``interface.sample_tokens``, weights and sums in fp64."""
    tokens, logps, sampled = [], [], []
    for row, z in enumerate(logits.float()):
        changed = penalised(z, prompt[row], drawn[row], draw) if draw.penalises else z
        if draw.temperature == 0:
            token, chance = int(changed.argmax()), 0.0
        else:
            kept = changed >= least_kept(changed, draw)
            scaled = (changed - changed.amax()).double() / draw.temperature
            weights = torch.where(kept, scaled.exp(), 0.0)
            ends = weights.cumsum(0)
            target = uniform(int(seeds[row]), int(positions[row])) * ends[-1]
            token = min(int((ends <= target).sum()), int(kept.nonzero()[-1]))
            chance = float(scaled[token] - ends[-1].log())
        tokens.append(token)
        sampled.append(chance)
        logps.append(float(z.double().log_softmax(-1)[token]))
    device = logits.device
    chances = torch.tensor([logps, sampled], dtype=torch.float32, device=device)
    return torch.tensor(tokens, dtype=torch.int64, device=device), chances[0], chances[1]
