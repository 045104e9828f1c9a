"""Weighted preference optimisation (Zhou et al. 2024, arXiv 2406.11827)."""

from __future__ import annotations

import torch
from torch import Tensor

from plum_core.objectives.dpo import dpo
from plum_core.objectives.objective import Objective, check_same_length


def wpo(
    chosen_logps: Tensor,  # (B,) summed over tokens
    rejected_logps: Tensor,  # (B,)
    ref_chosen_logps: Tensor,  # (B,)
    ref_rejected_logps: Tensor,  # (B,)
    *,
    chosen_alignment: Tensor,  # (B,) mean over tokens of log(p_t / sum over the vocabulary of p**2), nats
    rejected_alignment: Tensor,  # (B,)
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Objective:
    """Eq. 2: DPO's loss times exp(chosen alignment) * exp(rejected alignment), (B,).

    A pair counts by how likely the policy is to write it: p_t is the policy's probability of the token, and the
    sum of squares is what a token that the policy drew would have on average ("sampled alignment"). Nothing is
    propagated through the weights. Raises ValueError as ``dpo`` does.
    """
    check_same_length(
        chosen_logps=chosen_logps, chosen_alignment=chosen_alignment, rejected_alignment=rejected_alignment
    )
    losses, metrics = dpo(
        chosen_logps,
        rejected_logps,
        ref_chosen_logps,
        ref_rejected_logps,
        beta=beta,
        label_smoothing=label_smoothing,
    )
    weights = torch.exp(chosen_alignment.detach()) * torch.exp(rejected_alignment.detach())
    return Objective(losses * weights, metrics | {"weights": weights})
