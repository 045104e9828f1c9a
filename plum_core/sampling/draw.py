"""One token a row from its hidden state: counter-based uniforms and an inverse-CDF draw. R rows, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from plum_core.sampling.gpu_draw import gpu_draw
from plum_core.sampling.params import SamplingParams
from plum_core.sampling.penalties import Past, penalise
from plum_core.sampling.products import Compiled
from plum_kernels.cpu_decode.interface import draw as cpu_draw
from plum_models.attention import soft_cap

BLOCK = 64  # of the two-level draw: block sums first, then inside the one block that was chosen
LOG2_E = 1 / math.log(2)
CACHED_BYTES = 2**20  # logits in work at once where the head's matrix is small enough to be read again
SMALL_HEAD_BYTES = 2**22
WIDENED = 4  # times CACHED_BYTES: fewer, and the calls weigh more than the cache saves


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
    """(R, V) logits with those outside top-k, the top-p nucleus (Holtzman et al. 2020) and min-p at minus infinity."""
    if params.top_k and params.top_k < logits.shape[-1]:
        least = logits.topk(params.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if params.top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        probs = ordered.softmax(-1)
        outside = probs.cumsum(-1) - probs >= params.top_p  # the first token is always inside
        logits = torch.full_like(logits, -torch.inf).scatter(-1, order, ordered.masked_fill(outside, -torch.inf))
    if params.min_p:
        logits = logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(params.min_p), -torch.inf)
    return logits


def inverse_cdf(weights: Tensor, block_sums: Tensor, u: Tensor) -> Tensor:
    """(R,) int64 draws from unnormalised fp32 weights (R, N, BLOCK) with sums (R, N) at quantiles ``u`` (R,).

    Two levels, so that only one block of each row is accumulated token by token.
    """
    ends = block_sums.double().cumsum(-1)
    target = (u * ends[:, -1]).unsqueeze(-1)
    block = (ends <= target).sum(-1, keepdim=True).clamp_(max=ends.shape[-1] - 1)
    inside = weights.gather(1, block.unsqueeze(-1).expand(-1, 1, BLOCK)).squeeze(1).double()
    start = ends.gather(-1, block) - block_sums.gather(-1, block)
    token = (inside.cumsum(-1) + start <= target).sum(-1)
    # rounding may point past the last token that has any weight
    last = torch.where(inside > 0, torch.arange(BLOCK, device=weights.device), -1).amax(-1)
    return block.squeeze(-1) * BLOCK + torch.minimum(token, last)


def exponentials_(logits: Tensor) -> tuple[Tensor, Tensor]:
    """exp(logits - maximum) as (R, N, BLOCK) blocks, and their sums (R, N), both fp32; overwrites the logits.

    By exp2: torch's is several times faster on CPUs than its exp. Zeros fill the last block.
    """
    weights = logits.sub_(logits.amax(-1, keepdim=True)).mul_(LOG2_E).exp2_()
    if weights.shape[-1] % BLOCK:
        weights = F.pad(weights, (0, -weights.shape[-1] % BLOCK))
    weights = weights.unflatten(-1, (-1, BLOCK))
    return weights, weights.sum(-1)


def _chosen(weights: Tensor, sums: Tensor, token: Tensor) -> Tensor:
    return weights.flatten(1).gather(-1, token.unsqueeze(-1)).squeeze(-1).log() - sums.sum(-1).log()


def draw_(
    logits: Tensor, seeds: Tensor, positions: Tensor, params: SamplingParams, past: Past | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """One token a row, its log-prob under the untempered and under the sampled distribution; overwrites the logits.

    logits: (R, V) fp32; seeds, positions: (R,) int64. past: what penalties count, given where ``params`` has any.
    Returns (R,) int64, (R,) fp32, (R,) fp32.
    """
    if params.temperature == 1 and not params.filters and past is None:
        weights, sums = exponentials_(logits)
        token = inverse_cdf(weights, sums, uniform(seeds, positions))
        logprob = _chosen(weights, sums, token)
        return token, logprob, logprob
    penalised = logits if past is None else penalise(logits, past, params)
    if params.temperature == 0:
        token = penalised.argmax(-1)
        sampled = torch.zeros(len(token), device=token.device)
    else:
        kept = exponentials_(keep_top(penalised / params.temperature, params))
        token = inverse_cdf(*kept, uniform(seeds, positions))
        sampled = _chosen(*kept, token)
    chosen = logits.gather(-1, token.unsqueeze(-1)).squeeze(-1) - logits.amax(-1)
    return token, chosen - exponentials_(logits)[1].sum(-1).log(), sampled


def draw_tokens(
    hidden: Tensor,
    head: Tensor,
    seeds: Tensor,
    positions: Tensor,
    params: SamplingParams,
    softcap: float | None = None,
    past: Past | None = None,
    product: Callable[[Tensor], Tensor] | None = None,
    native: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """``draw_`` with logits = hidden @ head.T, some rows at a time so that their logits stay in the cache.

    hidden: (R, D); head: (V, D). softcap: logits z become softcap * tanh(z / softcap). product: what multiplies by the
    head where F.linear does not. native: by the compiled draw where ``params`` have neither filters nor penalties, with
    a compiled product inside it where there is one and no cap. A head that is itself larger than a cache is read once
    for all rows. On a GPU all rows are drawn in one launch.
    """
    unfiltered = past is None and not params.filters
    if native and unfiltered and softcap is None and isinstance(product, Compiled):
        return product.matrix.draw(hidden, seeds.contiguous(), positions.contiguous(), params.temperature)
    small = head.numel() * head.element_size() <= SMALL_HEAD_BYTES
    cached = max(1, CACHED_BYTES // (4 * len(head)))
    parts = []
    for rows in _slices(len(hidden), cached if small and not hidden.is_cuda else len(hidden)):
        logits = F.linear(hidden[rows], head) if product is None else product(hidden[rows])
        if logits.is_cuda:
            return gpu_draw(soft_cap(logits, softcap), seeds, positions, params, past)
        # logits of two bytes are widened for the draw: few at a time, where all of them would pass through memory
        whole = small or logits.dtype == torch.float32 or native
        drawn = _slices(len(logits), len(logits) if whole else WIDENED * cached)
        for some in drawn:
            at = slice(rows.start + some.start, rows.start + some.stop)
            if native and unfiltered:
                capped = soft_cap(logits[some], softcap)
                parts.append(cpu_draw(capped, seeds[at].contiguous(), positions[at].contiguous(), params.temperature))
                continue
            before = None if past is None else Past(past.prompt[at], past.drawn[at])
            parts.append(draw_(soft_cap(logits[some], softcap).float(), seeds[at], positions[at], params, before))
    if len(parts) == 1:
        return parts[0]
    tokens, logprobs, sampled = zip(*parts, strict=True)
    return torch.cat(tokens), torch.cat(logprobs), torch.cat(sampled)


def _slices(count: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, count)) for first in range(0, count, max(1, size))]
