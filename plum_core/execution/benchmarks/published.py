"""Published verdicts and reference solutions through the executor: agreement, tiers, and every disagreement.

    python plum_core/execution/benchmarks/published.py --data ../shared/data
    python plum_core/execution/benchmarks/published.py --suites "LDB MBPP seed" LeetCode --cpu-s 60

Ends with status 1 when a verdict differs for a reason that ``disagreements.py`` does not know. All suites together
take about ten minutes on two cores; those called "EvalPlus plus" are 160,000 calls and half of it.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
from plum_core.execution import Executor, Limits
from plum_core.execution.benchmarks.disagreements import EXPLAINED, unexplained
from plum_core.execution.benchmarks.evalplus_suites import EVALPLUS_SUITES
from plum_core.execution.benchmarks.suites import SUITES, Case, Loader
from plum_core.records.types import Outcome, Verdict

ALL_SUITES: dict[str, Loader] = {**SUITES, **EVALPLUS_SUITES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is run."""

    data: Path = Path(__file__).resolve().parents[4] / "shared" / "data"
    suites: tuple[str, ...] = ()  # those whose names hold one of these words; all by default
    workers: int = 2
    cpu_s: float = 60.0
    packages: tuple[str, ...] = ("numpy", "sortedcontainers")


@dataclass(frozen=True, slots=True)
class Agreement:
    """One suite's verdicts beside the published ones."""

    verdicts: dict[str, Verdict]
    disagreeing: set[str]

    @property
    def attested(self) -> int:
        return sum(verdict.attested for verdict in self.verdicts.values())

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(verdict.outcome.value for verdict in self.verdicts.values())


def compare(executor: Executor, cases: list[Case]) -> Agreement:
    """Run all cases. Raises ValueError when an id occurs twice."""
    right = {case.program.id: case.right for case in cases}
    if len(right) != len(cases):
        raise ValueError("two programs of one suite have the same id")
    verdicts = {verdict.id: verdict for verdict in executor.run(case.program for case in cases)}
    return Agreement(verdicts, {name for name, v in verdicts.items() if (v.outcome is Outcome.PASSED) != right[name]})


def report(name: str, found: Agreement, seconds: float) -> None:
    """A table row, and a line a disagreement."""
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in found.outcomes.most_common())
    total = len(found.verdicts)
    agreeing = f"{total - len(found.disagreeing)}/{total}"
    print(f"| {name} | {agreeing} | {found.attested} | {outcomes} | {seconds:.1f} |", flush=True)
    for task in sorted(found.disagreeing):
        verdict = found.verdicts[task]
        why = EXPLAINED.get(name, {}).get(task, "NOT EXPLAINED")
        print(f"  {task}: {verdict.outcome.value} ({verdict.detail[:80]!r}): {why}", file=sys.stderr)


def main(config: Config) -> int:
    limits = Limits(cpu_s=config.cpu_s, wall_s=60.0, output_kib=1 << 16)
    chosen = [name for name in ALL_SUITES if not config.suites or any(word in name for word in config.suites)]
    strange = 0
    print("| suite | agree | attested | outcomes | s |\n|---|---|---|---|---|")
    with Executor(workers=config.workers, limits=limits, packages=config.packages) as executor:
        for name in chosen:
            began = time.monotonic()
            found = compare(executor, ALL_SUITES[name](config.data))
            report(name, found, time.monotonic() - began)
            new, gone = unexplained(name, found.disagreeing)
            strange += len(new)
            if gone:
                print(f"  now agree: {', '.join(sorted(gone))}", file=sys.stderr)
    return 1 if strange else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
