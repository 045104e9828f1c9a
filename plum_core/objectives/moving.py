"""TR-DPO's moving reference (Gorbatovski et al. 2024, arXiv 2404.09656, section 3): the rule on named weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


@torch.no_grad()
def mix_weights(reference: Mapping[str, Tensor], policy: Mapping[str, Tensor], alpha: float) -> None:
    """reference = alpha * policy + (1 - alpha) * reference for every weight, in place.

    Eq. 4 (soft update, the paper's alpha is 0.6); alpha 1 is eq. 5's hard update, a copy to the last bit. Raises
    ValueError for names or shapes that differ, or alpha outside (0, 1].
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must be in (0, 1], got {alpha}: at 0 the reference stands still")
    for name in sorted(reference.keys() ^ policy.keys()):
        holder = "the reference" if name in reference else "the policy"
        raise ValueError(f"reference and policy must be of one architecture: {name} is only in {holder}")
    for name, old in reference.items():
        if old.shape != policy[name].shape:
            raise ValueError(
                f"reference and policy must be of one architecture: {name} is {tuple(old.shape)} in the reference and "
                f"{tuple(policy[name].shape)} in the policy"
            )
    for name, old in reference.items():
        new = policy[name].to(old)
        old.copy_(new if alpha == 1 else alpha * new + (1.0 - alpha) * old)
