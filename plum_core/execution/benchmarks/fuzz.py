"""Property-based fuzzing of the executor: sources, values, odd objects, wire messages and tests.

    python plum_core/execution/benchmarks/fuzz.py --minutes 10
    python plum_core/execution/benchmarks/fuzz.py --minutes 1 --families wire tests --seed 7
    python plum_core/execution/benchmarks/fuzz.py --replay fuzz-failures.jsonl

Every program must get exactly one verdict, none a failure of ours, none slow, none a pass for a value that the
program cannot know, and every worker must live through it. What goes wrong is appended to ``--failures``, a line a
program; ``--replay`` fires such a file again. Ends with status 1 when something went wrong.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import tyro
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
from plum_core.execution import Executor, Limits
from plum_core.execution.benchmarks.fuzz_shots import Shot
from plum_core.execution.benchmarks.fuzzing import FAMILIES, fire

LIMITS = Limits(cpu_s=0.25, wall_s=0.3, memory_mib=256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How long, and with what."""

    minutes: float = 10.0
    seed: int | None = None  # drawn and printed by default
    families: tuple[str, ...] = tuple(FAMILIES)
    workers: int = 2
    failures: Path = Path("fuzz-failures.jsonl")
    replay: Path | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.families) - FAMILIES.keys())
        if unknown:
            raise ValueError(f"unknown family {unknown[0]!r}; the families are {', '.join(FAMILIES)}")


def round_of(executor: Executor, family: str, number: int, examples: int) -> tuple[int, list[tuple[Shot, str]]]:
    """Fire ``examples`` volleys of one family; the number of programs, and what went wrong."""
    fired, wrong = 0, []

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(FAMILIES[family], min_size=4, max_size=12))
    def volley(shots: list[Shot]) -> None:
        nonlocal fired
        fired += len(shots)
        wrong.extend(fire(executor, shots))

    volley()
    return fired, wrong


def save(path: Path, wrong: list[tuple[Shot, str]]) -> None:
    """Append the failures, and say so."""
    with path.open("a", encoding="utf-8") as file:
        for shot, why in wrong:
            file.write(json.dumps({"why": why, "shot": shot.as_dict()}) + "\n")
            print(f"WRONG ({shot.kind}): {why}", file=sys.stderr, flush=True)


def fuzz(config: Config) -> Counter[str]:
    """Rounds of all families in turn until the time is up; programs by family, and ``wrong``."""
    first = config.seed if config.seed is not None else random.SystemRandom().getrandbits(32)
    print(f"seed {first}", flush=True)
    counts: Counter[str] = Counter()
    end = time.monotonic() + 60 * config.minutes
    number = first
    with Executor(workers=config.workers, limits=LIMITS) as executor:
        while time.monotonic() < end:
            for family in config.families:
                fired, wrong = round_of(executor, family, number, 40)
                counts[family] += fired
                counts["wrong"] += len(wrong)
                if wrong:
                    save(config.failures, wrong)
            number += 1
    return counts


def replay(path: Path, workers: int) -> Counter[str]:
    """Fire the file's shots again, one at a time."""
    counts: Counter[str] = Counter()
    with Executor(workers=workers, limits=LIMITS) as executor:
        for line in path.read_text(encoding="utf-8").splitlines():
            fields = json.loads(line)["shot"]
            shot = Shot(**{**fields, "tests": tuple(fields["tests"])})
            counts[shot.kind] += 1
            for _, why in fire(executor, [shot]):
                counts["wrong"] += 1
                print(f"WRONG ({shot.kind}): {why}")
    return counts


def main(config: Config) -> int:
    began = time.monotonic()
    counts = replay(config.replay, config.workers) if config.replay else fuzz(config)
    wrong = counts.pop("wrong", 0)
    told = ", ".join(f"{count} {family}" for family, count in counts.items())
    print(f"{sum(counts.values())} programs in {time.monotonic() - began:.0f} s ({told}): {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
