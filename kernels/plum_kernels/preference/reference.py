"""``preference_loss`` in plain torch: sums over tokens, the formula, autograd. No host synchronisation either.

Letters in shapes: T tokens, S sequences, B pairs (S / 2), L losses (B, or S for single verdicts).
"""

from __future__ import annotations

import torch
from torch import Tensor

from plum_kernels.preference.formulas import SPECS, Given, Options, Sums, pair_weights, single_loss, smoothed
from plum_kernels.preference.slopes import pair_slopes, single_slopes


def sequence_of(tokens: int, cu_seqlens: Tensor) -> Tensor:
    """(T,) the sequence of each token; S for tokens before the first and past the last."""
    at = torch.arange(tokens, device=cu_seqlens.device, dtype=cu_seqlens.dtype)
    owner = torch.searchsorted(cu_seqlens.contiguous(), at, right=True) - 1
    return torch.where(owner < 0, len(cu_seqlens) - 1, owner)


def _sums(values: Tensor, owner: Tensor, sequences: int) -> Tensor:
    """(S,) sums over each sequence; what belongs to none falls into a last place that is cut off."""
    return values.new_zeros(sequences + 1).index_add(0, owner, values)[:sequences]


def reference_preference_loss(
    logps: Tensor,  # (T,) fp32 or fp64
    cu_seqlens: Tensor,  # (S + 1,)
    given: Given,
    objective: str,
    options: Options,
) -> tuple[Tensor, Tensor]:
    """Losses (L,), and (2, S) detached: rewards and log-probs of each sequence."""
    spec = SPECS[objective]
    owner = sequence_of(len(logps), cu_seqlens)
    policy, reference, lengths, _ = _reduce(logps, owner, len(cu_seqlens) - 1, given)
    ratio = policy - reference
    rewards = options["beta"] * (ratio / lengths if spec.means else ratio).detach()
    shown = torch.stack((rewards, (policy / lengths if spec.means else policy).detach()))
    if spec.single:
        assert given.desirable is not None
        return single_loss(objective, ratio, given.desirable, _point(given, ratio), options), shown
    pairs = Sums(ratio[0::2], ratio[1::2], lengths[0::2], lengths[1::2])
    if objective == "aot":
        mine, theirs = policy[0::2] - policy[1::2], reference[0::2] - reference[1::2]
        margin = mine.sort().values - theirs.sort().values
    elif objective == "aot_unpaired":
        margin = pairs.c.sort().values - pairs.r.sort().values
    else:
        losses = spec.loss(pairs, options)
        return losses if given.alignment is None else losses * pair_weights(given.alignment), shown
    return smoothed(options["beta"] * margin, options["label_smoothing"]), shown


def token_slopes(logps: Tensor, cu_seqlens: Tensor, given: Given, objective: str, options: Options) -> Tensor:
    """(T,) d loss / d logp of each token's own loss, written out; not for aot and aot_unpaired."""
    spec, sequences = SPECS[objective], len(cu_seqlens) - 1
    owner = sequence_of(len(logps), cu_seqlens)
    policy, reference, lengths, weights = _reduce(logps, owner, sequences, given)
    ratio = policy - reference
    slopes = ratio.new_zeros(sequences + 1)  # the last place is of tokens without a sequence
    if spec.single:
        assert given.desirable is not None
        slopes[:sequences] = single_slopes(objective, ratio, given.desirable, _point(given, ratio), options)
    else:
        pairs = Sums(ratio[0::2], ratio[1::2], lengths[0::2], lengths[1::2])
        scale = 1.0 if given.alignment is None else pair_weights(given.alignment)
        slopes[0:sequences:2], slopes[1:sequences:2] = (s * scale for s in pair_slopes(objective, pairs, options))
    return slopes[owner] * weights


def _point(given: Given, ratio: Tensor) -> Tensor:
    return ratio.new_zeros(()) if given.point is None else given.point.to(ratio.dtype)


def _reduce(logps: Tensor, owner: Tensor, count: int, given: Given) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weighted sums of policy and reference (S,), scored tokens (S,) at least 1, what each token counts (T,)."""
    keep = torch.ones_like(logps) if given.scored is None else given.scored.to(logps.dtype)
    weights = keep if given.weights is None else torch.where(keep > 0, given.weights, 0.0)
    policy = _sums(torch.where(keep > 0, logps, 0.0) * weights, owner, count)
    reference = torch.zeros_like(policy)
    if given.reference is not None:
        reference = _sums(torch.where(keep > 0, given.reference, 0.0) * weights, owner, count)
    return policy, reference, _sums(keep, owner, count).clamp(min=1), weights
