"""Losses of preference learning as pure functions of log-probs, and one table of their names."""

from __future__ import annotations

from plum_core.objectives.dpo import dpo
from plum_core.objectives.kto import balanced_weights, derangement, kto, mismatch_kl
from plum_core.objectives.objective import Objective
from plum_core.objectives.sft import sft
from plum_core.objectives.table import OBJECTIVES, ObjectiveSpec, find_objective

__all__ = [
    "OBJECTIVES",
    "Objective",
    "ObjectiveSpec",
    "balanced_weights",
    "derangement",
    "dpo",
    "find_objective",
    "kto",
    "mismatch_kl",
    "sft",
]
