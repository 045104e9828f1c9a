"""The running mean of the weights over the last steps: what a round hands on in place of its last weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plum_core.training.optim import trained


class WeightAverage:
    """The plain mean of the weights after each step from ``first_step`` (from 0) on, kept in fp32.

    Polyak averaging over a tail (Ruppert 1988; Polyak and Juditsky 1992): the noise of single updates
    cancels.
    """

    def __init__(self, module: nn.Module, first_step: int) -> None:
        self.first_step = first_step
        self.count = 0
        self.mean = {name: torch.zeros_like(w) for name, w in trained(module)}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        if step < self.first_step:
            return
        self.count += 1
        for name, weight in trained(module):
            self.mean[name].lerp_(weight, 1.0 / self.count)

    @torch.no_grad()
    def apply(self, module: nn.Module) -> None:
        """Put the mean in the place of the weights; they stay as they are where nothing was averaged."""
        if self.count:
            for name, weight in trained(module):
                weight.copy_(self.mean[name])

    def tensors(self) -> dict[str, Tensor]:
        return self.mean

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], count: int) -> None:
        self.count = count
        for name, mean in self.mean.items():
            mean.copy_(tensors[name])
