"""What the rows of metrics do not hold, read from a round's own files: intervals of pass@k, pass rates, lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plum_core.evaluation import Interval, TaskResult, mean_interval, pass_at_k, score, task_results
from plum_core.preferences import verdict_id
from plum_core.records import Instruction, Outcome, Sample, Verdict, read_jsonl
from plum_core.rounds.folder import RunFolder

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundDetail:
    """``pass_at``: ``sampled``, ``greedy`` and ``pass@k`` with intervals over tasks.
    ``passes``: instructions by how many of their judged samples passed, of ``drawn`` each.
    ``lengths``: tokens of a sample at ``QUANTILES``, by whether it passed.
    """

    number: int
    pass_at: dict[str, Interval]
    drawn: int
    passes: Counter[int]
    lengths: dict[str, tuple[float, ...]]


def read_details(folder: RunFolder) -> list[RoundDetail]:
    """One a round that has begun, the policy as it came first."""
    ks = tuple(folder.info()["config"]["evaluation"]["ks"])
    numbers = sorted(int(p.name.removeprefix("round-")) for p in folder.path.glob("round-[0-9][0-9][0-9]"))
    return [_read(folder, number, ks) for number in numbers]


def heldout_results(folder: RunFolder, number: int) -> list[TaskResult]:
    """The evaluation after round ``number``, a task each; none where it is not done."""
    path, listing = folder.round(number) / "evaluation.jsonl", folder.heldout / "instructions.jsonl"
    if not path.exists() or not listing.exists():
        return []
    return task_results([i.id for i in read_jsonl(listing, Instruction)], read_jsonl(path, Verdict))


def pass_intervals(results: Sequence[TaskResult], ks: Sequence[int]) -> dict[str, Interval]:
    """pass@1 sampled and greedy, and each pass@k that all tasks allow, with intervals over tasks."""
    found = score(results)
    named = {"sampled": found.sampled, "greedy": found.greedy}
    drawn = [r for r in results if r.n]
    for k in ks:
        if k > 1 and len(drawn) > 1 and k <= min(r.n for r in drawn):
            named[f"pass@{k}"] = mean_interval([pass_at_k(r.n, r.passed, k) for r in drawn])
    return {name: interval for name, interval in named.items() if interval is not None}


def _read(folder: RunFolder, number: int, ks: Sequence[int]) -> RoundDetail:
    place = folder.round(number)
    passed = _passed(place / "verdicts.jsonl")
    by_instruction: dict[str, list[bool]] = {}
    for name, good in passed.items():
        by_instruction.setdefault(name.rpartition("/")[0], []).append(good)
    return RoundDetail(
        number=number,
        pass_at=pass_intervals(heldout_results(folder, number), ks),
        drawn=max(map(len, by_instruction.values()), default=0),
        passes=Counter(sum(hits) for hits in by_instruction.values()),
        lengths=_lengths(place / "samples.jsonl", passed),
    )


def _passed(path: Path) -> dict[str, bool]:
    """Whether each judged sample passed; what our sandbox failed on says nothing."""
    if not path.exists():
        return {}
    verdicts = read_jsonl(path, Verdict)
    return {v.id: v.outcome == Outcome.PASSED for v in verdicts if v.outcome != Outcome.SANDBOX_ERROR}


def _lengths(path: Path, passed: dict[str, bool]) -> dict[str, tuple[float, ...]]:
    if not path.exists():
        return {}
    tokens: dict[str, list[int]] = {"passed": [], "not passed": []}
    for sample in read_jsonl(path, Sample):
        if (name := verdict_id(sample)) in passed:
            tokens["passed" if passed[name] else "not passed"].append(len(sample.token_ids))
    return {name: tuple(float(q) for q in np.quantile(t, QUANTILES)) for name, t in tokens.items() if t}
