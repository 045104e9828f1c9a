"""One token a row from its logits: counter-based uniforms and an inverse-CDF draw. R rows, V vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

from plum_core.sampling.params import SamplingParams

BLOCK = 64  # of the two-level draw: block sums first, then inside the one block that was chosen


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


GOLDEN, MIX_1, MIX_2 = (_signed(v) for v in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _xor_shift(x: Tensor, by: int) -> Tensor:
    return x ^ ((x >> by) & ((1 << (64 - by)) - 1))  # int64 shifts carry the sign: mask it off


def uniform(seeds: Tensor, positions: Tensor) -> Tensor:
    """(R,) float64 in [0, 1) from (seed, position) by SplitMix64's finaliser (Steele, Lea and Flood 2014).

    seeds, positions: (R,) int64. A function of the two alone: neither batch nor row nor step order enters.
    """
    x = seeds + (positions + 1) * GOLDEN
    x = _xor_shift(x, 30) * MIX_1
    x = _xor_shift(x, 27) * MIX_2
    x = _xor_shift(x, 31)
    return ((x >> 11) & ((1 << 53) - 1)).double() * 2.0**-53


def keep_top(logits: Tensor, params: SamplingParams) -> Tensor:
    """(R, V) logits with those outside top-k and the top-p nucleus (Holtzman et al. 2020) at minus infinity."""
    if params.top_k and params.top_k < logits.shape[-1]:
        least = logits.topk(params.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if params.top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        probs = ordered.softmax(-1)
        outside = probs.cumsum(-1) - probs >= params.top_p  # the first token is always inside
        logits = torch.full_like(logits, -torch.inf).scatter(-1, order, ordered.masked_fill(outside, -torch.inf))
    return logits


def inverse_cdf(weights: Tensor, u: Tensor) -> Tensor:
    """(R,) int64 draws from unnormalised (R, V) fp32 weights at quantiles ``u``, in two levels.

    Sums of blocks first, so that only one block of each row is accumulated token by token.
    """
    rows, vocab = weights.shape
    short = -vocab % BLOCK
    if short:
        weights = torch.nn.functional.pad(weights, (0, short))
    blocks = weights.view(rows, -1, BLOCK)
    ends = blocks.sum(-1).double().cumsum(-1)
    target = (u * ends[:, -1]).unsqueeze(-1)
    block = (ends <= target).sum(-1, keepdim=True).clamp_(max=ends.shape[-1] - 1)
    inside = blocks.gather(1, block.unsqueeze(-1).expand(-1, 1, BLOCK)).squeeze(1)
    start = ends.gather(-1, block) - inside.double().sum(-1, keepdim=True)
    token = (inside.double().cumsum(-1) + start <= target).sum(-1)
    # rounding may point past the last token that has any weight
    last = torch.where(inside > 0, torch.arange(BLOCK), -1).amax(-1)
    return block.squeeze(-1) * BLOCK + torch.minimum(token, last)


def draw(logits: Tensor, seeds: Tensor, positions: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """One token a row and its log-prob under the untempered distribution.

    logits: (R, V) fp32; seeds, positions: (R,) int64. Returns (R,) int64 and (R,) fp32.
    """
    weights = torch.exp(logits - logits.amax(-1, keepdim=True))
    if params.temperature == 0:
        token = logits.argmax(-1)
    elif params.temperature == 1 and not params.top_k and params.top_p == 1:
        token = inverse_cdf(weights, uniform(seeds, positions))
    else:
        kept = keep_top(logits / params.temperature, params)
        token = inverse_cdf(torch.exp(kept - kept.amax(-1, keepdim=True)), uniform(seeds, positions))
    chosen = weights.gather(-1, token.unsqueeze(-1)).squeeze(-1)
    return token, chosen.log() - weights.sum(-1).log()
