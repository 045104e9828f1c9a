"""Log-probs that the tests of objectives share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# how far log-ratios spread, row by row in turn; a saturated batch holds pairs that still have a gradient
KINDS = {"ordinary": (3.0, 2.0, 1.0), "at initialisation": (0.0,), "saturated": (1e4, 3.0, 1e3)}
PAIRS, WIDTH = 7, 9


class Pairs(NamedTuple):
    """fp64; rows are the chosen, then the rejected."""

    tokens: Tensor  # (2B, T) log-prob of each token, 0 past the length
    ref: Tensor  # (2B,) sums under the reference
    lengths: Tensor  # (2B,) int64


def token_pairs(kind: str, seed: int = 0, *, equal: bool = False) -> Pairs:
    """``equal``: all chosen are of one length, so that a mean over tokens is a mean of means."""
    spread = torch.tensor(KINDS[kind], dtype=torch.float64)
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, WIDTH + 1, (2 * PAIRS,), generator=g)
    if equal:
        lengths[:PAIRS] = 5
    inside = torch.arange(WIDTH) < lengths.unsqueeze(1)
    ref = -2 * torch.rand(2 * PAIRS, WIDTH, generator=g, dtype=torch.float64) * inside
    # log-probs stay below 0: a saturated ratio comes from either side being very unlikely
    noise = torch.randn(2 * PAIRS, 1, generator=g, dtype=torch.float64)
    noise = noise * spread[torch.arange(2 * PAIRS) % len(spread)].unsqueeze(1)
    gap = noise / lengths.unsqueeze(1) * inside
    return Pairs(ref + gap.clamp(max=0), (ref - gap.clamp(min=0)).sum(1), lengths)


def sums(pairs: Pairs, tokens: Tensor) -> dict[str, Tensor]:
    """What the objectives of pairs take, by name, from the log-probs of tokens."""
    inside = torch.arange(WIDTH) < pairs.lengths.unsqueeze(1)
    chosen, rejected = (tokens * inside).sum(1).chunk(2)
    ref_chosen, ref_rejected = pairs.ref.chunk(2)
    chosen_lengths, rejected_lengths = pairs.lengths.chunk(2)
    return {
        "chosen_logps": chosen,
        "rejected_logps": rejected,
        "ref_chosen_logps": ref_chosen,
        "ref_rejected_logps": ref_rejected,
        "chosen_lengths": chosen_lengths,
        "rejected_lengths": rejected_lengths,
    }
