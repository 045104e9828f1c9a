"""An instruction set as it was published to our own instructions: what is in it twice, or in a benchmark, left out.

    python runners/instructions.py --source codegen-instruct.json.gz --out instructions.jsonl
    python runners/instructions.py --source magicoder.jsonl --out instructions.jsonl \
        --benchmarks humaneval=HumanEval.jsonl.gz mbpp=mbpp.jsonl

Layouts are told by the first row's keys: OSS-Instruct, Evol-Instruct, ShareGPT, Alpaca, Self-OSS-Instruct, plain JSONL
and others, gzipped or not, or Parquet. OUT.left-out.jsonl says of each row that is not in OUT why, with the earlier row
that it repeats or the benchmark's task and the words that both have.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from plum_core import settings
from plum_core.instructions import BenchmarkIndex, Match, decontaminate, near_duplicates, read_instructions
from plum_core.records import write_atomic, write_jsonl
from plum_core.records.codec import encode_line


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionsConfig:
    """What to read, and what to leave out."""

    source: Path  # JSONL or a JSON list, gzipped or not, or Parquet
    out: Path  # JSONL of {id, prompt, ...}
    layout: str = ""  # name of the layout; default: told by the first row's keys
    rows: int = 0  # read so many; 0: all
    skip_bad: bool = False  # pass over rows that are no instruction, and count them
    similarity: float = 0.7  # share of word 3-grams at which a prompt repeats an earlier one; 0: keep them all
    benchmarks: tuple[str, ...] = ()  # NAME=FILE of humaneval, mbpp, livecodebench: nothing of them may be learned
    ngram: int = 13  # words in a row that give a benchmark's task away
    code_ngram: int = 30  # and its canonical solution

    def __post_init__(self) -> None:
        if self.rows < 0 or not 0 <= self.similarity <= 1:
            raise ValueError(f"rows must be >= 0 and similarity in [0, 1], got {self.rows} and {self.similarity}")
        for text in self.benchmarks:
            if not all(text.partition("=")):
                raise ValueError(f"benchmarks wants NAME=FILE, such as humaneval=HumanEval.jsonl.gz, got {text!r}")

    def index(self) -> BenchmarkIndex:
        """Raises ValueError as ``BenchmarkIndex.of_files`` does."""
        files = {name: Path(path) for name, _, path in (text.partition("=") for text in self.benchmarks)}
        return BenchmarkIndex.of_files(files, size=self.ngram, code_size=self.code_ngram)


def run(config: InstructionsConfig) -> None:
    index = config.index()
    reader = read_instructions(config.source, layout=config.layout, skip_bad=config.skip_bad)
    found = list(islice(reader, config.rows or None))
    left_out: list[dict[str, Any]] = []
    if config.similarity:
        left_out += [
            {"why": "near-duplicate", **asdict(d)} for d in near_duplicates(found, threshold=config.similarity)
        ]
    again = {row["id"] for row in left_out}
    matches: list[Match] = []
    kept = list(decontaminate((i for i in found if i.id not in again), index, matches))
    left_out += [{"why": "benchmark", **asdict(match)} for match in matches]
    write_atomic(config.out.with_suffix(".left-out.jsonl"), b"".join(map(encode_line, left_out)))
    write_jsonl(config.out, kept)
    layout = reader.layout.name if reader.layout else "none"
    print(f"{len(found)} instructions of {config.source} (layout {layout}), {reader.skipped} bad rows passed over")
    print(f"{len(again)} near-duplicates, {len({m.instruction_id for m in matches})} with a benchmark's task left out")
    print(f"{len(kept)} kept in {config.out}")


if __name__ == "__main__":
    sys.exit(settings.main(run, InstructionsConfig, doc=__doc__ or ""))
