"""One table of objectives: what each learns from and which options it can honour."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from plum_core.objectives.dpo import dpo
from plum_core.objectives.free import cpo, orpo, simpo
from plum_core.objectives.kto import kto
from plum_core.objectives.margins import dpo_norm, dpop, exo, hinge, ipo, robust_dpo
from plum_core.objectives.objective import Objective
from plum_core.objectives.separate import apo_down, apo_zero, bco, nca, sppo
from plum_core.objectives.sft import sft
from plum_core.objectives.transport import aot, aot_unpaired


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSpec:
    """``data``: what one training item is. ``options``: the settings that the formula contains.

    ``needs_lengths``: it takes ``chosen_lengths`` and ``rejected_lengths``. ``whole_batch``: its loss is none of the
    parts of a batch.
    """

    compute: Callable[..., Objective]
    data: Literal["pairs", "labels", "completions"]
    options: frozenset[str] = frozenset()
    needs_reference: bool = True
    needs_lengths: bool = False
    whole_batch: bool = False

    def check(self, name: str, options: Mapping[str, Any]) -> None:
        """Refuse an option that ``name`` has no place for; it would be ignored without a word."""
        for option in options:
            if option not in self.options:
                known = f"it takes {', '.join(sorted(self.options))}" if self.options else "it takes none"
                raise ValueError(f"objective {name} cannot honour {option}={options[option]!r}: {known}")


def _pairs(compute: Callable[..., Objective], *options: str, **fields: bool) -> ObjectiveSpec:
    return ObjectiveSpec(compute=compute, data="pairs", options=frozenset({"beta", *options}), **fields)


OBJECTIVES: dict[str, ObjectiveSpec] = {
    "dpo": _pairs(dpo, "label_smoothing"),
    "dpo_norm": _pairs(dpo_norm, needs_lengths=True),
    "dpop": _pairs(dpop, "penalty"),
    "robust_dpo": _pairs(robust_dpo, "label_smoothing"),
    "ipo": _pairs(ipo, "sums", needs_lengths=True),
    "hinge": _pairs(hinge),
    "exo": _pairs(exo, "label_smoothing"),
    "nca": _pairs(nca),
    "bco": _pairs(bco),
    "sppo": _pairs(sppo),
    "apo_zero": _pairs(apo_zero),
    "apo_down": _pairs(apo_down),
    "aot": _pairs(aot, "label_smoothing", whole_batch=True),
    "aot_unpaired": _pairs(aot_unpaired, "label_smoothing", whole_batch=True),
    "cpo": _pairs(cpo, "label_smoothing", needs_reference=False),
    "simpo": _pairs(simpo, "gamma", "label_smoothing", needs_reference=False, needs_lengths=True),
    "orpo": _pairs(orpo, needs_reference=False, needs_lengths=True),
    "kto": ObjectiveSpec(
        compute=kto, data="labels", options=frozenset({"beta", "desirable_weight", "undesirable_weight"})
    ),
    "rft": ObjectiveSpec(compute=sft, data="completions", needs_reference=False),
}


def find_objective(name: str, options: Mapping[str, Any] | None = None) -> ObjectiveSpec:
    """The objective of that name; ValueError for an unknown name or an option that it cannot honour."""
    if name not in OBJECTIVES:
        near = difflib.get_close_matches(name, OBJECTIVES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown objective {name!r}, known: {', '.join(sorted(OBJECTIVES))}{hint}")
    spec = OBJECTIVES[name]
    spec.check(name, options or {})
    return spec
