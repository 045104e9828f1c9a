"""Losses of one number a pair: the difference of its two log-ratios, d = chosen - rejected."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from plum_core.objectives.objective import Objective, check_same_length
from plum_core.objectives.pairs import check_not_negative, check_positive, check_smoothing, ratios


def hinge(
    chosen_logps: Tensor,  # (B,) summed over tokens, as everywhere below
    rejected_logps: Tensor,  # (B,)
    ref_chosen_logps: Tensor,  # (B,)
    ref_rejected_logps: Tensor,  # (B,)
    *,
    beta: float = 0.1,
) -> Objective:
    """max(0, 1 - beta d): SLiC's loss (Zhao et al. 2023, arXiv 2305.10425, eq. 2) on DPO's margin."""
    r = ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    return r.objective(torch.relu(1 - beta * (r.chosen - r.rejected)), beta)


def robust_dpo(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.1,
) -> Objective:
    """DPO's loss unbiased for labels of which a share e is flipped (Chowdhury et al. 2024, arXiv 2403.00409, eq. 12):

    ((1 - e) -log sigmoid(beta d) - e -log sigmoid(-beta d)) / (1 - 2 e), e = ``label_smoothing`` in [0, 0.5).
    """
    r = ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    check_smoothing(label_smoothing)
    margins = beta * (r.chosen - r.rejected)
    kept = -(1 - label_smoothing) * F.logsigmoid(margins)
    flipped = -label_smoothing * F.logsigmoid(-margins)
    return r.objective((kept - flipped) / (1 - 2 * label_smoothing), beta)


def exo(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 1e-3,
) -> Objective:
    """Reverse KL to the labels' two-point distribution (Ji et al. 2024, arXiv 2402.00856, eq. 16):

    q (log q - log(1 - e)) + (1 - q) (log(1 - q) - log e), q = sigmoid(beta d), e = ``label_smoothing`` in (0, 0.5).
    """
    r = ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    check_smoothing(label_smoothing, above_zero=True)
    margins = beta * (r.chosen - r.rejected)
    won = torch.sigmoid(margins) * (F.logsigmoid(margins) - math.log1p(-label_smoothing))
    lost = torch.sigmoid(-margins) * (F.logsigmoid(-margins) - math.log(label_smoothing))
    return r.objective(won + lost, beta)


def dpop(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    penalty: float = 5.0,
) -> Objective:
    """DPO-positive (Pal et al. 2024, arXiv 2402.13228, eq. 3): the margin loses ``penalty`` times what the chosen

    has become less likely: -log sigmoid(beta (d - penalty max(0, ref_chosen - chosen))). At 0 it is DPO.
    """
    r = ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    check_not_negative(penalty=penalty)
    return r.objective(-F.logsigmoid(beta * (r.chosen - r.rejected - penalty * torch.relu(-r.chosen))), beta)


def ipo(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    chosen_lengths: Tensor,  # (B,) scored tokens of each completion, >= 1
    rejected_lengths: Tensor,  # (B,)
    beta: float = 0.1,
    sums: float = 0.0,
) -> Objective:
    """(d - 1 / (2 beta))**2 (Azar et al. 2023, arXiv 2310.12036, eq. 17), d of log-ratios a token as TRL has it

    (there on the authors' word); ``sums`` = 1 takes log-ratios summed over tokens, as the equation is written.
    """
    r = ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    check_same_length(chosen_logps=chosen_logps, chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    if sums not in (0, 1):
        raise ValueError(f"sums must be 0 (a token) or 1 (summed), got {sums}")
    d = r.chosen - r.rejected if sums else r.chosen / chosen_lengths - r.rejected / rejected_lengths
    return r.objective((d - 1 / (2 * beta)) ** 2, beta)


def dpo_norm(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    chosen_lengths: Tensor,  # (B,) scored tokens of each completion, >= 1
    rejected_lengths: Tensor,  # (B,)
    beta: float = 2.0,
) -> Objective:
    """DPO on log-ratios a token (Lambert et al. 2024, arXiv 2411.15124, section 5.1.2)."""
    r = ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    check_same_length(chosen_logps=chosen_logps, chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    check_positive(beta=beta)
    d = r.chosen / chosen_lengths - r.rejected / rejected_lengths
    return r.objective(-F.logsigmoid(beta * d), beta)
