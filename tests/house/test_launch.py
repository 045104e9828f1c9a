"""Several processes, and a failure that is told once, by the one who knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Rank and way of failing come from the command line; the other rank waits for it, as in a collective.
SCRIPT = """
import os, sys, torch.distributed as dist
dist.init_process_group("gloo")
rank, (who, how) = dist.get_rank(), (int(sys.argv[1]), sys.argv[2])
if rank == who:
    if how == "mistake":
        print(f"error: rank {rank} has a sentence", file=sys.stderr)
        sys.exit(2)
    if how == "bug":
        raise KeyError(f"a bug on rank {rank}")
    if how == "killed":
        os.kill(os.getpid(), 9)
dist.barrier()
sys.stdout.write(f"rank {rank} is done\\n")  # one write: print makes two, and two ranks share the pipe
dist.destroy_process_group()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def launch(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "runners" / "launch.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)


def test_both_ranks_run(script: Path) -> None:
    done = launch(2, script, 0, "well")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["rank 0 is done", "rank 1 is done"]


def test_a_mistake_is_one_sentence(script: Path) -> None:
    done = launch(2, script, 0, "mistake")
    assert done.returncode == 2
    assert done.stderr == "error: rank 0 has a sentence\n"


def test_a_bug_of_another_rank_is_shown(script: Path) -> None:
    done = launch(2, script, 1, "bug")
    assert done.returncode == 1
    assert "KeyError: 'a bug on rank 1'" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: process 1 of script.py ended with exit status 1")


def test_a_killed_rank_is_named(script: Path) -> None:
    done = launch(2, script, 1, "killed")
    assert done.returncode == 128 + 9
    assert "process 1 of script.py was ended by signal 9" in done.stderr


def test_a_wrong_call_is_one_sentence() -> None:
    done = launch("runners/plum.py")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
