"""The method's own comparisons: ready experiments, several seeds, one table and one figure each.

    python runners/experiments.py                           # all of runners/configs/experiments: hours
    python runners/experiments.py objective controls --seeds 0 1 2 --processes 2
    python runners/experiments.py samples --base runners/configs/tiny.toml runners/configs/smoke.toml --seeds 0
    python runners/experiments.py objective --base my.toml --policy CHECKPOINT --out runs/mine

OUT/NAME.md and OUT/NAME.svg are written anew after each run. Killed, the same command goes on: a run that is done is
passed over, one that was begun resumes. Arms with equal settings share a run, across experiments too.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from plum_core import settings
from plum_core.experiments import (
    Cell,
    Experiment,
    figure,
    find_experiments,
    make_cells,
    markdown,
    read_experiment,
    results,
)
from plum_core.records import write_atomic
from plum_core.rounds.config import RunConfig

RUNNERS = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentsConfig:
    """Which comparisons, and on what."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()  # experiments that ship, or TOML files; none: all that ship
    base: tuple[Path, ...] = (RUNNERS / "configs" / "tiny.toml",)  # configs of runners/plum.py, later ones win
    policy: Path | None = None  # another policy than the base's
    rounds: int | None = None  # other than the base's; an arm's own stay
    seeds: tuple[int, ...] = (0, 1, 2)
    processes: int = 1  # of each run, on this machine
    out: Path = Path("runs/experiments")
    list: bool = False  # print what would be run, and stop

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ValueError(f"processes must be 1 or more, got {self.processes}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different numbers, one or more, got {list(self.seeds)}")
        if not self.base:
            raise ValueError("base names no config: give one of runners/plum.py")


def plan(config: ExperimentsConfig) -> list[tuple[Experiment, list[Cell]]]:
    common = [f"--policy={config.policy}"] if config.policy else []
    common += [f"--rounds={config.rounds}"] if config.rounds is not None else []
    files = [word for path in config.base for word in ("--config", str(path))]
    base = settings.parse(RunConfig, [*files, *common, "--out", str(config.out)])
    found = [
        read_experiment(path, base) for path in find_experiments(config.names, RUNNERS / "configs" / "experiments")
    ]
    return [(e, make_cells(e, config.base, common, config.seeds, config.out)) for e in found]


def command(config: ExperimentsConfig, name: str) -> str:
    words = [f"python runners/experiments.py {name} --seeds {' '.join(map(str, config.seeds))}"]
    if config.base != ExperimentsConfig.__dataclass_fields__["base"].default:
        words.append(f"--base {' '.join(map(str, config.base))}")
    words += [f"--policy {config.policy}"] if config.policy else []
    words += [f"--rounds {config.rounds}"] if config.rounds is not None else []
    return " ".join(words)


def write(config: ExperimentsConfig, experiment: Experiment, cells: Sequence[Cell]) -> None:
    found = results(experiment, cells)
    if found:
        table = markdown(experiment, found, command(config, experiment.name), config.seeds)
        write_atomic(config.out / f"{experiment.name}.svg", figure(experiment, found))
        write_atomic(config.out / f"{experiment.name}.md", table)


def run(config: ExperimentsConfig) -> int:
    """0, or the exit status of the run that failed; the table so far stands then."""
    planned = plan(config)
    for experiment, cells in planned:
        for cell in cells:
            state = "done" if cell.done else "to do"
            name = f"{experiment.name}: {cell.arm.name}, seed {cell.seed}"
            if config.list or cell.done:
                print(f"{name}: {state}, {cell.config.out}", flush=True)
                continue
            print(f"{name}: running in {cell.config.out}", flush=True)
            launch = [str(RUNNERS / "launch.py"), str(config.processes)] if config.processes > 1 else []
            words = [sys.executable, *launch, str(RUNNERS / "plum.py"), *cell.flags, "--quiet", "--json"]
            status = subprocess.run(words, stdout=subprocess.DEVNULL, check=False).returncode
            if status:
                print(f"error: {name} ended with exit status {status}; the same command goes on", file=sys.stderr)
                return status
            write(config, experiment, cells)
        if not config.list:
            write(config, experiment, cells)
            print(f"{experiment.name}: {config.out / experiment.name}.md", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(settings.main(run, ExperimentsConfig, doc=__doc__ or ""))
