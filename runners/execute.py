"""Programs to verdicts: runs any JSONL of programs under confinement, and is useful by itself.

python runners/execute.py --programs programs.jsonl --out verdicts.jsonl
python runners/execute.py --format humaneval --programs HumanEval.jsonl.gz --samples canonical --out verdicts.jsonl
python runners/execute.py --format humaneval --programs HumanEval.jsonl.gz --samples samples.jsonl --out verdicts.jsonl

A program is ``{"id", "code", "tests": [str]}`` and optionally ``setup``, ``stdin_tests: [{input, output}]``,
``calls: [{call, expected}]``, ``limits``. Verdicts are appended as programs finish, each with the ``layers`` of
confinement that were in force; the same command resumes.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import Progress

from plum_core import settings
from plum_core.evaluation import humaneval
from plum_core.execution import Counts, Executor, Limits, SandboxUnavailable, share_of_cores
from plum_core.records.files import JsonlWriter, read_jsonl
from plum_core.records.types import Program, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteConfig:
    """What to run, and how much of it at a time."""

    programs: Path  # JSONL of programs, or HumanEval's problems file
    out: Path  # JSONL of verdicts; those that are there already are not run again
    format: Literal["programs", "humaneval"] = "programs"
    samples: str = "canonical"  # for humaneval: a file of {"task_id", "completion"}, or "canonical"
    workers: int = 0  # programs at a time; 0: one a processor, shared among this machine's ranks
    python: str = ""  # the programs' interpreter; empty: this one
    packages: tuple[str, ...] = ("numpy",)  # third-party packages that programs may import
    bind: bool = False  # each worker stays on a processor of its own: faster where nothing else runs there
    threads: int = 0  # how many threads a program may have beside its first
    limits: Limits = field(default_factory=Limits)
    cache: Path | None = None  # a file of verdicts that runs share: what is in it is not run again
    ordered: bool = False  # verdicts in the order of the programs, not as they finish
    skip_bad: bool = False  # pass over lines that are no program, and count them

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"workers must be 0 (one a processor) or more, got {self.workers}")
        if self.out.is_dir():
            raise ValueError(f"--out {self.out} is a folder: name the verdicts file in it")
        if self.cache is not None and self.cache.resolve() == self.out.resolve():
            raise ValueError(f"--cache {self.cache} is --out as well: keep the cache in a file of its own")


def read_programs(config: ExecuteConfig) -> tuple[list[Program], int]:
    """All programs, and how many bad lines were passed over. Reads to the end before anything runs."""
    if config.format == "humaneval":
        problems = humaneval.read_problems(config.programs)
        if config.samples == "canonical":
            return humaneval.canonical_programs(problems), 0
        return humaneval.sampled_programs(problems, Path(config.samples)), 0
    reader = read_jsonl(config.programs, Program, skip_bad=config.skip_bad)
    programs = list(reader)
    for program in programs:
        try:
            config.limits.overridden(program.limits)
        except ValueError as error:
            raise ValueError(f"{config.programs}: program {program.id!r}: {error}") from None
    return programs, reader.skipped


def remaining(programs: list[Program], out: Path) -> tuple[list[Program], list[Verdict]]:
    """The programs that have no verdict in ``out`` yet, and the verdicts that are there."""
    if not out.exists():
        return programs, []
    with JsonlWriter(out):
        pass  # opening cuts off the line that a killed run had in hand
    done = list(read_jsonl(out, Verdict))
    counts = Counter(verdict.id for verdict in done)
    left = []
    for program in programs:
        if counts[program.id] > 0:
            counts[program.id] -= 1
        else:
            left.append(program)
    return left, done


def open_executor(config: ExecuteConfig) -> Executor:
    """As the config says; a context manager."""
    return Executor(
        workers=config.workers or None,
        limits=config.limits,
        python=config.python or None,
        packages=config.packages,
        threads=config.threads,
        cores=share_of_cores() if config.bind else None,
        cache=config.cache,
    )


def execute(executor: Executor, config: ExecuteConfig, programs: list[Program]) -> Iterator[Verdict]:
    """Verdicts as programs finish, each on disk before it is yielded."""
    with JsonlWriter(config.out) as writer:
        for verdict in executor.run(programs, ordered=config.ordered):
            writer.write(replace(verdict, extra={**verdict.extra, "layers": executor.layers}))
            yield verdict


def summary(verdicts: list[Verdict], skipped: int, seconds: float, came: Counts, out: Path) -> str:
    """A few lines for a person."""
    counts = Counter(verdict.outcome.value for verdict in verdicts)
    lines = [f"{len(verdicts)} verdicts: " + ", ".join(f"{n} {name}" for name, n in counts.most_common())]
    unattested = sum(not verdict.attested for verdict in verdicts)
    if unattested:
        lines.append(f"{unattested} not attested: their tests could only run beside the program")
    if skipped:
        lines.append(f"{skipped} bad lines were passed over")
    if came.shared or came.cached:
        lines.append(f"{came.shared} shared the run of an equal program, {came.cached} were in the cache")
    rate = came.ran / max(seconds, 1e-9)
    lines.append(f"{came.ran} run in {seconds:.1f} s ({rate:.0f}/s); verdicts in {out}")
    return "\n".join(lines)


def run(config: ExecuteConfig) -> None:
    """Read, run what is left, say how it went."""
    programs, skipped = read_programs(config)
    if not programs:
        raise ValueError(f"{config.programs} holds no program: check the path and --format")
    left, verdicts = remaining(programs, config.out)
    began, came = time.monotonic(), Counts()
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("programs", total=len(programs), completed=len(verdicts))
        if left:
            with open_executor(config) as executor:
                for verdict in execute(executor, config, left):
                    verdicts.append(verdict)
                    progress.advance(task)
                came = executor.counts
    print(summary(verdicts, skipped, time.monotonic() - began, came, config.out))


if __name__ == "__main__":
    sys.exit(settings.main(run, ExecuteConfig, doc=__doc__ or "", errors=(SandboxUnavailable,)))
