"""Pairwise objectives without a reference policy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from plum_core.objectives.objective import Objective, check_same_length
from plum_core.objectives.pairs import check_smoothing, free_of_reference

# nats a token; nearer to certainty the odds would leave fp32, and their gradient is cut off here
CERTAIN = -1e-6


def cpo(
    chosen_logps: Tensor,  # (B,) summed over tokens
    rejected_logps: Tensor,  # (B,)
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Objective:
    """Contrastive preferences (Xu et al. 2024, arXiv 2401.08417, eq. 5): DPO with a uniform reference.

    The paper adds the chosen's NLL (eq. 7), which training has as ``nll_weight``.
    """
    p = free_of_reference(chosen_logps, rejected_logps, beta)
    check_smoothing(label_smoothing)
    margins = beta * (p.chosen - p.rejected)
    losses = -(1 - label_smoothing) * F.logsigmoid(margins) - label_smoothing * F.logsigmoid(-margins)
    return p.objective(losses, beta)


def simpo(
    chosen_logps: Tensor,  # (B,) summed over tokens
    rejected_logps: Tensor,  # (B,)
    *,
    chosen_lengths: Tensor,  # (B,) scored tokens of each completion, >= 1
    rejected_lengths: Tensor,  # (B,)
    beta: float = 2.0,
    gamma: float = 1.0,
    label_smoothing: float = 0.0,
) -> Objective:
    """Meng et al. 2024, arXiv 2405.14734, eq. 6: -log sigmoid(beta (mean chosen - mean rejected) - gamma).

    ``gamma`` is the margin that is asked for, in units of the loss's argument as the paper writes it; TRL divides
    its ``simpo_gamma`` by beta first and multiplies again, which is the same number.
    """
    check_same_length(chosen_logps=chosen_logps, chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    p = free_of_reference(chosen_logps / chosen_lengths, rejected_logps / rejected_lengths, beta)
    check_smoothing(label_smoothing)
    margins = beta * (p.chosen - p.rejected) - gamma
    losses = -(1 - label_smoothing) * F.logsigmoid(margins) - label_smoothing * F.logsigmoid(-margins)
    return p.objective(losses, beta)


def orpo(
    chosen_logps: Tensor,  # (B,) summed over tokens
    rejected_logps: Tensor,  # (B,)
    *,
    chosen_lengths: Tensor,  # (B,) scored tokens of each completion, >= 1
    rejected_lengths: Tensor,  # (B,)
    beta: float = 0.1,
) -> Objective:
    """beta times the odds ratio's loss (Hong et al. 2024, arXiv 2403.07691, eq. 7), of log-probs a token:

    -log sigmoid(log odds(chosen) - log odds(rejected)), odds(p) = p / (1 - p). The paper adds the chosen's NLL with
    weight 1 (eq. 6), which training has as ``nll_weight``.
    """
    check_same_length(chosen_logps=chosen_logps, chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    p = free_of_reference(chosen_logps / chosen_lengths, rejected_logps / rejected_lengths, beta)
    return p.objective(-beta * F.logsigmoid(_log_odds(p.chosen) - _log_odds(p.rejected)), beta)


def _log_odds(mean_logps: Tensor) -> Tensor:
    x = mean_logps.clamp(max=CERTAIN)
    return x - torch.log(-torch.expm1(x))
