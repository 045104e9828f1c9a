"""Alignment via optimal transport: distributions of a batch are compared, not the two sides of a pair."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from plum_core.objectives.objective import Objective
from plum_core.objectives.pairs import check_smoothing, ratios


def aot(
    chosen_logps: Tensor,  # (B,) summed over tokens
    rejected_logps: Tensor,  # (B,)
    ref_chosen_logps: Tensor,  # (B,)
    ref_rejected_logps: Tensor,  # (B,)
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Objective:
    """Paired (Melnyk et al. 2024, arXiv 2406.05882, section 3): the policy's margins, sorted, against the reference's.

    The i-th loss belongs to the i-th smallest margin. Sorting needs the whole batch at once: a loss over its parts
    is another loss.
    """
    p = ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    check_smoothing(label_smoothing)
    margins = (chosen_logps - rejected_logps).sort().values
    margins = beta * (margins - (ref_chosen_logps - ref_rejected_logps).sort().values)
    return p.objective(_smoothed(margins, label_smoothing), beta)


def aot_unpaired(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Objective:
    """Unpaired (the same paper): the chosen's log-ratios, sorted, against the rejected's. Needs the whole batch."""
    p = ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    check_smoothing(label_smoothing)
    return p.objective(_smoothed(beta * (p.chosen.sort().values - p.rejected.sort().values), label_smoothing), beta)


def _smoothed(margins: Tensor, share: float) -> Tensor:
    return -(1 - share) * F.logsigmoid(margins) - share * F.logsigmoid(-margins)
