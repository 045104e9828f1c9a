"""From verdicts to advantages: groups of samples of one instruction, compared with each other.

P instructions, K samples each. A reward is a verdict's (1 passed, 0 failed, or a share of tests); NaN where there is
none, which is what a sandbox error leaves: such a sample gets advantage 0 and moves no baseline.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def _check_groups(rewards: Tensor) -> None:
    if rewards.dim() != 2 or not rewards.is_floating_point():
        raise ValueError(
            f"rewards must be (P, K) and floating-point, got {tuple(rewards.shape)} {rewards.dtype}: a row an "
            "instruction, NaN where a sample has no verdict"
        )


def _spread(rewards: Tensor) -> Tensor:
    """(P, 1) sample standard deviation of each row over its verdicts; 0 where there are fewer than two."""
    scored = ~rewards.isnan()
    counts = scored.sum(1, keepdim=True)
    centred = torch.where(scored, rewards - rewards.nanmean(1, keepdim=True), 0.0)
    return (centred.square().sum(1, keepdim=True) / (counts - 1).clamp(min=1)).sqrt()


def informative_groups(rewards: Tensor) -> Tensor:
    """(P, K) to (P,) bool: groups whose verdicts differ; the others teach a policy gradient nothing.

    DAPO's dynamic sampling (Yu et al. 2025, arXiv 2503.14476, eq. 11) draws until only such groups remain.
    """
    _check_groups(rewards)
    filled = rewards.isnan()
    high = rewards.masked_fill(filled, -torch.inf).amax(1)
    low = rewards.masked_fill(filled, torch.inf).amin(1)
    return high > low


def group_advantages(rewards: Tensor, *, scale: Literal["group", "batch", "none"] = "group") -> Tensor:
    """GRPO's (Shao et al. 2024, arXiv 2402.03300, section 4.1.2): (reward - mean) / (std + 1e-4), (P, K).

    scale: the standard deviation of the ``group``, of the whole ``batch``, or ``none`` (Dr. GRPO, Liu et al. 2025,
    arXiv 2503.20783). The sample standard deviation and the 1e-4 are TRL's. A group of equal rewards has
    advantages of exactly 0. Raises ValueError for another shape, dtype or scale.
    """
    _check_groups(rewards)
    if scale not in ("group", "batch", "none"):
        raise ValueError(f"scale must be group, batch or none, got {scale!r}")
    advantages = rewards - rewards.nanmean(1, keepdim=True)
    if scale == "group":
        advantages = advantages / (_spread(rewards) + 1e-4)
    elif scale == "batch":
        advantages = advantages / (_spread(rewards.reshape(1, -1)) + 1e-4)
    # the mean of equal numbers can be off by a rounding, which 1e-4 would blow up
    return torch.where(informative_groups(rewards).unsqueeze(1), advantages, 0.0).nan_to_num(nan=0.0)


def leave_one_out_advantages(rewards: Tensor, *, normalise: bool = False) -> Tensor:
    """RLOO's (Ahmadian et al. 2024, arXiv 2402.14740): reward - mean of the group's others, (P, K).

    ``normalise``: then to mean 0 and standard deviation 1 over all samples that have a baseline, as TRL's option
    does. A sample without another verdict in its group has no baseline, and advantage 0. Raises ValueError for
    another shape or dtype.
    """
    _check_groups(rewards)
    counts = (~rewards.isnan()).sum(1, keepdim=True)
    others = (rewards.nansum(1, keepdim=True) - rewards) / (counts - 1)
    advantages = torch.where(counts > 1, rewards - others, torch.nan)
    advantages = torch.where(informative_groups(rewards).unsqueeze(1) | advantages.isnan(), advantages, 0.0)
    if normalise:
        flat = advantages.reshape(1, -1)
        advantages = (advantages - flat.nanmean()) / (_spread(flat) + 1e-4)
    return advantages.nan_to_num(nan=0.0)


def overlong_penalty(lengths: Tensor, *, limit: int, margin: int) -> Tensor:
    """DAPO's soft punishment (eq. 13), to be added to rewards: 0 to -1 over the last ``margin`` tokens.

    lengths: completions' tokens, any shape. 0 up to limit - margin, then linear to -1 at ``limit``, -1 beyond.
    Raises ValueError unless 0 < margin <= limit.
    """
    if not 0 < margin <= limit:
        raise ValueError(f"margin must be in (0, limit], got {margin} of {limit}")
    return ((limit - margin - lengths) / margin).clamp(min=-1.0, max=0.0)
