"""One table of objectives: what each learns from and which options it can honour."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from plum_core.objectives.dpo import dpo
from plum_core.objectives.free import cpo, orpo, simpo
from plum_core.objectives.kto import kto
from plum_core.objectives.margins import dpo_norm, dpop, exo, hinge, ipo, robust_dpo
from plum_core.objectives.objective import Objective
from plum_core.objectives.policy_gradient import dapo, grpo, rloo
from plum_core.objectives.separate import apo_down, apo_zero, bco, nca, sppo
from plum_core.objectives.sft import sft
from plum_core.objectives.token_weights import TokenWeights, ld_weights, span_weights
from plum_core.objectives.transport import aot, aot_unpaired
from plum_core.objectives.unpaired import apo_zero_unpaired, bco_unpaired
from plum_core.objectives.wpo import wpo


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSpec:
    """``data``: what one training item is; groups are samples with verdicts. ``options``: what the formula contains.

    ``needs``: tensors that it takes beside the log-probs, by the name of the argument, ``chosen_`` and ``rejected_``
    aside. ``weigh``: what weighs the tokens of a pair, with the options ``weigh_options``; None sums them plainly.
    ``coupled``: the loss of an item depends on the others of its step. ``needs_nll``: it is not itself without the
    likelihood term.
    """

    compute: Callable[..., Objective]
    data: Literal["pairs", "labels", "completions", "groups"]
    options: frozenset[str] = frozenset()
    needs_reference: bool = True
    needs: frozenset[str] = frozenset()
    weigh: TokenWeights | None = None
    weigh_options: frozenset[str] = frozenset()
    coupled: bool = False
    needs_nll: bool = False

    def check(self, name: str, options: Mapping[str, Any]) -> None:
        """Refuse an option that ``name`` has no place for, which would be ignored without a word, and a bad value."""
        known = self.options | self.weigh_options
        for option in options:
            if option not in known:
                takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none, leave it out"
                raise ValueError(f"objective {name} cannot honour {option}={options[option]!r}: {takes}")
        try:
            self.on_nothing(options)
        except ValueError as error:
            raise ValueError(f"objective {name}: {error}") from None

    def on_nothing(self, options: Mapping[str, Any]) -> Objective:
        """The objective of an empty batch: it raises what a bad value raises, and names every metric."""
        if self.weigh is not None:
            self.weigh((), (), **{name: options[name] for name in self.weigh_options & options.keys()})
        rest = {name: value for name, value in options.items() if name not in self.weigh_options}
        if self.data == "groups":
            shapes: tuple[tuple[int, ...], ...] = ((0, 0), (0, 0), (0,), (0, 0), (0, 0))[: 4 + self.needs_reference]
            return self.compute(*map(torch.zeros, ((0,),) * 3 if self.compute is rloo else shapes), **rest)
        none = torch.zeros(0)
        if self.data == "completions":
            return self.compute(none, none, **rest)
        given = self.named({name: (torch.zeros(()) if name in SCALARS else (none, none)) for name in self.needs})
        return self.compute(*[none] * (4 if self.needs_reference else 2), **given, **rest)

    @staticmethod
    def named(needs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Arguments from ``needs``: a scalar under its own name, (chosen, rejected) under two."""
        given = {}
        for name, value in needs.items():
            if name in SCALARS:
                given[name] = value
            else:
                given[f"chosen_{name}"], given[f"rejected_{name}"] = value
        return given


SCALARS = frozenset({"kl", "shift"})


def _pairs(
    compute: Callable[..., Objective], *options: str, needs: frozenset[str] = frozenset(), **fields: Any
) -> ObjectiveSpec:
    return ObjectiveSpec(compute=compute, data="pairs", options=frozenset({"beta", *options}), needs=needs, **fields)


def _labels(
    compute: Callable[..., Objective], *options: str, needs: frozenset[str] = frozenset(), **fields: Any
) -> ObjectiveSpec:
    return ObjectiveSpec(compute=compute, data="labels", options=frozenset({"beta", *options}), needs=needs, **fields)


def _groups(compute: Callable[..., Objective], *options: str) -> ObjectiveSpec:
    options = ("epsilon", "epsilon_high", *options)
    return ObjectiveSpec(compute=compute, data="groups", options=frozenset(options), needs_reference="beta" in options)


LENGTHS = frozenset({"lengths"})
CLASS_WEIGHTS = ("desirable_weight", "undesirable_weight")

OBJECTIVES: dict[str, ObjectiveSpec] = {
    "dpo": _pairs(dpo, "label_smoothing"),
    "rpo": _pairs(dpo, "label_smoothing", needs_nll=True),
    "ld_dpo": _pairs(dpo, "label_smoothing", weigh=ld_weights, weigh_options=frozenset({"alpha"})),
    "span_dpo": _pairs(dpo, "label_smoothing", weigh=span_weights, weigh_options=frozenset({"common_weight"})),
    "wpo": _pairs(wpo, "label_smoothing", needs=frozenset({"alignment"})),
    "dpo_norm": _pairs(dpo_norm, needs=LENGTHS),
    "dpop": _pairs(dpop, "penalty"),
    "robust_dpo": _pairs(robust_dpo, "label_smoothing"),
    "ipo": _pairs(ipo, "sums", needs=LENGTHS),
    "hinge": _pairs(hinge),
    "exo": _pairs(exo, "label_smoothing"),
    "nca": _pairs(nca),
    "bco": _pairs(bco),
    "sppo": _pairs(sppo),
    "apo_zero": _pairs(apo_zero),
    "apo_down": _pairs(apo_down),
    "aot": _pairs(aot, "label_smoothing", coupled=True),
    "aot_unpaired": _pairs(aot_unpaired, "label_smoothing", coupled=True),
    "cpo": _pairs(cpo, "label_smoothing", needs_reference=False),
    "simpo": _pairs(simpo, "gamma", "label_smoothing", needs_reference=False, needs=LENGTHS),
    "orpo": _pairs(orpo, needs_reference=False, needs=LENGTHS),
    "kto": _labels(kto, *CLASS_WEIGHTS, needs=frozenset({"kl"})),
    "apo_zero_unpaired": _labels(apo_zero_unpaired, *CLASS_WEIGHTS),
    "bco_unpaired": _labels(bco_unpaired, needs=frozenset({"shift"}), coupled=True),
    "rft": ObjectiveSpec(compute=sft, data="completions", needs_reference=False, needs_nll=True),
    "grpo": _groups(grpo, "beta"),
    "dapo": _groups(dapo),
    "rloo": _groups(rloo),
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
