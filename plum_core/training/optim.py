"""Optimizers and rates by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """How a step changes the weights. Rates are peaks: the schedule scales them between 0 and 1."""

    name: Literal["adamw", "muon"] = "adamw"  # muon: matrices of the layers by Muon, the rest by AdamW
    learning_rate: float = 1e-3  # of AdamW
    muon_learning_rate: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup_steps: int = 10
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "constant"
    decay_fraction: float = 0.3  # wsd: the share of all steps over which the rate falls at the end
    clip_norm: float = 1.0  # of the gradient over all weights; inf never clips
    weights: Literal["fp32", "bf16-master"] = "fp32"  # bf16-master: compute in bf16, step and save fp32 masters

    def __post_init__(self) -> None:
        rules = {
            "name must be adamw or muon": self.name in ("adamw", "muon"),
            "learning_rate must be > 0": self.learning_rate > 0,
            "muon_learning_rate must be > 0": self.muon_learning_rate > 0,
            "beta1 must be in [0, 1)": 0 <= self.beta1 < 1,
            "beta2 must be in [0, 1)": 0 <= self.beta2 < 1,
            "eps must be > 0": self.eps > 0,
            "weight_decay must be >= 0": self.weight_decay >= 0,
            "warmup_steps must be >= 0": self.warmup_steps >= 0,
            "schedule must be constant, linear, cosine or wsd": self.schedule in SCHEDULES,
            "decay_fraction must be in (0, 1]": 0 < self.decay_fraction <= 1,
            "clip_norm must be > 0": self.clip_norm > 0,
            "weights must be fp32 or bf16-master": self.weights in ("fp32", "bf16-master"),
        }
        for rule, holds in rules.items():
            if not holds:
                raise ValueError(f"{rule}, got {getattr(self, rule.split()[0])!r}")


def _wsd(progress: float, decay_fraction: float) -> float:
    """Warm-up, stable, decay: full rate, then linearly to 0 over the last ``decay_fraction``."""
    return min(1.0, (1.0 - progress) / decay_fraction)


SCHEDULES = {
    "constant": lambda progress, _: 1.0,
    "linear": lambda progress, _: 1.0 - progress,
    "cosine": lambda progress, _: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "wsd": _wsd,
}


def rate_factor(config: OptimConfig, step: int, total_steps: int) -> float:
    """What the peak rates are multiplied by in step ``step`` (from 0) of ``total_steps``.

    The warm-up rises linearly and reaches 1 in step ``warmup_steps``; the schedule then runs over the steps
    that are left, for wsd over all of them.
    """
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    start = 0 if config.schedule == "wsd" else config.warmup_steps
    progress = (step - start) / max(1, total_steps - start)
    return SCHEDULES[config.schedule](progress, config.decay_fraction)


def trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The weights that are learned, with their names; beside adapters, the others are frozen."""
    return [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]


def build_optimizers(module: nn.Module, config: OptimConfig) -> list[Optimizer]:
    """One optimizer, or Muon for the layers' matrices and AdamW beside it. Every trained weight is in exactly one."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, weight in trained(module):
        by_muon = config.name == "muon" and weight.dim() == 2 and name.startswith("layers.")
        (matrices if by_muon else rest).append(weight)
    adamw = torch.optim.AdamW(
        rest or [nn.Parameter(torch.zeros(0))],  # adapters under muon leave it nothing, and it refuses an empty list
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )
    if not matrices:
        return [adamw]
    muon = torch.optim.Muon(matrices, lr=config.muon_learning_rate, weight_decay=config.weight_decay)
    return [adamw, muon]


def set_rates(optimizers: Sequence[Optimizer], config: OptimConfig, factor: float) -> None:
    peaks = (config.learning_rate, config.muon_learning_rate)
    for optimizer, peak in zip(optimizers, peaks, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = peak * factor


def optimizer_tensors(optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """Every moment and step count by name: ``optimizer.weight.moment``."""
    return {
        f"{i}.{weight}.{moment}": value
        for i, optimizer in enumerate(optimizers)
        for weight, state in optimizer.state_dict()["state"].items()
        for moment, value in state.items()
    }


def restore_optimizers(optimizers: Sequence[Optimizer], tensors: dict[str, Tensor]) -> None:
    """The inverse of ``optimizer_tensors``; the optimizers must be built from the same config."""
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for name, value in tensors.items():
        i, weight, moment = name.split(".")
        states[int(i)].setdefault(int(weight), {})[moment] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
