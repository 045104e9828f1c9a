"""python -m tests.rounds.kill_driver FOLDER KILLS: SIGKILL at moments spread over a run of the loop, then go on.

A moment is a call that changes the disk. Each victim is a fork, so that imports are paid for once.
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
from plum_core.rounds.compare import differences
from plum_core.rounds.loop import Rounds
from plum_core.rounds.observer import Observer
from tests.rounds.fakes import FakeEngine, FakeSource, make_config

CHANGES = ("replace", "fsync", "truncate", "unlink", "rmdir", "ftruncate")


class Marker(Observer):
    """Leaves the stage's name where the parent finds it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stage(self, round_: int, stage: str, unit: str) -> None:
        self.path.write_text(stage)


class Moments:
    """Counts the disk-changing calls, and dies before number ``victim``."""

    def __init__(self, victim: int | None) -> None:
        self.count, self.victim = 0, victim

    def watch(self) -> None:
        for name in CHANGES:
            setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        fsync = os.fsync

        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.count == self.victim:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1
            # a killed process loses nothing that the kernel has, so syncing would only cost the test its time
            return None if call is fsync else call(*args, **kwargs)

        return counted


def sitting(folder: Path, victim: int | None) -> tuple[int, bool]:
    """One sitting in a fork: (moments counted, whether it was killed)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        moments = Moments(victim)
        moments.watch()
        run_folder.git_state = lambda: None  # two more processes a sitting, and nothing to do with kills
        config = make_config(folder, policy=make_config(folder.parent).policy)
        Rounds(config, FakeSource(), FakeEngine(), observer=Marker(folder / "stage"), argv=["plum"]).go()
        os.write(writer, str(moments.count).encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    count = os.read(reader, 32)
    os.close(reader)
    killed = os.WIFSIGNALED(status)
    if not killed and os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"a sitting failed with status {status}")
    return int(count or 0), killed


def main(top: Path, kills: int) -> None:
    moments, _ = sitting(top / "whole", None)
    stages: dict[str, int] = {}
    different: list[str] = []
    for number in range(kills):
        victim = (number * moments) // kills
        folder = top / f"killed-{number}"
        _, killed = sitting(folder, victim)
        assert killed, f"moment {victim} of {moments} never came"
        mark = folder / "stage"
        stage = mark.read_text() if mark.exists() else "start"
        stages[stage] = stages.get(stage, 0) + 1
        sitting(folder, victim // 2)  # the second sitting may be killed too
        sitting(folder, None)
        different += [f"{victim}: {line}" for line in differences(top / "whole/run", folder / "run")]
        shutil.rmtree(folder)
    print(json.dumps({"kills": kills, "moments": moments, "stages": stages, "different": different}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
