"""Stage 1: instructions to tests that an author model wrote and execution filtered.

    python runners/make_tests.py --instructions instructions.jsonl --author CHECKPOINT --out tests.jsonl
    torchrun --nproc-per-node 2 runners/make_tests.py --instructions instructions.jsonl --author CHECKPOINT \
        --out tests.jsonl

Killed, the same command goes on. Rejected suites are in the file too, with ``kept`` false and the reason under ``why``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from plum_core import settings
from plum_core.execution import SandboxUnavailable
from plum_core.records import Instruction, TestSuite, read_jsonl
from plum_core.rounds.chunks import Tally
from plum_core.rounds.config import ExecutionConfig
from plum_core.rounds.single import bench
from plum_core.rounds.stages import tally_tests
from plum_core.sampling import Sampler
from plum_core.testing import TestingConfig, write_suites
from plum_models import load


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeTestsConfig:
    """What to write tests for, and by whom."""

    instructions: Path  # JSONL of {id, prompt, entry_point, starter}
    author: Path  # checkpoint folder of the model that writes the solutions
    out: Path  # JSONL of test suites
    seed: int = 0
    chunk: int = 64  # instructions a unit of work
    max_rows: int = 512  # solutions that decode together
    device: str = "auto"  # of the author
    skip_bad: bool = False  # pass over lines that are no instruction, and count them
    quiet: bool = False
    testing: TestingConfig = field(default_factory=TestingConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)


def run(config: MakeTestsConfig) -> None:
    reader = read_jsonl(config.instructions, Instruction, skip_bad=config.skip_bad)
    instructions = list(reader)
    with bench(execution=config.execution, device=config.device, quiet=config.quiet) as place:
        decoder, tokenizer = load(config.author)
        author = Sampler(decoder.to(place.engine.device), tokenizer, max_rows=config.max_rows)

        def work(chunk: list[Instruction]) -> tuple[list[TestSuite], Tally]:
            suites = list(write_suites(chunk, author, place.engine.executor, config.testing, seed=config.seed))
            return suites, tally_tests(suites)

        title = "writing and filtering tests"
        tally = place.chunked(config.out, title, "instructions", instructions, config.chunk, work, config)
        if place.is_main:
            why = ", ".join(f"{count} {name}" for name, count in tally.get("rejected", {}).items())
            print(f"{tally.get('kept', 0)} of {len(instructions)} kept; rejected: {why or 'none'}")
            if reader.skipped:
                print(f"{reader.skipped} bad lines were passed over")


if __name__ == "__main__":
    sys.exit(settings.main(run, MakeTestsConfig, doc=__doc__ or "", errors=(SandboxUnavailable,)))
