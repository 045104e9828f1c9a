"""The rounds: tests, samples, verdicts, preferences, training, evaluation, report.

    python runners/plum.py --config runners/configs/tiny.toml
    python runners/plum.py --config runners/configs/tiny.toml --smoke
    torchrun --nproc-per-node 2 runners/plum.py --config runners/configs/tiny.toml --out runs/mine --rounds 3
    python runners/plum.py --policy CHECKPOINT --out runs/own --source files --tasks.instructions instructions.jsonl \
        --tasks.tests tests.jsonl --tasks.heldout_instructions eval.jsonl --tasks.heldout_tests eval-tests.jsonl

Killed at any moment, the same command goes on and ends in the same files. SIGTERM saves and ends it with status 0.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

from plum_core import settings
from plum_core.execution import SandboxUnavailable
from plum_core.reporting import write_report
from plum_core.rounds.build import make_engine, make_source
from plum_core.rounds.config import RunConfig
from plum_core.rounds.display import Display
from plum_core.rounds.events import Events
from plum_core.rounds.loop import Rounds
from plum_core.rounds.observer import Observer
from plum_core.rounds.process import die_with_parent
from plum_core.rounds.show import show
from plum_core.rounds.single import make_console
from plum_core.rounds.summary import summarise
from plum_core.training import init_world, world_size
from plum_core.training.stop import ends_on_sigterm

CONFIGS = Path(__file__).resolve().parent / "configs"


def run(config: RunConfig) -> None:
    """All rounds, then the summary and the report, by rank 0."""
    with ends_on_sigterm(world_size()):
        _run(config)


def _run(config: RunConfig) -> None:
    die_with_parent()
    console, events = make_console(), Events(sys.stdout)
    with ExitStack() as stack:
        world = init_world()
        stack.callback(world.close)
        observer = Observer()
        if world.is_main and not config.quiet:
            observer = events if config.json else stack.enter_context(Display(console))
        engine = stack.enter_context(make_engine(config, world))
        rounds = Rounds(config, make_source(config, engine), engine, world=world, observer=observer)
        folder = rounds.go()
    if not world.is_main:
        return
    summary, report = summarise(folder), write_report(folder)
    if config.json:
        events.summary(summary, str(report), rounds.worked)
        return
    show(summary, console)
    if not rounds.worked:
        console.print(f"\nThis run was complete already; to begin anew, remove {folder.path} or name another --out.")


if __name__ == "__main__":
    presets = {"smoke": CONFIGS / "smoke.toml"}
    sys.exit(settings.main(run, RunConfig, doc=__doc__ or "", presets=presets, errors=(SandboxUnavailable,)))
