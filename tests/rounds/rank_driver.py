"""torchrun tests/rounds/rank_driver.py FOLDER SLOW_S: the loop over fakes on every rank, each program taking SLOW_S."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from plum_core.records import Program, Verdict
from plum_core.rounds.engine import Trained
from plum_core.rounds.loop import Rounds
from plum_core.rounds.process import die_with_parent
from plum_core.training import init_world
from tests.rounds.fakes import FakeEngine, FakeSource, make_config


class RankEngine(FakeEngine):
    """Rank 0 trains; the others wait for it, as they do in a real step."""

    def __init__(self, slow_s: float) -> None:
        super().__init__()
        self.slow_s, self.world = slow_s, init_world()

    def judge(self, programs: Iterable[Program]) -> Iterator[Verdict]:
        for verdict in super().judge(programs):
            time.sleep(self.slow_s)
            yield verdict

    def train(self, *args: Any, **kwargs: Any) -> Trained:
        trained = super().train(*args, **kwargs) if self.world.is_main else Trained(steps=3, rows=(), fingerprint="")
        self.world.barrier()
        return trained


def main(folder: Path, slow_s: float) -> None:
    assert die_with_parent()
    engine = RankEngine(slow_s)
    (folder / f"pid-{engine.world.rank}").write_text(str(os.getpid()))
    config = make_config(folder, policy=folder.parent / "policy")
    rounds = Rounds(config, FakeSource(), engine, world=engine.world, argv=["plum"])
    rounds.go()
    (folder / f"judged-{engine.world.rank}").write_text(str(engine.judged))
    engine.world.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
