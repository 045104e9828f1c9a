"""Training: batches, log-probs, steps, checkpoints; a round of preferences or a supervised run."""

from __future__ import annotations

from plum_core.training.batches import Example, cycle
from plum_core.training.groups import Graded, grade
from plum_core.training.loop import TrainResult
from plum_core.training.optim import OptimConfig
from plum_core.training.preference import Records, planned_steps, train_round
from plum_core.training.preference_config import GroupSettings, LoraSettings, MovingSettings, PreferenceConfig
from plum_core.training.sft import SftConfig, train_sft
from plum_core.training.world import World, init_world, world_size

__all__ = [
    "Example",
    "Graded",
    "GroupSettings",
    "LoraSettings",
    "MovingSettings",
    "OptimConfig",
    "PreferenceConfig",
    "Records",
    "SftConfig",
    "TrainResult",
    "World",
    "cycle",
    "grade",
    "init_world",
    "planned_steps",
    "train_round",
    "train_sft",
    "world_size",
]
