"""kill -9 of child, judge, zygote and trainer at random moments, and proof that the checks of it can fail."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from plum_core.execution import SandboxUnavailable
from plum_core.execution.benchmarks import kills, trainers, watch
from plum_core.execution.benchmarks.kills import CLASSES, Config
from plum_core.execution.benchmarks.mix import make_case
from plum_core.records.files import JsonlWriter, read_jsonl
from plum_core.records.types import Outcome, Program, Verdict
from tests.execution.test_soak import right


def test_kills_at_random_moments() -> None:
    found = kills.measure(Config(kills=16, programs=100))
    assert found.problems == []
    assert found.struck == dict.fromkeys(CLASSES, 4)
    assert found.verdicts > 100
    assert found.sandbox_errors <= found.verdicts // 10  # three strikes at one program are rare


def pretended(outcome: Outcome) -> kills.Run:
    """An executor that says ``outcome`` of every tenth program."""

    def run(programs: Iterable[Program]) -> Iterator[Verdict]:
        for program in programs:
            time.sleep(0.001)
            yield right(program, outcome=outcome) if program.id.endswith("5") else right(program)

    return run


def test_a_kill_that_becomes_a_fact_about_the_program_is_told() -> None:
    stand_in = subprocess.Popen([sys.executable, "-c", "input()", "inside/boot.py"], stdin=subprocess.PIPE)
    found = kills.kill_within(pretended(Outcome.CRASH), ["judge"], 0)
    assert stand_in.wait() == -9
    assert found.struck == {"judge": 1}
    assert len(found.problems) > 0
    assert all("got ('crash'" in problem for problem in found.problems)


def test_an_honest_fault_of_ours_is_counted_and_not_wrong() -> None:
    stand_in = subprocess.Popen([sys.executable, "-c", "input()", "inside/boot.py"], stdin=subprocess.PIPE)
    found = kills.kill_within(pretended(Outcome.SANDBOX_ERROR), ["judge"], 0)
    assert stand_in.wait() == -9
    assert found.problems == []
    assert found.sandbox_errors > 0


def test_a_run_that_breaks_off_is_told() -> None:
    def run(programs: Iterable[Program]) -> Iterator[Verdict]:
        yield right(next(iter(programs)))
        raise SandboxUnavailable("no worker")

    assert kills.kill_within(run, ["judge"], 0).problems == ["the run broke off: no worker"]


def test_what_survives_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "DEATH_S", 0.3)
    before, descriptors = kills.present(), len(os.listdir("/proc/self/fd"))
    assert kills.remains(before, descriptors) == []
    words = f'{{"channel": 3, "parent": {os.getpid()}, "packages": []}}'
    survivor = subprocess.Popen([sys.executable, "-c", "input()", "inside/boot.py", words], stdin=subprocess.PIPE)
    dead = subprocess.Popen(["true"])
    time.sleep(0.2)
    problems = kills.remains(before, descriptors)
    survivor.kill()
    for process in (survivor, dead):
        process.communicate()
    assert problems == [
        f"process {survivor.pid} survived",
        f"process {dead.pid} is a zombie",
        "1 more descriptors than before",
    ]


def series(folder: Path) -> trainers.Series:
    return trainers.Series(folder, programs=20, workers=1, seed=0)


def test_a_complete_file_is_right(tmp_path: Path) -> None:
    done = series(tmp_path)
    done.finish()
    assert (done.verdicts, done.problems) == (20, [])


@pytest.mark.parametrize(
    ("outcome", "words"), [(Outcome.PASSED, "a verdict too many"), (Outcome.SANDBOX_ERROR, "got ('sandbox_error'")]
)
def test_a_file_that_is_wrong_is_told(tmp_path: Path, outcome: Outcome, words: str) -> None:
    """One verdict twice, or one that says nothing about its program, in a file that is complete."""
    broken = series(tmp_path)
    rows = [right(program) for program in read_jsonl(tmp_path / "programs1.jsonl", Program)]
    bad = right(make_case(0, 0).program, outcome=outcome)
    with JsonlWriter(tmp_path / "verdicts1.jsonl") as writer:
        for row in [*rows, bad] if outcome is Outcome.PASSED else [bad, *rows[1:]]:
            writer.write(row)
    broken.finish()
    assert len(broken.problems) == 1
    assert words in broken.problems[0]


def test_a_missing_verdict_of_a_killed_trainer_is_told(tmp_path: Path) -> None:
    broken = series(tmp_path)
    (tmp_path / "verdicts1.jsonl").touch()
    broken._check()
    assert len(broken.problems) == 20
    assert "no verdict after kills" in broken.problems[0]
