"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from plum_core.objectives.objective import Objective, check_same_length


def dpo(
    chosen_logps: Tensor,  # (B,) log-prob of each chosen completion, summed over its tokens
    rejected_logps: Tensor,  # (B,)
    ref_chosen_logps: Tensor,  # (B,) the same under the reference policy
    ref_rejected_logps: Tensor,  # (B,)
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Objective:
    """Eq. 7: -log sigmoid(beta * (chosen log-ratio - rejected log-ratio)), (B,) losses.

    ``label_smoothing``: the probability that a label is the wrong way round. With it the loss is conservative
    DPO's (Mitchell 2023, "A note on DPO with noisy preferences"): the cross entropy with a target of
    1 - label_smoothing.

    Metrics as TRL's DPOTrainer names them: rewards are beta * log-ratio. Raises ValueError for shapes that
    differ, beta <= 0, or label_smoothing outside [0, 0.5).
    """
    check_same_length(
        chosen_logps=chosen_logps,
        rejected_logps=rejected_logps,
        ref_chosen_logps=ref_chosen_logps,
        ref_rejected_logps=ref_rejected_logps,
    )
    if not beta > 0:
        raise ValueError(f"beta must be > 0, got {beta}")
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5), got {label_smoothing}: at 0.5 labels say nothing")
    chosen_rewards = beta * (chosen_logps - ref_chosen_logps)
    rejected_rewards = beta * (rejected_logps - ref_rejected_logps)
    margins = chosen_rewards - rejected_rewards
    losses = -F.logsigmoid(margins)
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * F.logsigmoid(-margins)
    return Objective(
        losses,
        {
            "rewards/chosen": chosen_rewards.detach(),
            "rewards/rejected": rejected_rewards.detach(),
            "rewards/accuracies": (margins > 0).to(losses.dtype),
            "rewards/margins": margins.detach(),
            "logps/chosen": chosen_logps.detach(),
            "logps/rejected": rejected_logps.detach(),
        },
    )
