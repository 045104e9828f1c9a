"""Samples and verdicts joined by instruction, and what must not become a preference left out and counted."""

from __future__ import annotations

import ast
import random
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from plum_core.preferences.config import PreferenceCounts, SelectionConfig
from plum_core.preferences.normal import normal_dump
from plum_core.records import Instruction, Label, Outcome, Pair, Sample, Verdict
from plum_core.seeds import coordinate_seed

T = TypeVar("T", Pair, Label)
MAX_PARSED_CHARS = 1 << 16  # a longer program is compared as text


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A sample with a verdict that says something. ``share``: of its tests that passed, in [0, 1]; ``passed``: all of
    them, or with graded labels enough of them."""

    sample: Sample
    passed: bool
    share: float
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The distinct programs of one instruction, each side by sample index."""

    instruction: Instruction
    chosen: tuple[Candidate, ...]
    rejected: tuple[Candidate, ...]


def make_groups(
    samples: Iterable[Sample],
    verdicts: Iterable[Verdict],
    instructions: Iterable[Instruction],
    config: SelectionConfig,
    seed: int,
    *,
    mixed_only: bool,
) -> tuple[list[Group], PreferenceCounts]:
    """Groups in the order of ``instructions``, labels already shuffled where the config wants the control.

    Raises ValueError for a sample of an unknown instruction, or a sample or verdict that comes twice.
    """
    counts = PreferenceCounts()
    by_instruction, judged = _by_instruction(samples, instructions), _by_id(verdicts)
    groups = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a model's invalid escapes are not the user's to read
        for instruction, drawn in _in_order(by_instruction, config):
            candidates = _judged(drawn, judged, config, counts)
            one_verdict = not mixed_only or (config.faster and any(c.passed for c in candidates))
            if _counts_as_mixed(candidates, counts) or (candidates and one_verdict):
                group = _group(instruction, candidates, config, counts)
                if config.labels == "random":
                    group = _shuffled(group, coordinate_seed(seed, "random labels", instruction.id))
                groups.append(group)
    return groups, counts


def draw_total(records: list[T], config: SelectionConfig, counts: PreferenceCounts, seed: int) -> list[T]:
    """``max_total`` of the pairs or labels in their order, all equally likely to stay."""
    total = len(records) if config.max_total is None else min(config.max_total, len(records))
    if total < len(records):
        counts.capped += len(records) - total
        stay = random.Random(coordinate_seed(seed, "total")).sample(range(len(records)), total)
        records = [records[i] for i in sorted(stay)]
    counts.kept = total
    return records


def verdict_id(sample: Sample) -> str:
    """The id that joins a sample with its program and verdict."""
    return f"{sample.instruction_id}/{sample.index}"


def _by_instruction(
    samples: Iterable[Sample], instructions: Iterable[Instruction]
) -> dict[str, tuple[Instruction, list[Sample]]]:
    groups: dict[str, tuple[Instruction, list[Sample]]] = {i.id: (i, []) for i in instructions}
    seen: set[str] = set()
    for sample in samples:
        name = verdict_id(sample)
        if sample.instruction_id not in groups:
            raise ValueError(f"sample {name}: its instruction is not among the {len(groups)} given")
        if name in seen:
            raise ValueError(f"sample {name} comes twice: the file was joined with itself")
        seen.add(name)
        groups[sample.instruction_id][1].append(sample)
    for _, drawn in groups.values():
        drawn.sort(key=lambda s: s.index)
    return groups


def _in_order(
    groups: dict[str, tuple[Instruction, list[Sample]]], config: SelectionConfig
) -> Iterable[tuple[Instruction, list[Sample]]]:
    return groups.values() if config.order == "given" else (groups[name] for name in sorted(groups))


def _by_id(verdicts: Iterable[Verdict]) -> dict[str, Verdict]:
    out: dict[str, Verdict] = {}
    for verdict in verdicts:
        if verdict.id in out:
            raise ValueError(f"verdict {verdict.id} comes twice: the file was joined with itself")
        out[verdict.id] = verdict
    return out


def _judged(
    drawn: Sequence[Sample], judged: dict[str, Verdict], config: SelectionConfig, counts: PreferenceCounts
) -> list[Candidate]:
    """The samples whose verdict says something about them."""
    counts.instructions += 1
    counts.samples += len(drawn)
    out = []
    for sample in drawn:
        verdict = judged.get(verdict_id(sample))
        if verdict is None:
            counts.no_verdict += 1
        elif verdict.outcome == Outcome.SANDBOX_ERROR:
            counts.sandbox_error += 1
        elif not verdict.attested:
            counts.unattested += 1
        else:
            share = sum(verdict.passed) / max(1, len(verdict.passed))
            passed = verdict.outcome == Outcome.PASSED or (config.chosen_share < 1 and share >= config.chosen_share)
            if not passed and share > config.rejected_share:
                counts.between += 1
            else:
                out.append(Candidate(sample=sample, passed=passed, share=share, cpu_s=verdict.cpu_s))
    return out


def _counts_as_mixed(candidates: Sequence[Candidate], counts: PreferenceCounts) -> bool:
    verdicts = {c.passed for c in candidates}
    if len(verdicts) == 2:
        counts.mixed += 1
        return True
    if not verdicts:
        counts.unjudged += 1
    elif verdicts == {True}:
        counts.all_passed += 1
    else:
        counts.all_failed += 1
    return False


def _group(
    instruction: Instruction, candidates: Sequence[Candidate], config: SelectionConfig, counts: PreferenceCounts
) -> Group:
    usable = list(_usable(candidates, config, counts))
    chosen = tuple(c for c in usable if c.passed)
    rejected = tuple(c for c in usable if not c.passed)
    counts.chosen += len(chosen)
    counts.rejected += len(rejected)
    counts.one_sided += bool(len({c.passed for c in candidates}) == 2 and not (chosen and rejected))
    return Group(instruction=instruction, chosen=chosen, rejected=rejected)


def _usable(candidates: Sequence[Candidate], config: SelectionConfig, counts: PreferenceCounts) -> Iterator[Candidate]:
    """One candidate a distinct program; those that may not become a preference left out."""
    programs: dict[str, list[Candidate]] = {}
    runs: dict[str, bool] = {}
    for candidate in candidates:
        key, runnable = program_key(candidate.sample.code, names=config.same == "names")
        programs.setdefault(key, []).append(candidate)
        runs[key] = runnable
    for key, same in programs.items():
        if len({c.passed for c in same}) == 2:
            counts.flaky += len(same)
            continue
        counts.duplicate += len(same) - 1
        best = min(same, key=lambda c: (c.sample.finish_reason != "stop", c.sample.index))
        if best.passed and best.sample.finish_reason != "stop":
            counts.truncated += 1
        elif not best.passed and not runs[key] and not config.unrunnable:
            counts.unrunnable += 1
        else:
            yield best


def program_key(code: str, *, names: bool = False) -> tuple[str, bool]:
    """What two samples of one program share (``ast.dump``, else the text), and whether it compiles.

    ``names``: the names of locals and docstrings make no difference.
    """
    text = code.strip()
    if len(text) > MAX_PARSED_CHARS:
        return text, True
    try:
        tree = ast.parse(code)
        compile(tree, "<sample>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError):
        return text, False
    try:
        return normal_dump(tree) if names else ast.dump(tree), True
    except RecursionError:
        return text, True


def _shuffled(group: Group, seed: int) -> Group:
    """As many chosen and rejected as before, drawn without a look at the verdicts.

    Rejected samples that were cut at the length limit stay where they are: they may not be chosen.
    """
    fixed = [c for c in group.rejected if c.sample.finish_reason != "stop"]
    pool = sorted(
        (c for c in (*group.chosen, *group.rejected) if c.sample.finish_reason == "stop"),
        key=lambda c: c.sample.index,
    )
    random.Random(seed).shuffle(pool)
    cut = len(group.chosen)
    return Group(
        instruction=group.instruction,
        chosen=tuple(sorted(pool[:cut], key=lambda c: c.sample.index)),
        rejected=tuple(sorted([*pool[cut:], *fixed], key=lambda c: c.sample.index)),
    )
