"""Held-out figures of a policy: pass@1 sampled and greedy, pass@k, 95 % intervals over tasks, gains over another.

    python runners/evaluate.py --policy CHECKPOINT --instructions eval.jsonl --tests eval-tests.jsonl --out after.jsonl
    python runners/evaluate.py --policy CHECKPOINT --instructions eval.jsonl --tests eval-tests.jsonl \
        --out after.jsonl --against before.jsonl

OUT has one verdict a sample, its code beside it; ``--against`` takes such a file of another policy on the same tasks.
Killed, the same command goes on; under torchrun the ranks share the work.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plum_core import settings
from plum_core.evaluation import Score, TaskResult, greedy_gain, sampled_gain, score, task_results
from plum_core.execution import SandboxUnavailable
from plum_core.records import Verdict, read_jsonl
from plum_core.rounds.chunks import Tally
from plum_core.rounds.config import EvaluationConfig, ExecutionConfig
from plum_core.rounds.single import bench, read_tasks
from plum_core.rounds.stages import Task, evaluate_tasks, tally_verdicts
from plum_core.sampling import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """Whom to examine, and on what."""

    policy: Path  # checkpoint folder
    instructions: Path  # JSONL of {id, prompt, starter?}
    tests: Path  # JSONL of test suites
    out: Path  # JSONL of verdicts
    against: Path | None = None  # verdicts of another policy, for paired gains
    seed: int = 0
    max_new_tokens: int = 128
    max_rows: int = 512  # samples that decode together
    device: str = "auto"
    quiet: bool = False
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)


def lines(found: Score, results: Sequence[TaskResult], before: Sequence[TaskResult] | None) -> list[str]:
    """The figures in per cent."""
    out = [f"{found.tasks} tasks, {found.samples} samples, {found.lost} lost to sandbox errors"]
    for name, interval in (("pass@1 sampled", found.sampled), ("pass@1 greedy", found.greedy)):
        if interval:
            out.append(f"{name}: {interval.percent()} ({interval.method})")
    out += [f"pass@{k}: {100 * value:.1f}" for k, value in found.pass_at.items() if k > 1]
    if before is not None:
        for name, gain in (("sampled", sampled_gain(before, results)), ("greedy", greedy_gain(before, results))):
            if gain:
                out.append(f"gain {name}: {gain.points()} (paired, {gain.count} tasks)")
    return out


def run(config: EvaluateConfig) -> None:
    tasks, drawing = read_tasks(config.instructions, config.tests), config.evaluation
    names = [i.id for i, _ in tasks]
    before = task_results(names, read_jsonl(config.against, Verdict)) if config.against else None
    params = SamplingParams(temperature=drawing.temperature, max_new_tokens=config.max_new_tokens)
    with bench(max_rows=config.max_rows, execution=config.execution, device=config.device, quiet=config.quiet) as place:
        policy = place.engine.policy(config.policy)

        def work(chunk: list[Task]) -> tuple[list[Verdict], Tally]:
            verdicts = evaluate_tasks(place.engine, policy, chunk, params, drawing.samples, config.seed)
            return verdicts, tally_verdicts(verdicts)

        place.chunked(config.out, "evaluating", "tasks", tasks, drawing.chunk, work, config)
        if place.is_main:
            results = task_results(names, read_jsonl(config.out, Verdict))
            print("\n".join(lines(score(results, drawing.ks), results, before)))


if __name__ == "__main__":
    sys.exit(settings.main(run, EvaluateConfig, doc=__doc__ or "", errors=(SandboxUnavailable,)))
