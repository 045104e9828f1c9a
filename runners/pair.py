"""Stage 2c: samples and verdicts to pairs or labelled completions in TRL's layouts.

    python runners/pair.py --instructions instructions.jsonl --samples samples.jsonl --verdicts verdicts.jsonl \
        --out pairs.jsonl
    python runners/pair.py --kind labels --instructions instructions.jsonl --samples samples.jsonl \
        --verdicts verdicts.jsonl --out labels.jsonl

A verdict's id is INSTRUCTION/INDEX of its sample.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from plum_core import settings
from plum_core.preferences import SelectionConfig, make_labels, make_pairs, mean_length_difference
from plum_core.records import Instruction, Sample, Verdict, read_jsonl, write_jsonl


@dataclass(frozen=True, slots=True, kw_only=True)
class PairConfig:
    """What to join, and how to choose."""

    instructions: Path
    samples: Path
    verdicts: Path
    out: Path  # JSONL of pairs or labels
    kind: Literal["pairs", "labels"] = "pairs"
    seed: int = 0
    skip_bad: bool = False  # pass over bad lines, and count them
    selection: SelectionConfig = field(default_factory=SelectionConfig)


def run(config: PairConfig) -> None:
    instructions = read_jsonl(config.instructions, Instruction, skip_bad=config.skip_bad)
    samples = read_jsonl(config.samples, Sample, skip_bad=config.skip_bad)
    verdicts = read_jsonl(config.verdicts, Verdict, skip_bad=config.skip_bad)
    make: Callable[..., tuple[list[Any], Any]] = make_pairs if config.kind == "pairs" else make_labels
    records, counts = make(samples, verdicts, instructions, config.selection, config.seed)
    write_jsonl(config.out, records)
    print(f"{len(records)} {config.kind} to {config.out}")
    print(", ".join(f"{name} {value}" for name, value in dataclasses.asdict(counts).items() if value))
    if config.kind == "pairs":
        print(f"chosen - rejected: {mean_length_difference(records):+.2f} tokens on average")
    skipped = instructions.skipped + samples.skipped + verdicts.skipped
    if skipped:
        print(f"{skipped} bad lines were passed over")


if __name__ == "__main__":
    sys.exit(settings.main(run, PairConfig, doc=__doc__ or ""))
