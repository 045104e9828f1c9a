"""Losses of single labels: a completion is desirable or not, without a partner. KTO has a module of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from plum_core.objectives.objective import Objective, check_same_length
from plum_core.objectives.pairs import check_not_negative, check_positive


def apo_zero_unpaired(
    chosen_logps: Tensor,  # (C,) of each desirable completion, summed over its tokens
    rejected_logps: Tensor,  # (R,) of each undesirable one
    ref_chosen_logps: Tensor,  # (C,)
    ref_rejected_logps: Tensor,  # (R,)
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Objective:
    """The two terms of APO-zero (D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7) on single labels, (C + R,):

    weight * sigmoid(-reward) of the desirable, weight * sigmoid(reward) of the others: KTO with a reference point of 0.
    Either class may be empty. Raises ValueError for shapes that differ, beta <= 0 or a negative weight.
    """
    chosen, rejected, metrics = _rewards(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    check_not_negative(desirable_weight=desirable_weight, undesirable_weight=undesirable_weight)
    losses = desirable_weight * torch.sigmoid(-chosen), undesirable_weight * torch.sigmoid(rejected)
    return Objective(torch.cat(losses), metrics)


def bco_unpaired(
    chosen_logps: Tensor,  # (C,) of each desirable completion, summed over its tokens
    rejected_logps: Tensor,  # (R,) of each undesirable one
    ref_chosen_logps: Tensor,  # (C,)
    ref_rejected_logps: Tensor,  # (R,)
    *,
    shift: Tensor,  # () nats: RunningMean of the log-ratios of every step so far, this one included
    beta: float = 0.1,
) -> Objective:
    """Cross entropy of the classifier whose logit is reward - delta (Jung et al. 2024, arXiv 2404.04656, eq. 8-9):

    -log sigmoid(reward - delta) of the desirable, -log sigmoid(delta - reward) of the others, (C + R,), with rewards of
    beta * log-ratio and delta = beta * ``shift``, through which nothing is propagated. The density ratio that the
    paper adds where the classes come from different prompts is left out: here both come from the same. Raises
    ValueError for shapes that differ or beta <= 0.
    """
    chosen, rejected, metrics = _rewards(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    delta = beta * shift.detach().to(chosen.dtype)
    losses = torch.cat((-F.logsigmoid(chosen - delta), -F.logsigmoid(delta - rejected)))
    return Objective(losses, metrics | {"delta": delta.reshape(1)})


class RunningMean:
    """The mean of everything that was added, in fp64: what TRL's BCOTrainer (before 1.0) shifts its rewards by."""

    def __init__(self) -> None:
        self.state = torch.zeros(2, dtype=torch.float64)  # mean, count

    def add(self, values: Tensor) -> Tensor:
        """Take in values (n,) and return the mean so far, ()."""
        mean, count = self.state.tolist()
        total = count + values.numel()
        if values.numel():
            mean += (float(values.detach().double().mean()) - mean) * values.numel() / total
        self.state = torch.tensor([mean, total], dtype=torch.float64)
        return self.state[0].clone()


def _rewards(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """beta * log-ratio of either class, and TRL's metrics of them."""
    check_same_length(chosen_logps=chosen, ref_chosen_logps=ref_chosen)
    check_same_length(rejected_logps=rejected, ref_rejected_logps=ref_rejected)
    check_positive(beta=beta)
    chosen_rewards, rejected_rewards = beta * (chosen - ref_chosen), beta * (rejected - ref_rejected)
    metrics = {
        "rewards/chosen": chosen_rewards.detach(),
        "rewards/rejected": rejected_rewards.detach(),
        "logps/chosen": chosen.detach(),
        "logps/rejected": rejected.detach(),
    }
    return chosen_rewards, rejected_rewards, metrics
