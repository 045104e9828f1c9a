"""A reference policy that follows the one in training (TR-DPO)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from plum_core.objectives import mix_weights
from plum_core.training.preference_config import MovingSettings
from plum_models.decoder import Decoder


class MovingReference:
    """A copy of a decoder, held in memory for the whole round: its log-probs cannot be computed ahead."""

    def __init__(self, reference: Decoder, settings: MovingSettings) -> None:
        self.settings = settings
        self.decoder = copy.deepcopy(reference).requires_grad_(False)

    def follow(self, step: int, policy: Decoder) -> None:
        """At the start of ``step`` (from 0): take in the policy where the step before it was the ``every``-th."""
        if step and step % self.settings.every == 0:
            mix_weights(self.tensors(), dict(policy.named_parameters()), self.settings.alpha)

    def tensors(self) -> dict[str, Tensor]:
        return {name: weight.detach() for name, weight in self.decoder.named_parameters()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        for name, weight in self.decoder.named_parameters():
            weight.copy_(tensors[name])
