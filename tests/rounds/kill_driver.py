"""python -m tests.rounds.kill_driver FOLDER EACH [real|ahead] [term]: SIGKILL at EACH moments of each stage, and go on.

A moment is a call that changes the disk. Each victim is a fork, so that imports are paid for once. ``real`` takes the
toy policy, the sandbox and the trainer in place of the fakes; ``ahead`` a staleness of one, so that samples are drawn
beside training; ``term`` SIGTERM, after which the status must be 0.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plum_core.rounds import folder as run_folder
from plum_core.rounds.build import make_engine, make_source
from plum_core.rounds.compare import differences
from plum_core.rounds.loop import Rounds
from plum_core.rounds.observer import Observer
from plum_core.training.stop import ends_on_sigterm
from tests.rounds import toy
from tests.rounds.fakes import FakeEngine, FakeSource, make_config

CHANGES = ("replace", "fsync", "truncate", "unlink", "rmdir", "ftruncate")


class Moments(Observer):
    """Counts the disk-changing calls, knows the stage of each, and dies before number ``victim``."""

    def __init__(self, victim: int | None, number: signal.Signals) -> None:
        self.victim, self.number, self.now = victim, number, "start"
        self.stages: list[str] = []

    def stage(self, round_: int, stage: str, unit: str) -> None:
        self.now = stage

    def watch(self) -> None:
        for name in CHANGES:
            setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        fsync = os.fsync

        def counted(*args: Any, **kwargs: Any) -> Any:
            if len(self.stages) == self.victim:
                os.kill(os.getpid(), self.number)
            self.stages.append(self.now)
            # a killed process loses nothing that the kernel has, so syncing would only cost the test its time
            return None if call is fsync else call(*args, **kwargs)

        return counted


def go(folder: Path, real: bool, watcher: Observer) -> None:
    """One run in ``folder/run``."""
    if not real:
        lag = int("ahead" in sys.argv)
        config = make_config(folder, policy=make_config(folder.parent).policy, staleness=lag)
        Rounds(config, FakeSource(), FakeEngine(), observer=watcher, argv=["plum"]).go()
        return
    config = toy.make_config(folder.parent, folder / "run")
    with make_engine(config) as engine:
        Rounds(config, make_source(config, engine), engine, observer=watcher, argv=["plum"]).go()


def sitting(folder: Path, victim: int | None, real: bool, number: signal.Signals = signal.SIGKILL) -> list[str]:
    """One sitting in a fork: the stages of its moments, or none where it was killed or told to stop."""
    folder.mkdir(exist_ok=True)
    (folder / "stages.json").unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        moments = Moments(victim, number)
        moments.watch()
        run_folder.git_state = lambda: None  # two more processes a sitting, and nothing to do with kills
        with ends_on_sigterm():
            go(folder, real, moments)
            (folder / "stages.json").write_text(json.dumps(moments.stages))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return []
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"a sitting failed with status {status}")
    if not (folder / "stages.json").exists():
        return []
    found: list[str] = json.loads((folder / "stages.json").read_text())
    return found


def spread(stages: list[str], each: int) -> list[int]:
    """``each`` moments of every stage, from its first to its last."""
    out = []
    for name in dict.fromkeys(stages):
        own = [i for i, stage in enumerate(stages) if stage == name]
        out += [own[(k * (len(own) - 1)) // max(1, each - 1)] if each > 1 else own[len(own) // 2] for k in range(each)]
    return sorted(set(out))


def main(top: Path, each: int, real: bool, number: signal.Signals) -> None:
    if real:
        toy.main(top)
    stages = sitting(top / "whole", None, real)
    different: list[str] = []
    victims = spread(stages, each)
    for victim in victims:
        folder = top / f"killed-{victim}"
        assert not sitting(folder, victim, real, number), f"moment {victim} of {len(stages)} never came"
        if not real:
            sitting(folder, victim // 2, real, number)  # the second sitting may be killed too
        sitting(folder, None, real)
        different += [f"{victim}: {line}" for line in differences(top / "whole/run", folder / "run")]
        shutil.rmtree(folder)
    print(json.dumps({"stages": sorted({stages[v] for v in victims}), "kills": len(victims), "different": different}))


if __name__ == "__main__":
    how = signal.SIGTERM if "term" in sys.argv else signal.SIGKILL
    main(Path(sys.argv[1]), int(sys.argv[2]), "real" in sys.argv, how)
