"""What each filter throws out of a real generator's answers to the first 300 rows of codegen-instruct.

    python plum_core/testing/benchmarks/stage1_yield.py --data ../shared/data

The answers (``codegen_answers.jsonl`` beside this file) were written by a language model that was asked as
``prompts/teaching_assistant.txt`` asks, and were not run before they were stored. The runner that is timed is
``runners/make_tests.py --answers``, so this is the command that a user types.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
from plum_core.execution.benchmarks.report import machine, save
from plum_core.instructions import read_instructions
from plum_core.records import TestSuite, read_jsonl, write_jsonl
from plum_core.testing.filters import REASONS

ROOT = Path(__file__).resolve().parents[3]
ANSWERS = Path(__file__).parent / "codegen_answers.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Where the rows are, and how many of them."""

    data: Path = ROOT.parent / "shared" / "data"
    rows: int = 300
    save: bool = False  # into results/ beside this file


def write_instructions(config: Config, path: Path) -> None:
    rows = read_instructions(config.data / "instruct_permissive/codegen-instruct.json.gz")
    numbered = enumerate(islice(rows, config.rows))
    write_jsonl(path, (replace(instruction, id=f"codegen-{number}") for number, instruction in numbered))


def main(config: Config) -> int:
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        write_instructions(config, at / "instructions.jsonl")
        words = ["--instructions", at / "instructions.jsonl", "--answers", ANSWERS, "--out", at / "tests.jsonl"]
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, ROOT / "runners" / "make_tests.py", *map(str, words), "--quiet"],
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - began
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return done.returncode
        suites = list(read_jsonl(at / "tests.jsonl", TestSuite))
    kept = [suite for suite in suites if suite.kept]
    lines = ["| filter | threw out | left | what |", "|---|---|---|---|"]
    left = len(suites)
    for why, words_for_it in REASONS.items():
        out = sum(suite.why == why for suite in suites)
        left -= out
        lines.append(f"| {why} | {out} | {left} | {words_for_it} |")
    strengths = [suite.extra["strength"] for suite in kept]
    dropped = {name: sum(s.extra.get("dropped", {}).get(name, 0) for s in kept) for name in ("duplicate", "vacuous")}
    text = "\n".join(
        [
            f"{len(suites)} answers, {seconds:.0f} s with start-up. {machine()}",
            "",
            *lines,
            "",
            f"{len(kept)} kept ({len(kept) / len(suites):.0%}), {sum(len(s.tests) for s in kept)} tests. Of single "
            f"tests in them, {dropped['duplicate']} duplicates and {dropped['vacuous']} vacuous ones were dropped.",
            f"Mutants that the kept suites notice: {statistics.mean(strengths):.1%} on average, all of them in "
            f"{sum(s == 1 for s in strengths)} suites, under half in {sum(s < 0.5 for s in strengths)}.",
            "",
        ]
    )
    print(text)
    if config.save:
        data = {"why": {why: sum(s.why == why for s in suites) for why in ("", *REASONS)}, "strengths": strengths}
        save("stage1-yield", text, data, Path(__file__).parent / "results")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
