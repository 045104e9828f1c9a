"""Losses of preference learning as pure functions of log-probs, and one table of their names."""

from __future__ import annotations

from plum_core.objectives.advantages import (
    group_advantages,
    informative_groups,
    leave_one_out_advantages,
    overlong_penalty,
)
from plum_core.objectives.dpo import dpo
from plum_core.objectives.free import cpo, orpo, simpo
from plum_core.objectives.kto import balanced_weights, derangement, kto, mismatch_kl
from plum_core.objectives.margins import dpo_norm, dpop, exo, hinge, ipo, robust_dpo
from plum_core.objectives.moving import mix_weights
from plum_core.objectives.objective import Objective
from plum_core.objectives.policy_gradient import dapo, grpo, rloo
from plum_core.objectives.separate import apo_down, apo_zero, bco, nca, sppo
from plum_core.objectives.sft import sft
from plum_core.objectives.table import OBJECTIVES, ObjectiveSpec, find_objective
from plum_core.objectives.token_weights import common_tokens, ld_weights, span_weights
from plum_core.objectives.transport import aot, aot_unpaired
from plum_core.objectives.unpaired import RunningMean, apo_zero_unpaired, bco_unpaired
from plum_core.objectives.wpo import wpo

__all__ = [
    "OBJECTIVES",
    "Objective",
    "ObjectiveSpec",
    "RunningMean",
    "aot",
    "aot_unpaired",
    "apo_down",
    "apo_zero",
    "apo_zero_unpaired",
    "balanced_weights",
    "bco",
    "bco_unpaired",
    "common_tokens",
    "cpo",
    "dapo",
    "derangement",
    "dpo",
    "dpo_norm",
    "dpop",
    "exo",
    "find_objective",
    "group_advantages",
    "grpo",
    "hinge",
    "informative_groups",
    "ipo",
    "kto",
    "ld_weights",
    "leave_one_out_advantages",
    "mismatch_kl",
    "mix_weights",
    "nca",
    "orpo",
    "overlong_penalty",
    "rloo",
    "robust_dpo",
    "sft",
    "simpo",
    "span_weights",
    "sppo",
    "wpo",
]
