"""One table of objectives: what each learns from and which options it can honour."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from plum_core.objectives.dpo import dpo
from plum_core.objectives.kto import kto
from plum_core.objectives.objective import Objective
from plum_core.objectives.sft import sft


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSpec:
    """``data``: what one training item is. ``options``: the settings that the formula contains."""

    compute: Callable[..., Objective]
    data: Literal["pairs", "labels", "completions"]
    options: frozenset[str] = frozenset()
    needs_reference: bool = True

    def check(self, name: str, options: Mapping[str, Any]) -> None:
        """Refuse an option that ``name`` has no place for; it would be ignored without a word."""
        for option in options:
            if option not in self.options:
                known = f"it takes {', '.join(sorted(self.options))}" if self.options else "it takes none"
                raise ValueError(f"objective {name} cannot honour {option}={options[option]!r}: {known}")


OBJECTIVES: dict[str, ObjectiveSpec] = {
    "dpo": ObjectiveSpec(compute=dpo, data="pairs", options=frozenset({"beta", "label_smoothing"})),
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
