"""Losses of preference learning as pure functions of log-probs, and one table of their names."""

from __future__ import annotations

from plum_core.objectives.dpo import dpo
from plum_core.objectives.free import cpo, orpo, simpo
from plum_core.objectives.kto import balanced_weights, derangement, kto, mismatch_kl
from plum_core.objectives.margins import dpo_norm, dpop, exo, hinge, ipo, robust_dpo
from plum_core.objectives.objective import Objective
from plum_core.objectives.separate import apo_down, apo_zero, bco, nca, sppo
from plum_core.objectives.sft import sft
from plum_core.objectives.table import OBJECTIVES, ObjectiveSpec, find_objective
from plum_core.objectives.transport import aot, aot_unpaired

__all__ = [
    "OBJECTIVES",
    "Objective",
    "ObjectiveSpec",
    "aot",
    "aot_unpaired",
    "apo_down",
    "apo_zero",
    "balanced_weights",
    "bco",
    "cpo",
    "derangement",
    "dpo",
    "dpo_norm",
    "dpop",
    "exo",
    "find_objective",
    "hinge",
    "ipo",
    "kto",
    "mismatch_kl",
    "nca",
    "orpo",
    "robust_dpo",
    "sft",
    "simpo",
    "sppo",
]
