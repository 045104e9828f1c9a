"""What a step learns from: pairs or labelled completions, and the mismatched ones of KTO's reference point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plum_core.objectives import derangement
from plum_core.seeds import coordinate_seed
from plum_core.training.batches import Example, plan_batches

Side = tuple[int, int]  # an item, and which of its examples


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What is learned from as one: a pair (chosen, rejected), or one labelled completion."""

    examples: tuple[Example, ...]
    desirable: bool = True

    @property
    def cost(self) -> tuple[int, int]:
        """(rows, width in tokens)."""
        return len(self.examples), max(map(len, self.examples))

    @property
    def about(self) -> object:
        """What decides the loss beside the tokens, for fingerprints."""
        return self.desirable


def plan_epochs(costs: Sequence[tuple[int, int]], tokens_per_batch: int, epochs: int, seed: int) -> list[list[int]]:
    """The items of every step: each epoch has all of them, in batches and an order of its own."""
    return [
        batch
        for epoch in range(epochs)
        for batch in plan_batches(costs, tokens_per_batch, coordinate_seed(seed, "epoch", epoch))
    ]


def sides_of(items: Sequence[Item], batch: Sequence[int]) -> tuple[list[Side], list[Side]]:
    """(chosen, rejected) completions of the items whose indices are in ``batch``."""
    good = [(i, 0) for i in batch if items[i].desirable]
    bad = [(i, -1) for i in batch if len(items[i].examples) == 2 or not items[i].desirable]
    return good, bad


def mismatched(items: Sequence[Item], plan: Sequence[Sequence[int]], seed: int) -> list[list[Example]]:
    """For each step of ``plan`` and each item of its batch: its prompt with another item's completion."""
    steps = []
    for step, batch in enumerate(plan):
        own = [items[i].examples[0] for i in batch]
        given = derangement([e.prompt_ids for e in own], coordinate_seed(seed, "kl", step))
        steps.append(
            [
                Example(prompt_ids=e.prompt_ids, completion_ids=own[j].completion_ids)
                for e, j in zip(own, given, strict=True)
            ]
            if len(own) > 1
            else []  # a completion with its own prompt says nothing about the KL
        )
    return steps
