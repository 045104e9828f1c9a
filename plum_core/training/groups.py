"""Samples and verdicts as policy gradients take them: every sample with its advantage among its instruction's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from plum_core.objectives import (
    group_advantages,
    informative_groups,
    leave_one_out_advantages,
    overlong_penalty,
)
from plum_core.records import Outcome, Sample, Verdict
from plum_core.training.batches import Example
from plum_core.training.preference_config import PreferenceConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A sample and what its verdict is worth, in [0, 1]; None where there is none that says anything about it."""

    sample: Sample
    reward: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupItem:
    """A sample in training. ``old``: nats of each token under the policy that drew it."""

    example: Example
    old: tuple[float, ...]
    reward: float
    advantage: float

    @property
    def examples(self) -> tuple[Example, ...]:
        return (self.example,)

    @property
    def cost(self) -> tuple[int, int]:
        """(rows, width in tokens)."""
        return 1, len(self.example)

    @property
    def about(self) -> object:
        """What decides the loss beside the tokens, for fingerprints."""
        return self.old, self.advantage


def grade(
    samples: Iterable[Sample], verdicts: Iterable[Verdict], reward: Literal["passed", "share"] = "passed"
) -> list[Graded]:
    """Samples in their order with rewards: 1 or 0 for ``passed``, the share of its tests that passed for ``share``.

    A sandbox error, a verdict that the program gave itself and one that is missing say nothing. Raises ValueError for
    a sample or verdict that comes twice.
    """
    judged: dict[str, Verdict] = {}
    for verdict in verdicts:
        if verdict.id in judged:
            raise ValueError(f"verdict {verdict.id} comes twice: the file was joined with itself")
        judged[verdict.id] = verdict
    graded: dict[str, Graded] = {}
    for sample in samples:
        name = f"{sample.instruction_id}/{sample.index}"
        if name in graded:
            raise ValueError(f"sample {name} comes twice: the file was joined with itself")
        graded[name] = Graded(sample=sample, reward=_reward(judged.get(name), reward))
    return list(graded.values())


def _reward(verdict: Verdict | None, reward: str) -> float | None:
    if verdict is None or verdict.outcome == Outcome.SANDBOX_ERROR or not verdict.attested:
        return None
    if reward == "passed":
        return float(verdict.outcome == Outcome.PASSED)
    return sum(verdict.passed) / max(1, len(verdict.passed))


def group_items(graded: Sequence[Graded], config: PreferenceConfig) -> list[GroupItem]:
    """The samples that are learned from, in their order: those without a reward left out, and what the config drops.

    Raises ValueError for a sample whose stored log-probs are not one a token, or one that is not finite or above 0.
    """
    groups: dict[str, list[Graded]] = {}
    for one in graded:
        groups.setdefault(one.sample.instruction_id, []).append(one)
    rewards = torch.full((len(groups), max(map(len, groups.values()), default=1)), torch.nan, dtype=torch.float64)
    place = {}
    for row, members in enumerate(groups.values()):
        for column, one in enumerate(members):
            place[id(one)] = row, column
            if one.reward is not None:
                rewards[row, column] = one.reward + _punishment(one.sample, config)
    advantages, keep = _advantages(rewards, config), ~rewards.isnan()
    drop = config.objective == "dapo" if config.groups.informative_only is None else config.groups.informative_only
    if drop:
        keep &= informative_groups(rewards).unsqueeze(1)
    return [
        GroupItem(
            example=_example(one.sample),
            old=tuple(one.sample.logprobs),
            reward=float(rewards[place[id(one)]]),
            advantage=float(advantages[place[id(one)]]),
        )
        for one in graded
        if keep[place[id(one)]]
    ]


def _punishment(sample: Sample, config: PreferenceConfig) -> float:
    limit, margin = config.groups.overlong_limit, config.groups.overlong_margin
    if not limit:
        return 0.0
    return float(overlong_penalty(torch.tensor(len(sample.token_ids)), limit=limit, margin=margin))


def _advantages(rewards: Tensor, config: PreferenceConfig) -> Tensor:
    scale = config.groups.scale
    if config.objective == "rloo":
        return leave_one_out_advantages(rewards, normalise=scale == "batch")
    return group_advantages(rewards, scale=scale or "group")


def _example(sample: Sample) -> Example:
    name = f"sample {sample.instruction_id}/{sample.index}"
    if len(sample.logprobs) != len(sample.token_ids):
        raise ValueError(f"{name} has {len(sample.logprobs)} log-probs for {len(sample.token_ids)} tokens: one each")
    if not all(math.isfinite(x) and x <= 0 for x in sample.logprobs):
        raise ValueError(f"{name} has a log-prob that is not finite or above 0: the file is not the sampler's")
    return Example(prompt_ids=tuple(sample.prompt_token_ids), completion_ids=tuple(sample.token_ids))
