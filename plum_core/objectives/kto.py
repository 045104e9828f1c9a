"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306): unpaired verdicts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from plum_core.objectives.objective import Objective, check_same_length


def derangement(prompts: Sequence[Hashable], seed: int) -> list[int]:
    """Whose completion each item gets for the KL term: a seeded permutation of range(len(prompts)).

    No item of two or more keeps its own, and none gets another of the same prompt's unless one prompt holds
    more than half of all items. ``prompts``: what each item's prompt is, by any key. [0] for one item.
    """
    count = len(prompts)
    draw = random.Random(seed)
    order = draw.sample(range(count), count)
    places: dict[Hashable, int] = {}
    for item in order:
        places.setdefault(prompts[item], len(places))
    order.sort(key=lambda item: places[prompts[item]])  # one prompt's items side by side, prompts shuffled
    largest = max(Counter(prompts).values(), default=1)
    shift = largest if largest < count else 1  # past the end of one's own prompt's run
    given = [0] * count
    for position, item in enumerate(order):
        given[item] = order[(position + shift) % count]
    return given


def mismatch_kl(kl_logps: Tensor, ref_kl_logps: Tensor) -> Tensor:
    """The reference point z0 of section 4.1: max(0, mean log-ratio of mismatched completions), a scalar.

    kl_logps, ref_kl_logps: (B,) log-probs of completions under prompts that they do not belong to. Nothing is
    propagated through it. An empty batch, or one whose only completion would be paired with itself, has no
    mismatched pair and gives 0.
    """
    check_same_length(kl_logps=kl_logps, ref_kl_logps=ref_kl_logps)
    if len(kl_logps) == 0:
        return kl_logps.new_zeros(())
    return (kl_logps - ref_kl_logps).mean().clamp(min=0).detach()


def balanced_weights(desirable: int, undesirable: int) -> tuple[float, float]:
    """(desirable, undesirable) weights, the larger 1, such that weight times count is the same for both.

    The paper keeps the ratio of the two products between 1 and 4/3.
    """
    if desirable == 0 or undesirable == 0:
        return 1.0, 1.0
    rarest = min(desirable, undesirable)
    return rarest / desirable, rarest / undesirable


def kto(
    chosen_logps: Tensor,  # (C,) log-prob of each desirable completion, summed over its tokens
    rejected_logps: Tensor,  # (R,) of each undesirable one
    ref_chosen_logps: Tensor,  # (C,) the same under the reference policy
    ref_rejected_logps: Tensor,  # (R,)
    *,
    kl: Tensor,  # () from mismatch_kl, over every rank's share of the batch
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Objective:
    """Section 4.1: weight * (1 - sigmoid(beta * (log-ratio - kl))), and the mirror image for the undesirable.

    Losses are (C + R,), the desirable first; either class may be empty. Metrics as TRL's KTOTrainer names
    them; ``rewards/margins`` is a difference of two means and is left to the caller. Raises ValueError for
    shapes that differ, beta <= 0 or a negative weight.
    """
    check_same_length(chosen_logps=chosen_logps, ref_chosen_logps=ref_chosen_logps)
    check_same_length(rejected_logps=rejected_logps, ref_rejected_logps=ref_rejected_logps)
    if not beta > 0:
        raise ValueError(f"beta must be > 0, got {beta}")
    if not (desirable_weight >= 0 and undesirable_weight >= 0):
        raise ValueError(
            f"weights must be >= 0, got desirable_weight={desirable_weight}, undesirable_weight={undesirable_weight}"
        )
    chosen_ratios = chosen_logps - ref_chosen_logps
    rejected_ratios = rejected_logps - ref_rejected_logps
    # 1 - sigmoid(x) is written sigmoid(-x): the same number, and still not 0 where 1 - sigmoid(x) rounds to 0
    chosen_losses = torch.sigmoid(beta * (kl - chosen_ratios))
    rejected_losses = torch.sigmoid(beta * (rejected_ratios - kl))
    return Objective(
        torch.cat((desirable_weight * chosen_losses, undesirable_weight * rejected_losses)),
        {
            "rewards/chosen": beta * chosen_ratios.detach(),
            "rewards/rejected": beta * rejected_ratios.detach(),
            "logps/chosen": chosen_logps.detach(),
            "logps/rejected": rejected_logps.detach(),
            "kl": kl.detach().reshape(1),
        },
    )
