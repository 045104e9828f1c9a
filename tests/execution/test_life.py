"""Nothing outlives its owner: processes, descriptors, files; kill -9 at every level."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from plum_core.execution import Executor, Limits
from plum_core.records.types import Outcome, Program
from tests.conftest import ROOT

TESTS = ("assert f(1, 2) == 3",)
ADD = "def f(a, b):\n    return a + b\n"
TRAINER = """
import sys
from plum_core.execution import Executor
from plum_core.records.types import Program
codes = ["import time\\ntime.sleep(99)", "while True: pass"]
with Executor(workers=2) as executor:
    print("ready", flush=True)
    long = {"cpu_s": 99, "wall_s": 99}
    list(executor.run(Program(id=c, code=c, tests=("f()",), limits=long) for c in codes))
"""


def parents() -> dict[int, int]:
    """Process id to parent's, of every process but zombies of others."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = entry.joinpath("stat").read_text().rsplit(")", 1)[1].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z":
                found[int(entry.name)] = int(parent)
    return found


def descendants(root: int) -> set[int]:
    tree = parents()
    family, grown = {root}, True
    while grown:
        more = {pid for pid, parent in tree.items() if parent in family} - family
        family |= more
        grown = bool(more)
    return family - {root}


def await_death(pids: set[int], seconds: float = 5.0) -> set[int]:
    """Those of ``pids`` that still live after a while."""
    end = time.monotonic() + seconds
    while (alive := pids & parents().keys()) and time.monotonic() < end:
        time.sleep(0.02)
    return alive


BUSY_JUDGE = """
from plum_core.execution import Executor
from plum_core.records.types import Program
slow = "assert f(1) == 0 or " + " or ".join(["len(set(range(199999))) == 1"] * 3000)
with Executor(workers=2) as executor:
    print("ready", flush=True)
    list(executor.run(Program(id=str(i), code=f"def f(x): return {i + 1}", tests=(slow,)) for i in range(2)))
"""


def trainer_with_running_children(code: str = TRAINER) -> tuple[subprocess.Popen[str], set[int]]:
    """A process that runs two endless programs, and its worker, zygote and child processes."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
        preexec_fn=partial(
            signal.signal, signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background jobs inherit it ignored
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    family = descendants(process.pid)
    assert len(family) >= 6  # two workers, two zygotes, two children
    return process, family


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_survives_the_trainer(how: int) -> None:
    process, family = trainer_with_running_children()
    process.send_signal(how)
    try:
        process.wait(timeout=10)
    finally:
        process.kill()
    assert await_death(family) == set()


def test_a_judge_in_the_middle_of_a_computation_dies_with_the_trainer() -> None:
    process, family = trainer_with_running_children(BUSY_JUDGE)
    process.kill()
    process.wait()
    assert await_death(family, seconds=2) == set()


def test_close_leaves_no_process_descriptor_or_file() -> None:
    places = (Path("/tmp"), Path("/dev/shm"))
    with Executor(workers=1):
        pass  # whatever is opened once, by the import machinery say
    before = set(os.listdir("/proc/self/fd")), {p for place in places for p in place.iterdir()}
    with Executor(workers=2) as executor:
        family = descendants(os.getpid())
        codes = [ADD, "open('/tmp/x', 'w')", "import os\nos._exit(0)", "import numpy\n" + ADD]
        assert len(list(executor.run(Program(id=c, code=c, tests=TESTS) for c in codes))) == 4
    assert await_death(family) == set()
    assert (set(os.listdir("/proc/self/fd")), {p for place in places for p in place.iterdir()}) == before
    with pytest.raises(ChildProcessError):  # no zombie either
        os.waitpid(-1, os.WNOHANG)


def test_a_worker_keeps_neither_descriptors_nor_children() -> None:
    """A hundred mixed programs on one worker: as many descriptors and children as after the first few."""
    codes = [
        ADD,
        "1 / 0",
        "import os\nos._exit(1)",
        "import os\nos.closerange(0, 99)",
        "def f(a, b): return 'x' * 10**7",
    ]

    def programs(count: int) -> list[Program]:
        return [Program(id=str(i), code=codes[i % len(codes)], tests=TESTS) for i in range(count)]

    with Executor(workers=1, share=False) as executor:
        list(executor.run(programs(10)))
        worker = executor._slots[0].worker._process.pid

        def held() -> tuple[int, int]:
            time.sleep(0.1)
            return len(os.listdir(f"/proc/{worker}/fd")), len(descendants(worker))

        before = held()
        assert len(list(executor.run(programs(100)))) == 100
        assert held() == before


def test_every_program_ends_with_one_verdict_whatever_is_killed() -> None:
    """Judge, zygote and child die by kill -9 at random moments."""
    draw = random.Random(0)
    programs = [Program(id=str(i), code="import time\ntime.sleep(0.01)\n" + ADD, tests=TESTS) for i in range(60)]
    outcomes: dict[str, Outcome] = {}
    with Executor(workers=2, limits=Limits(wall_s=2), share=False) as executor:
        for verdict in executor.run(programs):
            assert verdict.id not in outcomes
            outcomes[verdict.id] = verdict.outcome
            victims = sorted(descendants(os.getpid()))
            if victims and draw.random() < 0.3:
                with suppress(ProcessLookupError):  # it ended by itself meanwhile
                    os.kill(draw.choice(victims), signal.SIGKILL)
    assert outcomes.keys() == {program.id for program in programs}
    # each kill is a failure of ours: the program is tried again, and three times in a row is rare
    assert set(outcomes.values()) <= {Outcome.PASSED, Outcome.SANDBOX_ERROR}
    assert list(outcomes.values()).count(Outcome.PASSED) >= 55
