"""How rows that share prompts are laid out for batched products: N entries of one prompt, each with K slots.

A prompt with more rows than K takes several entries; slots that no row fills are idle. Small integers only: no
tensor is touched here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

ENTRY_COST = 1  # in slots: what reading a prompt's keys and values once costs beside the work of its slots


@dataclass(frozen=True, slots=True)
class Arrangement:
    """prompts: the prompt of each of N entries. width: K. slots: for each row its slot in [0, N * K), rising."""

    prompts: list[int]
    width: int
    slots: list[int]

    @property
    def size(self) -> int:
        return len(self.prompts) * self.width


def arrange(owners: Sequence[int]) -> Arrangement:
    """The cheapest arrangement of rows whose prompts are ``owners``, which must stand grouped (1, 1, 0, 0, 0, 4)."""
    counts = Counter(owners)
    width = min(sorted({*counts.values(), *_halvings(max(counts.values()))}), key=lambda k: _cost(counts, k))
    prompts: list[int] = []
    slots: list[int] = []
    for prompt, count in counts.items():  # in order of first appearance
        start = len(prompts) * width
        slots += range(start, start + count)
        prompts += [prompt] * -(-count // width)
    return Arrangement(prompts, width, slots)


def _cost(counts: Counter[int], width: int) -> int:
    return sum(-(-count // width) for count in counts.values()) * (width + ENTRY_COST)


def _halvings(count: int) -> list[int]:
    out = [count]
    while out[-1] > 1:
        out.append(-(-out[-1] // 2))
    return out
