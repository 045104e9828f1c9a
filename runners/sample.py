"""Stage 2a: samples of a policy, with exact token ids and log-probs.

    python runners/sample.py --policy CHECKPOINT --instructions instructions.jsonl --out samples.jsonl
    python runners/sample.py --policy CHECKPOINT --instructions instructions.jsonl --tests tests.jsonl \
        --out samples.jsonl --programs programs.jsonl

With ``--tests``, only instructions whose tests were kept are sampled; ``--programs`` writes what runners/execute.py
takes. Killed, the same command goes on; under torchrun the ranks share the work.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from plum_core import settings
from plum_core.preferences import verdict_id
from plum_core.prompts import PromptStyle
from plum_core.records import Instruction, Sample, read_jsonl, write_jsonl
from plum_core.rounds.chunks import Tally
from plum_core.rounds.config import DrawConfig
from plum_core.rounds.single import bench, read_tasks
from plum_core.rounds.stages import draw_samples, program_of, tally_samples


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """Whom to ask what, and how often."""

    policy: Path  # checkpoint folder
    instructions: Path  # JSONL of {id, prompt, starter?}
    out: Path  # JSONL of samples
    tests: Path | None = None  # JSONL of test suites
    programs: Path | None = None  # JSONL of each sample with its tests; needs tests
    round: int = 1  # a coordinate of the seeds, as in a run
    seed: int = 0
    prompts: PromptStyle = "comment"  # how the policy is asked; chat: by the checkpoint's chat template
    device: str = "auto"
    quiet: bool = False
    sampling: DrawConfig = field(default_factory=DrawConfig)

    def __post_init__(self) -> None:
        if self.programs and not self.tests:
            raise ValueError("--programs needs --tests: a program is a sample with its tests")


def run(config: SampleConfig) -> None:
    tasks = read_tasks(config.instructions, config.tests) if config.tests else []
    instructions = [i for i, _ in tasks] or list(read_jsonl(config.instructions, Instruction))
    draw = config.sampling
    with bench(sampler=draw.options(), device=config.device, quiet=config.quiet, prompts=config.prompts) as place:
        policy = place.engine.policy(config.policy)

        def work(chunk: list[Instruction]) -> tuple[list[Sample], Tally]:
            samples = draw_samples(policy, chunk, draw.params(), draw.n, config.seed, config.round)
            return samples, tally_samples(samples)

        tally = place.chunked(config.out, "sampling", "instructions", instructions, draw.chunk, work, config)
        if place.is_main:
            if config.programs:
                suites = {i.id: s for i, s in tasks}
                samples = read_jsonl(config.out, Sample)
                write_jsonl(
                    config.programs, (program_of(verdict_id(s), s.code, suites[s.instruction_id]) for s in samples)
                )
            print(f"{tally['samples']} samples, {tally['tokens']} tokens, {tally['truncated']} cut at max_new_tokens")


if __name__ == "__main__":
    sys.exit(settings.main(run, SampleConfig, doc=__doc__ or ""))
