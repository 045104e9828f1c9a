"""Labelled completions for objectives that need no pairs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from plum_core.preferences.config import PreferenceCounts, SelectionConfig
from plum_core.preferences.groups import Candidate, draw_total, make_groups
from plum_core.prompts import render_prompt
from plum_core.records import Instruction, Label, Sample, Verdict
from plum_core.seeds import coordinate_seed


def make_labels(
    samples: Iterable[Sample],
    verdicts: Iterable[Verdict],
    instructions: Iterable[Instruction],
    config: SelectionConfig,
    seed: int,
    render: Callable[[Instruction], str] = render_prompt,
) -> tuple[list[Label], PreferenceCounts]:
    """Labels by instruction, at most ``max_labels`` of each verdict, in order of sample index; else as make_pairs."""
    groups, counts = make_groups(samples, verdicts, instructions, config, seed, mixed_only=config.mixed_only)
    labels = []
    for group in groups:
        if config.mixed_only and not (group.chosen and group.rejected):
            continue
        for wanted, side in ((True, group.chosen), (False, group.rejected)):
            kept = _capped(side, config.max_labels, coordinate_seed(seed, "labels", group.instruction.id, str(wanted)))
            counts.capped += len(side) - len(kept)
            labels += [_label(render(group.instruction), candidate, wanted) for candidate in kept]
    return draw_total(_in_ratio(labels, config, counts, seed), config, counts, seed), counts


def _in_ratio(labels: list[Label], config: SelectionConfig, counts: PreferenceCounts, seed: int) -> list[Label]:
    """At most ``label_ratio`` labels of the more frequent verdict for each of the other, all equally likely to stay."""
    good = [i for i, label in enumerate(labels) if label.label]
    bad = [i for i, label in enumerate(labels) if not label.label]
    many, few = (good, bad) if len(good) >= len(bad) else (bad, good)
    most = int(config.label_ratio * len(few))
    if not config.label_ratio or len(many) <= most:
        return labels
    counts.capped += len(many) - most
    stay = {*few, *random.Random(coordinate_seed(seed, "label ratio")).sample(many, most)}
    return [label for i, label in enumerate(labels) if i in stay]


def _capped(side: Sequence[Candidate], most: int, seed: int) -> list[Candidate]:
    if len(side) <= most:
        return list(side)
    return sorted(random.Random(seed).sample(side, most), key=lambda c: c.sample.index)


def _label(prompt: str, candidate: Candidate, wanted: bool) -> Label:
    sample = candidate.sample
    return Label(
        prompt=prompt,
        completion=sample.text,
        label=wanted,
        instruction_id=sample.instruction_id,
        index=sample.index,
        prompt_token_ids=sample.prompt_token_ids,
        completion_token_ids=sample.token_ids,
    )
