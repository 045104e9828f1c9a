"""Losses that judge the two completions of a pair each for itself, by its own log-ratio."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from plum_core.objectives.objective import Objective
from plum_core.objectives.pairs import ratios


def nca(
    chosen_logps: Tensor,  # (B,) summed over tokens, as everywhere below
    rejected_logps: Tensor,  # (B,)
    ref_chosen_logps: Tensor,  # (B,)
    ref_rejected_logps: Tensor,  # (B,)
    *,
    beta: float = 0.1,
) -> Objective:
    """Noise contrastive alignment of pairs (Chen et al. 2024, arXiv 2402.05369, section 5.1), rewards c and r:

    -log sigmoid(c) - (log sigmoid(-c) + log sigmoid(-r)) / 2. It keeps the chosen from becoming less likely.
    """
    p = ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    c, r = beta * p.chosen, beta * p.rejected
    return p.objective(-F.logsigmoid(c) - 0.5 * F.logsigmoid(-c) - 0.5 * F.logsigmoid(-r), beta)


def bco(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
) -> Objective:
    """Binary classifier optimisation of pairs (Jung et al. 2024, arXiv 2404.04656, eq. 8 without its reward shift):

    -log sigmoid(c) - log sigmoid(-r), rewards c and r.
    """
    p = ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    return p.objective(-F.logsigmoid(beta * p.chosen) - F.logsigmoid(-beta * p.rejected), beta)


def sppo(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
) -> Objective:
    """Self-play preference optimisation with hard labels (Wu et al. 2024, arXiv 2405.00675, eq. 4.7, P = 1 and 0):

    (chosen - 1 / (2 beta))**2 + (rejected + 1 / (2 beta))**2 of the log-ratios.
    """
    p = ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    return p.objective((p.chosen - 0.5 / beta) ** 2 + (p.rejected + 0.5 / beta) ** 2, beta)


def apo_zero(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
) -> Objective:
    """Anchored preferences (D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7), for chosen better than the policy:

    1 - sigmoid(c) + sigmoid(r), rewards c and r.
    """
    p = ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    # 1 - sigmoid(x) is written sigmoid(-x): the same number, and still not 0 where 1 - sigmoid(x) rounds to 0
    return p.objective(torch.sigmoid(-beta * p.chosen) + torch.sigmoid(beta * p.rejected), beta)


def apo_down(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
) -> Objective:
    """Anchored preferences (the same, eq. 8), for chosen worse than the policy: sigmoid(c) + 1 - sigmoid(c - r)."""
    p = ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    return p.objective(torch.sigmoid(beta * p.chosen) + torch.sigmoid(-beta * (p.chosen - p.rejected)), beta)
