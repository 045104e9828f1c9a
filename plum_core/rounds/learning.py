"""What a round learns from: its samples and verdicts as pairs, labels or grades; or supervised ones, the control."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plum_core.objectives import find_objective
from plum_core.preferences import make_labels, make_pairs
from plum_core.prompts import render_prompt
from plum_core.records import Grade, Instruction, Label, Pair, Sample, Verdict, read_jsonl
from plum_core.rounds.config import RunConfig
from plum_core.rounds.engine import Policy
from plum_core.seeds import coordinate_seed
from plum_core.training import Graded, GroupSettings, MovingSettings, PreferenceConfig, Records, grade

Made = Sequence[Pair] | Sequence[Label] | Sequence[Grade]


def kind_of(config: RunConfig) -> str:
    """pairs, labels, groups or completions: what the objective of ``config`` learns from."""
    return find_objective(config.training.objective).data


def training_of(config: RunConfig) -> PreferenceConfig:
    """The settings of training: the config's, or for ``learn = sft`` its likelihood term alone."""
    if config.learn == "preferences":
        return config.training
    unset: dict[str, Any] = dict.fromkeys(config.training.options)
    return dataclasses.replace(
        config.training, objective="rft", moving=MovingSettings(), groups=GroupSettings(), **unset
    )


def make_records(
    config: RunConfig,
    number: int,
    instructions: Sequence[Instruction],
    samples: Iterable[Sample],
    verdicts: Iterable[Verdict],
    policy: Callable[[], Policy],
) -> tuple[Made, dict[str, Any]]:
    """The records of round ``number``'s preferences.jsonl, and how they were come by. ``policy``: the run's first."""
    if kind_of(config) == "groups":
        return make_grades(samples, verdicts, config.training)
    make: Callable[..., tuple[list[Any], Any]] = make_labels if kind_of(config) == "labels" else make_pairs
    # a text of the checkpoint's own, where it is not asked in the embedded policy's form
    render = render_prompt if config.prompts == "comment" else policy().render
    seed = coordinate_seed(config.seed, "preferences", number)
    records, counts = make(samples, verdicts, instructions, config.selection, seed, render)
    return records, dataclasses.asdict(counts)


def make_grades(
    samples: Iterable[Sample], verdicts: Iterable[Verdict], training: PreferenceConfig
) -> tuple[list[Grade], dict[str, Any]]:
    """One a sample with a verdict that says something; none at all where every instruction's are the same."""
    groups: dict[str, list[float | None]] = {}
    grades = []
    for one in grade(samples, verdicts, training.groups.reward):
        groups.setdefault(one.sample.instruction_id, []).append(one.reward)
        if one.reward is not None:
            grades.append(Grade(instruction_id=one.sample.instruction_id, index=one.sample.index, reward=one.reward))
    known = [[r for r in rewards if r is not None] for rewards in groups.values()]
    mixed = sum(len(set(rewards)) > 1 for rewards in known)
    row = {
        "instructions": len(groups),
        "mixed": mixed,
        "all_passed": sum(set(rewards) == {1.0} for rewards in known),
        "all_failed": sum(set(rewards) == {0.0} for rewards in known),
        "unjudged": sum(not rewards for rewards in known),
        "one_sided": sum(len(set(rewards)) == 1 and not set(rewards) <= {0.0, 1.0} for rewards in known),
        "kept": len(grades) if mixed else 0,
        "capped": 0,
        "reward": sum(map(sum, known)) / max(1, len(grades)),
    }
    return grades if mixed else [], row


def supervised(
    config: RunConfig, number: int, examples: Sequence[tuple[str, str]], policy: Policy, records: Made
) -> list[Label]:
    """As many supervised completions as ``records`` would have put sequences through the policy."""
    if not examples:
        raise ValueError("learn = sft needs supervised examples: set tasks.sft, or learn from preferences")
    count = sum(2 if isinstance(record, Pair) else 1 for record in records)
    draw = random.Random(coordinate_seed(config.seed, "supervised", number))
    order = [i for _ in range(-(-count // len(examples))) for i in draw.sample(range(len(examples)), len(examples))]
    return [
        Label(
            prompt=policy.ask(examples[i][0]),
            completion=examples[i][1],
            label=True,
            instruction_id=f"sft-{i}",
            index=0,
            prompt_token_ids=policy.encode_prompt(policy.ask(examples[i][0])),
            completion_token_ids=policy.encode_completion(examples[i][1]),
        )
        for i in order[:count]
    ]


def read_records(config: RunConfig, preferences: Path, samples: Path) -> Records:
    """What training takes, from a round's files."""
    kind = kind_of(config)
    if config.learn == "sft" or kind == "labels":
        return list(read_jsonl(preferences, Label))
    if kind != "groups":
        return list(read_jsonl(preferences, Pair))
    rewards = {(g.instruction_id, g.index): g.reward for g in read_jsonl(preferences, Grade)}
    drawn = read_jsonl(samples, Sample)
    return [Graded(sample=s, reward=rewards.get((s.instruction_id, s.index))) for s in drawn]


def nothing_to_learn(number: int, counts: Mapping[str, Any]) -> str:
    """The sentence of a round whose samples say nothing."""
    why = ", ".join(f"{name} {counts[name]}" for name in ("all_passed", "all_failed", "unjudged", "one_sided"))
    return (
        f"round {number}: {counts['instructions']} instructions gave no preference ({why}): "
        "raise sampling.n, or take tasks that the policy sometimes solves"
    )
