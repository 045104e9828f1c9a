"""What work beside the stages gains: seconds from the first sample to the last step, arms in turn on one machine.

    python plum_core/rounds/benchmarks/overlap.py
    python plum_core/rounds/benchmarks/overlap.py --passes 5 --instructions 200 --save

The embedded policy, one process with one thread, one sandbox worker: two cores, so that drawing and judging can be
done at once. Arms: *in turn*; *beside* (verdicts while more is sampled); *beside, staleness 1* (samples and verdicts
also while the round before trains), and *in turn, staleness 1*, the same work as that. Seconds are those of sampling
and verdicts of all rounds but the first, and of training, by the run folder's own timings.

Where other work keeps the cores busy there is nothing to gain. ``--wait_s`` adds that many seconds of waiting to each
verdict, as programs that sleep or a sandbox on another machine do: what is gained then is known from the sums.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "kernels"))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "models"))
import torch
import tyro

from plum_core.execution.benchmarks.report import machine, save, table
from plum_core.records import Program, Verdict
from plum_core.rounds.build import make_engine, make_source
from plum_core.rounds.compare import differences
from plum_core.rounds.config import EvaluationConfig, ExecutionConfig, RunConfig
from plum_core.rounds.engine import LocalEngine
from plum_core.rounds.loop import Rounds
from plum_core.settings import parse

ROOT = Path(__file__).resolve().parents[3]
ARMS: dict[str, dict[str, Any]] = {
    "in turn": {"overlap": False},
    "beside": {"overlap": True},
    "in turn, staleness 1": {"overlap": False, "staleness": 1},
    "beside, staleness 1": {"overlap": True, "staleness": 1},
}
COUNTED = ("samples", "verdicts", "training")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is measured."""

    instructions: int = 120  # a round
    rounds: int = 3
    passes: int = 3
    workers: int = 1  # sandboxes
    wait_s: float = 0.0  # more a verdict
    save: bool = False  # write JSON and Markdown below
    results: Path = field(default_factory=lambda: Path(__file__).parent / "results")


class Waiting:
    """An engine whose verdicts come ``wait_s`` later."""

    def __init__(self, engine: LocalEngine, wait_s: float) -> None:
        self.engine, self.wait_s = engine, wait_s
        self.policy, self.train, self.close = engine.policy, engine.train, engine.close

    def judge(self, programs: Iterable[Program]) -> Iterator[Verdict]:
        for verdict in self.engine.judge(programs):
            time.sleep(self.wait_s)
            yield verdict


def run_config(config: Config, out: Path, arm: str) -> RunConfig:
    tiny = parse(RunConfig, ["--config", str(ROOT / "runners/configs/tiny.toml")])
    assert tiny.grammar.author is not None
    grammar = replace(
        tiny.grammar, author=ROOT / tiny.grammar.author, per_round=config.instructions, heldout=config.passes + 4
    )
    return replace(
        tiny,
        out=out,
        policy=ROOT / tiny.policy,
        rounds=config.rounds,
        grammar=grammar,
        sampling=replace(tiny.sampling, chunk=max(1, config.instructions // 8)),
        execution=ExecutionConfig(workers=config.workers),
        evaluation=EvaluationConfig(samples=1, ks=(1,)),
        **ARMS[arm],
    )


def one(config: Config, out: Path, arm: str) -> float:
    """Seconds of one run, its tests and evaluations left out."""
    settings = run_config(config, out, arm)
    with make_engine(settings) as engine:
        waiting = Waiting(engine, config.wait_s)
        folder = Rounds(settings, make_source(settings, engine), waiting, argv=["overlap"]).go()
    later = [row for row in folder.timings() if row["stage"] in COUNTED]
    return float(sum(row["wall_s"] for row in later if row["round"] > 1 or row["stage"] == "training"))


def main(config: Config) -> None:
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="plum-overlap-") as place:
        for number in range(config.passes):
            folders = {arm: Path(place) / f"{number}-{i}" for i, arm in enumerate(ARMS)}
            for arm, folder in folders.items():
                seconds[arm].append(one(config, folder, arm))
            for a, b in (("in turn", "beside"), ("in turn, staleness 1", "beside, staleness 1")):
                left = set(differences(folders[a], folders[b])) - {"run.json: differs"}
                if left:
                    raise SystemExit(f"{a} and {b} differ: {', '.join(sorted(left))}")
            for folder in folders.values():
                shutil.rmtree(folder)
    rows = [
        {
            "arm": arm,
            "s": round(median(found), 1),
            "of in turn": round(median(b / a for a, b in zip(seconds["in turn"], found, strict=True)), 2),
        }
        for arm, found in seconds.items()
    ]
    about = (
        f"{config.rounds} rounds of {config.instructions} instructions, {config.workers} sandbox worker(s), "
        f"{config.wait_s:g} s more a verdict; medians of {config.passes} passes in turn, "
        f"{time.perf_counter() - began:.0f} s; equal bytes held. {machine()}"
    )
    text = f"# Work beside the stages\n\n{about}\n\n{table(rows)}"
    print(text)
    if config.save:
        save("overlap", text, {"seconds": seconds}, config.results)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
