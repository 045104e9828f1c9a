"""What every objective returns, and the check that they share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Objective(NamedTuple):
    """Losses and what is logged of them, both per sequence, so that the caller chooses who is averaged over.

    ``losses``: differentiable. ``metrics``: TRL's names; detached values whose mean over every micro-batch
    and rank of a step is the figure to log. A metric of one class only (``rewards/chosen`` of KTO) has that
    class's length, which may be 0.
    """

    losses: Tensor
    metrics: dict[str, Tensor]


def check_same_length(**tensors: Tensor) -> None:
    """ValueError unless all are (B,) with one B."""
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    if len(set(shapes.values())) > 1 or any(t.dim() != 1 for t in tensors.values()):
        raise ValueError(f"log-probs must be (B,) with one B, got {shapes}")


def capped_exp(x: Tensor) -> Tensor:
    """exp(x) up to a limit and its tangent beyond: rising, finite, and with a finite gradient everywhere.

    The limit is 20 (a ratio of 5e8), because a gradient's norm squares what passes it and must stay in fp32; 560 in
    fp64.
    """
    limit = 560.0 if x.dtype == torch.float64 else 20.0
    return torch.exp(x.clamp(max=limit)) * (1 + torch.relu(x - limit))
