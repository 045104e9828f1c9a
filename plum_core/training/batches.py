"""Batches of bounded size, in an order that a seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A prompt and the completion that is scored, both as token ids, both non-empty.

    The completion holds its end-of-sequence id where one was drawn: it is scored like any other token.
    ``weights``: what each completion token's log-prob counts; None is 1 throughout.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.completion_ids:
            raise ValueError(
                f"prompt and completion must hold a token each, got {len(self.prompt_ids)} and "
                f"{len(self.completion_ids)}: a completion's first token is scored from the prompt's last"
            )

        if self.weights is not None and len(self.weights) != len(self.completion_ids):
            raise ValueError(f"{len(self.weights)} weights for {len(self.completion_ids)} completion tokens: one each")

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)

    def with_scored_prompt(self) -> Example:
        """The same tokens, all but the first scored."""
        tokens = self.prompt_ids + self.completion_ids
        return Example(prompt_ids=tokens[:1], completion_ids=tokens[1:])


def _cut(order: Sequence[int], costs: Sequence[tuple[int, int]], budget: int) -> list[list[int]]:
    """Greedy runs of ``order`` whose rows x widest width stay within ``budget``."""
    groups: list[list[int]] = []
    rows = width = 0
    for item in order:
        item_rows, item_width = costs[item]
        if groups and (rows + item_rows) * max(width, item_width) <= budget:
            groups[-1].append(item)
            rows, width = rows + item_rows, max(width, item_width)
        else:
            groups.append([item])
            rows, width = item_rows, item_width
    return groups


def _even_cut(order: Sequence[int], costs: Sequence[tuple[int, int]], budget: int) -> list[list[int]]:
    """The fewest groups that ``budget`` allows, under the smallest budget that needs no more of them.

    A greedy cut leaves a last group of any size, and its few items would weigh as much as a full step's.
    """
    groups = _cut(order, costs, budget)
    low, high = max(rows * width for rows, width in costs) - 1, budget
    while high - low > 1:
        middle = (low + high) // 2
        smaller = _cut(order, costs, middle)
        if len(smaller) == len(groups):
            groups, high = smaller, middle
        else:
            low = middle
    return groups


def plan_batches(costs: Sequence[tuple[int, int]], tokens_per_batch: int, seed: int) -> list[list[int]]:
    """Item indices batch by batch: every item once, similar widths together, the batches in a shuffled order.

    costs: (rows, width in tokens) of each item; a pair is one item of two rows. A batch holds at most
    ``tokens_per_batch`` padded tokens. Raises ValueError for an item that does not fit by itself.
    """
    for i, (rows, width) in enumerate(costs):
        if rows * width > tokens_per_batch:
            raise ValueError(
                f"item {i} takes {rows} x {width} = {rows * width} padded tokens, tokens_per_batch is "
                f"{tokens_per_batch}: raise it or drop long completions"
            )
    if not costs:
        return []
    draw = random.Random(seed)
    order = list(range(len(costs)))
    draw.shuffle(order)  # items of one width are mixed anew by each seed
    order.sort(key=lambda i: costs[i][1])
    batches = _even_cut(order, costs, tokens_per_batch)
    draw.shuffle(batches)
    return batches


def split(items: Sequence[int], costs: Sequence[tuple[int, int]], tokens: int | None) -> list[list[int]]:
    """Micro-batches: ``items`` in runs of at most ``tokens`` padded tokens; all in one where that is None."""
    if not items:
        return []
    return [list(items)] if tokens is None else _cut(items, costs, tokens)


def stream_batches(
    examples: Iterable[Example], tokens_per_batch: int, seed: int, *, window: int = 1024
) -> Iterator[list[Example]]:
    """Batches of a stream, ``window`` examples planned at a time, so that similar widths meet."""
    rest = iter(examples)
    for turn in range(1 << 62):
        ahead = list(islice(rest, window))
        if not ahead:
            return
        for batch in plan_batches([(1, len(e)) for e in ahead], tokens_per_batch, seed + turn):
            yield [ahead[i] for i in batch]


def cycle(examples: Sequence[Example], seed: int) -> Iterator[Example]:
    """``examples`` over and over, each pass in an order of its own."""
    if not examples:
        raise ValueError("no examples to cycle through")
    draw = random.Random(seed)
    while True:
        order = list(range(len(examples)))
        draw.shuffle(order)
        yield from (examples[i] for i in order)
