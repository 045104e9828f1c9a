"""Pairs: a program that passed all tests against one that did not, of one instruction."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from plum_core.preferences.config import PreferenceCounts, SelectionConfig
from plum_core.preferences.distance import edit_distance
from plum_core.preferences.groups import Candidate, Group, draw_total, make_groups
from plum_core.prompts import render_prompt
from plum_core.records import Instruction, Pair, Sample, Verdict
from plum_core.seeds import coordinate_seed

Match = tuple[Candidate, Candidate]  # (chosen, rejected)
NOISE_S = 0.02  # CPU seconds by which two runs of one program may differ on a busy machine


def make_pairs(
    samples: Iterable[Sample],
    verdicts: Iterable[Verdict],
    instructions: Iterable[Instruction],
    config: SelectionConfig,
    seed: int,
    render: Callable[[Instruction], str] = render_prompt,
) -> tuple[list[Pair], PreferenceCounts]:
    """Pairs by instruction, at most ``max_pairs`` each and ``max_total`` in all; and what was left out and why.

    render: the text of a prompt, for readers; training takes the ids that were sampled from.
    Verdicts join samples by the id ``INSTRUCTION/INDEX``. Equal input and seed give equal pairs in equal order.
    Raises ValueError for a sample of an unknown instruction, or a sample or verdict that comes twice.
    """
    groups, counts = make_groups(samples, verdicts, instructions, config, seed, mixed_only=True)
    pairs, excess = [], 0
    for group in groups:
        matches = _matches(group, config, coordinate_seed(seed, "pairs", group.instruction.id), excess)
        excess += sum(_longer(match) for match in matches)
        counts.capped += len(group.chosen) * len(group.rejected) - len(matches)
        pairs += [_pair(render(group.instruction), *match) for match in matches]
        quick = _faster(group, config, config.max_pairs - len(matches)) if config.faster else []
        pairs += [
            replace(_pair(render(group.instruction), *match), extra={"faster": [match[0].cpu_s, match[1].cpu_s]})
            for match in quick
        ]
    kept = draw_total(pairs, config, counts, seed)
    counts.faster = sum("faster" in pair.extra for pair in kept)
    return kept, counts


def mean_length_difference(pairs: Sequence[Pair]) -> float:
    """Mean of chosen minus rejected completion length, in tokens; 0 without pairs."""
    return sum(len(p.chosen_token_ids) - len(p.rejected_token_ids) for p in pairs) / max(1, len(pairs))


def _longer(match: Match) -> int:
    return len(match[0].sample.token_ids) - len(match[1].sample.token_ids)


def _balanced(ordered: list[Match], most: int, excess: int) -> list[Match]:
    """Unused programs first, then the pair that brings ``excess`` (tokens, of earlier pairs) closest to zero."""
    taken: list[Match] = []
    used: set[int] = set()
    left = list(ordered)
    while left and len(taken) < most:
        best = min(left, key=lambda m: (len(used & {id(m[0]), id(m[1])}) > 0, abs(excess + _longer(m))))
        left.remove(best)
        taken.append(best)
        used |= {id(best[0]), id(best[1])}
        excess += _longer(best)
    return taken


def _matches(group: Group, config: SelectionConfig, seed: int, excess: int) -> list[Match]:
    """The first ``max_pairs`` in the config's order; programs that are in no pair yet come before those that are."""
    ordered = _ordered([(c, r) for c in group.chosen for r in group.rejected], config.choice, seed)
    if config.balance_lengths:
        return _balanced(ordered, config.max_pairs, excess)
    taken: list[Match] = []
    used: set[int] = set()
    for chosen, rejected in ordered:
        if len(taken) < config.max_pairs and not used & {id(chosen), id(rejected)}:
            taken.append((chosen, rejected))
            used |= {id(chosen), id(rejected)}
    rest = (match for match in ordered if match not in taken)
    return taken + [match for match, _ in zip(rest, range(config.max_pairs - len(taken)), strict=False)]


def _faster(group: Group, config: SelectionConfig, most: int) -> list[Match]:
    """Pairs of programs that pass, each program in one pair at most: the widest ratios of CPU seconds first.

    Differences below ``NOISE_S`` say nothing, whatever their ratio.
    """
    taken: list[Match] = []
    free = sorted((c for c in group.chosen), key=lambda c: (c.cpu_s, c.sample.index))
    while len(free) > 1 and len(taken) < most:
        quick, slow = free[0], free[-1]
        if slow.cpu_s < config.faster * quick.cpu_s or slow.cpu_s - quick.cpu_s < NOISE_S:
            break
        taken.append((quick, slow))
        free = free[1:-1]
    return taken


def _ordered(matches: Sequence[Match], choice: str, seed: int) -> list[Match]:
    shuffled = random.Random(seed).sample(matches, len(matches))  # equals among the sorted are in no fixed order
    if choice == "nearest":
        shuffled.sort(key=lambda m: edit_distance(m[0].sample.token_ids, m[1].sample.token_ids))
    elif choice == "hardest":
        shuffled.sort(key=lambda m: -m[1].share)
    return shuffled


def _pair(prompt: str, chosen: Candidate, rejected: Candidate) -> Pair:
    return Pair(
        prompt=prompt,
        chosen=chosen.sample.text,
        rejected=rejected.sample.text,
        instruction_id=chosen.sample.instruction_id,
        chosen_index=chosen.sample.index,
        rejected_index=rejected.sample.index,
        prompt_token_ids=chosen.sample.prompt_token_ids,
        chosen_token_ids=chosen.sample.token_ids,
        rejected_token_ids=rejected.sample.token_ids,
    )
