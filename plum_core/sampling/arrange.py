"""How rows that share prompts are laid out for batched products: N entries of one prompt, each with K slots.

A prompt with more rows than K takes several entries; slots that no row fills are idle. Small integers only: no
tensor is touched here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

ENTRY_COST = 1  # in slots: reading a prompt's keys and values once, beside the work of its slots


@dataclass(frozen=True, slots=True)
class Arrangement:
    """prompts: the prompt of each of N entries. width: K. slots: of each row, in [0, N * K)."""

    prompts: list[int]
    width: int
    slots: list[int]

    @property
    def size(self) -> int:
        return len(self.prompts) * self.width


def arrange(owners: Sequence[int]) -> Arrangement:
    """The cheapest arrangement of rows whose prompts are ``owners``."""
    counts = Counter(owners)
    width = min(
        _widths(max(counts.values())), key=lambda k: sum(-(-n // k) for n in counts.values()) * (k + ENTRY_COST)
    )
    prompts: list[int] = []
    free: dict[int, int] = {}
    for prompt, count in counts.items():
        free[prompt] = len(prompts) * width
        prompts += [prompt] * -(-count // width)
    slots = []
    for prompt in owners:
        slots.append(free[prompt])
        free[prompt] += 1
    return Arrangement(prompts, width, slots)


def _widths(most: int) -> list[int]:
    """The largest count and its halvings: 20, 10, 5, 3, 2, 1."""
    out = [most]
    while out[-1] > 1:
        out.append(-(-out[-1] // 2))
    return out
