"""Policy gradients on verdicts: GRPO, DAPO's loss and RLOO, from log-probs and advantages.

N samples, T tokens of the longest completion. ``old``: under the policy that drew the sample. Advantages come from
``advantages.py``; a sample whose mask is all 0 (overlong filtering, no verdict) adds nothing to any gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plum_core.objectives.objective import Objective, capped_exp, check_same_length
from plum_core.objectives.pairs import check_not_negative


def grpo(
    token_logps: Tensor,  # (N, T) nats
    old_token_logps: Tensor,  # (N, T)
    advantages: Tensor,  # (N,)
    mask: Tensor,  # (N, T) bool: tokens that the policy drew
    ref_token_logps: Tensor | None = None,  # (N, T), wanted where beta > 0
    *,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    beta: float = 0.0,
) -> Objective:
    """Eq. 3 of Shao et al. 2024 (arXiv 2402.03300): each sample's mean over its tokens, (N,).

    -min(r * A, clip(r, 1 - epsilon, 1 + epsilon_high) * A) + beta * KL, with r the token's probability ratio and KL the
    estimator exp(d) - d - 1 of eq. 4, d = reference - policy. ``epsilon_high`` is ``epsilon`` where not given.
    Ratios grow linearly beyond e**20 (``capped_exp``), so that value and gradient stay finite. Metrics are of single
    tokens, as TRL averages them. Raises ValueError for shapes that differ, a negative setting, or beta > 0 without a
    reference.
    """
    losses, metrics = _token_losses(
        token_logps, old_token_logps, advantages, mask, ref_token_logps, epsilon, epsilon_high, beta
    )
    return Objective(losses.sum(1) / mask.sum(1).clamp(min=1), metrics)


def dapo(
    token_logps: Tensor,  # (N, T) nats
    old_token_logps: Tensor,  # (N, T)
    advantages: Tensor,  # (N,)
    mask: Tensor,  # (N, T) bool
    mean_length: Tensor | None = None,  # () scored tokens a sample over the whole step; None: over this call
    *,
    epsilon: float = 0.2,
    epsilon_high: float = 0.28,
) -> Objective:
    """Eq. 8 of Yu et al. 2025 (arXiv 2503.14476): clip-higher, every token of the step alike, (N,).

    Each sample's sum over its tokens divided by ``mean_length``, so that the mean over samples is the mean over
    tokens; with the step's own figure it does not depend on micro-batches or ranks. Overlong filtering is a mask of
    zeros, the zero-variance groups are ``informative_groups``. Raises ValueError as ``grpo`` does.
    """
    losses, metrics = _token_losses(token_logps, old_token_logps, advantages, mask, None, epsilon, epsilon_high, 0.0)
    if mean_length is None:
        mean_length = mask.sum() / max(1, len(mask))
    floor = 1 / max(1, len(mask))  # where every token is masked there is nothing to divide
    return Objective(losses.sum(1) / mean_length.clamp(min=floor), metrics)


def rloo(
    logps: Tensor,  # (N,) nats, summed over tokens
    old_logps: Tensor,  # (N,)
    advantages: Tensor,  # (N,)
    *,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
) -> Objective:
    """REINFORCE with the group's others as baseline (Ahmadian et al. 2024, arXiv 2402.14740), (N,).

    A completion is one action: -min(r * A, clip(r) * A) with r the ratio of whole completions, clipped as TRL does; on
    the samples that the policy just drew r = 1 and the gradient is REINFORCE's. A KL to the reference belongs into
    the rewards. Raises ValueError for shapes that differ or a negative setting.
    """
    check_same_length(logps=logps, old_logps=old_logps, advantages=advantages)
    losses, metrics = _clipped(logps - old_logps, advantages, epsilon, epsilon_high)
    return Objective(losses, metrics)


def _clipped(
    log_ratios: Tensor, advantages: Tensor, epsilon: float, epsilon_high: float | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's surrogate and what it clipped, elementwise; both in the shape of log_ratios."""
    high = epsilon if epsilon_high is None else epsilon_high
    check_not_negative(epsilon=epsilon, epsilon_high=high)
    ratios = capped_exp(log_ratios)
    losses = -torch.min(ratios * advantages, ratios.clamp(1 - epsilon, 1 + high) * advantages)
    low_clipped = (ratios < 1 - epsilon) & (advantages < 0)
    high_clipped = (ratios > 1 + high) & (advantages > 0)
    metrics = {
        "clip_ratio/low_mean": low_clipped,
        "clip_ratio/high_mean": high_clipped,
        "clip_ratio/region_mean": low_clipped | high_clipped,
    }
    return losses, {name: values.to(losses.dtype) for name, values in metrics.items()}


def _token_losses(
    token_logps: Tensor,
    old_token_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    ref_token_logps: Tensor | None,
    epsilon: float,
    epsilon_high: float | None,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """(N, T) losses, 0 where masked, and the metrics of the tokens that count."""
    reference = token_logps if ref_token_logps is None else ref_token_logps
    shapes = [tuple(t.shape) for t in (token_logps, old_token_logps, mask, reference)]
    if token_logps.dim() != 2 or len(set(shapes)) > 1 or advantages.shape != token_logps.shape[:1]:
        raise ValueError(
            f"log-probs and mask must be (N, T), advantages (N,), got {shapes} and {tuple(advantages.shape)}"
        )
    check_not_negative(beta=beta)
    if beta > 0 and ref_token_logps is None:
        raise ValueError(f"beta={beta} weighs the KL to a reference: give ref_token_logps, or leave beta at 0")
    counted = mask.bool()
    # what a pad holds is anything, infinities included: it is replaced before, not multiplied away after
    log_ratios = torch.where(counted, token_logps - old_token_logps, 0.0)
    losses, metrics = _clipped(log_ratios, advantages.unsqueeze(1), epsilon, epsilon_high)
    if beta > 0:
        gaps = torch.where(counted, reference - token_logps, 0.0)
        kl = capped_exp(gaps) - gaps - 1
        losses = losses + beta * kl
        metrics["kl"] = kl.detach()
    return torch.where(counted, losses, 0.0), {name: values[counted] for name, values in metrics.items()}
