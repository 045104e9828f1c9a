"""What the pairwise objectives have in common: checks, log-ratios, and TRL's metrics."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from plum_core.objectives.objective import Objective, check_same_length


class Ratios(NamedTuple):
    """Log-ratios policy over reference, summed over tokens, (B,) each; the policy's log-probs for the metrics."""

    chosen: Tensor
    rejected: Tensor
    chosen_logps: Tensor
    rejected_logps: Tensor

    def objective(self, losses: Tensor, beta: float) -> Objective:
        """``losses`` (B,) with the metrics of TRL's DPOTrainer: rewards are beta * log-ratio."""
        chosen, rejected = beta * self.chosen.detach(), beta * self.rejected.detach()
        return Objective(
            losses,
            {
                "rewards/chosen": chosen,
                "rewards/rejected": rejected,
                "rewards/accuracies": (chosen > rejected).to(losses.dtype),
                "rewards/margins": chosen - rejected,
                "logps/chosen": self.chosen_logps.detach(),
                "logps/rejected": self.rejected_logps.detach(),
            },
        )


def ratios(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float) -> Ratios:
    """Raises ValueError for shapes that differ and for beta <= 0."""
    check_same_length(
        chosen_logps=chosen, rejected_logps=rejected, ref_chosen_logps=ref_chosen, ref_rejected_logps=ref_rejected
    )
    check_positive(beta=beta)
    return Ratios(chosen - ref_chosen, rejected - ref_rejected, chosen, rejected)


def free_of_reference(chosen: Tensor, rejected: Tensor, beta: float) -> Ratios:
    """The log-probs themselves in the place of ratios, for objectives without a reference."""
    check_same_length(chosen_logps=chosen, rejected_logps=rejected)
    check_positive(beta=beta)
    return Ratios(chosen, rejected, chosen, rejected)


def check_positive(**values: float) -> None:
    """ValueError unless all are > 0."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be > 0, got {value}")


def check_not_negative(**values: float) -> None:
    """ValueError unless all are >= 0."""
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} must be >= 0, got {value}")


def check_smoothing(label_smoothing: float, *, above_zero: bool = False) -> None:
    """ValueError unless the share of labels the wrong way round is in [0, 0.5), or in (0, 0.5)."""
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5), got {label_smoothing}: at 0.5 labels say nothing")
    if above_zero and label_smoothing == 0:
        raise ValueError("label_smoothing must be > 0 here, because its logarithm is taken: the paper has 1e-3")
