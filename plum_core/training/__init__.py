"""Training: batches, log-probs, steps, checkpoints; a round of preferences or a supervised run."""

from __future__ import annotations

from plum_core.training.batches import Example, cycle
from plum_core.training.loop import TrainResult
from plum_core.training.optim import OptimConfig
from plum_core.training.preference import train_round
from plum_core.training.preference_step import PreferenceConfig
from plum_core.training.sft import SftConfig, train_sft
from plum_core.training.world import World, init_world, world_size

__all__ = [
    "Example",
    "OptimConfig",
    "PreferenceConfig",
    "SftConfig",
    "TrainResult",
    "World",
    "cycle",
    "init_world",
    "train_round",
    "train_sft",
    "world_size",
]
