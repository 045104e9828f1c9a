"""``preference_loss`` in plain torch: sums over tokens, the formula, autograd. No host synchronisation either.

Letters in shapes: T tokens, S sequences, B pairs (S / 2), L losses (B, or S for single verdicts).
"""

from __future__ import annotations

import torch
from torch import Tensor

from plum_kernels.preference.formulas import SPECS, Given, Options, Sums, pair_weights, single_loss, smoothed


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
    spec, count = SPECS[objective], len(cu_seqlens) - 1
    owner = sequence_of(len(logps), cu_seqlens)
    keep = torch.ones_like(logps) if given.scored is None else given.scored.to(logps.dtype)
    count_of = keep if given.weights is None else torch.where(keep > 0, given.weights, 0.0)
    policy = _sums(torch.where(keep > 0, logps, 0.0) * count_of, owner, count)
    lengths = _sums(keep, owner, count).clamp(min=1)
    reference = torch.zeros_like(policy)
    if given.reference is not None:
        reference = _sums(torch.where(keep > 0, given.reference, 0.0) * count_of, owner, count)
    ratio = policy - reference
    rewards = options["beta"] * (ratio / lengths if spec.means else ratio).detach()
    shown = torch.stack((rewards, (policy / lengths if spec.means else policy).detach()))
    if spec.single:
        assert given.desirable is not None
        point = ratio.new_zeros(()) if given.point is None else given.point.to(ratio.dtype)
        return single_loss(objective, ratio, given.desirable, point, options), shown
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
