"""Shares of the processors under torchrun, and workers that stay on theirs."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest

from plum_core.execution import Executor, share_of_cores
from plum_core.execution.cores import dealt, on_cores
from plum_core.records.types import Outcome, Program


def rank_env(rank: object, ranks: object) -> dict[str, str]:
    return {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(ranks)}


@pytest.mark.parametrize("cores", [1, 2, 3, 7, 8, 13, 64, 191])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7, 8])
def test_shares_are_disjoint_even_and_cover_all(cores: int, ranks: int) -> None:
    held = [3 * n + 1 for n in range(cores)]
    shares = [share_of_cores(held, rank_env(rank, ranks)) for rank in range(ranks)]
    assert all(shares)
    counts = Counter(core for share in shares for core in share)
    assert set(counts) == set(held)
    if ranks <= cores:
        assert set(counts.values()) == {1}
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert [core for share in shares for core in share] == held
    else:
        assert {len(share) for share in shares} == {1}
        assert max(counts.values()) - min(counts.values()) <= 1


def test_one_process_has_all() -> None:
    assert share_of_cores(env={}) == tuple(sorted(os.sched_getaffinity(0)))
    assert share_of_cores([5, 3, 5], {}) == (3, 5)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (rank_env(2, 2), "LOCAL_RANK=2 is not below LOCAL_WORLD_SIZE=2"),
        (rank_env(0, 0), "LOCAL_WORLD_SIZE=0"),
        (rank_env("x", 2), "LOCAL_RANK='x' is no whole number"),
        (rank_env(-1, 2), "LOCAL_RANK='-1' is no whole number"),
    ],
)
def test_ranks_that_cannot_be_are_refused(env: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        share_of_cores([0, 1], env)
    with pytest.raises(ValueError, match="cores is empty"):
        share_of_cores([], {})


def test_a_rank_starts_its_share_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    for rank, count in ((0, 1), (1, 2)):
        for name, value in rank_env(rank, 2).items():
            monkeypatch.setenv(name, value)
        with Executor() as executor:
            assert len(executor._slots) == count


def family_cores(pid: int) -> list[set[int]]:
    """Of a worker, its zygote and whatever that forked."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [os.sched_getaffinity(pid), *(cores for child in children for cores in family_cores(int(child)))]


def test_workers_and_all_that_they_fork_stay_on_their_cores() -> None:
    before = os.sched_getaffinity(0)
    core = max(before)
    with Executor(cores=[core]) as executor:
        assert len(executor._slots) == 1
        code = "import os\ndef f(): return sorted(os.sched_getaffinity(0))"
        (verdict,) = executor.run([Program(id="0", code=code, tests=(f"assert f() == [{core}]",))])
        assert verdict.outcome in (Outcome.PASSED, Outcome.ERROR)  # a filter may refuse the question
        found = family_cores(executor._slots[0].worker._process.pid)
    assert len(found) >= 3
    assert all(cores == {core} for cores in found)
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 2), (8, 3), (3, 8), (64, 64), (5, 1)])
def test_each_worker_has_cores_of_its_own(cores: int, workers: int) -> None:
    held = [3 * n + 1 for n in range(cores)]
    places = [place for place in dealt(held, workers) if place is not None]
    assert len(places) == workers
    assert all(places)
    counts = Counter(core for place in places for core in place)
    assert set(counts) == set(held)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert max(map(len, places)) - min(map(len, places)) <= 1
    assert dealt(None, workers) == [None] * workers


def test_a_worker_that_is_replaced_keeps_its_core() -> None:
    held = sorted(os.sched_getaffinity(0))
    program = Program(id="0", code="def f(): return 1", tests=("assert f() == 1",))
    with Executor(cores=held, share=False) as executor:
        for slot, core in zip(executor._slots, held, strict=True):
            assert all(cores == {core} for cores in family_cores(slot.worker._process.pid))
        last = executor._slots[-1]
        killed = last.worker._process
        killed.kill()
        end = time.monotonic() + 20
        while last.worker._process is killed or not last.ready:
            assert [v.outcome for v in executor.run([program])] == [Outcome.PASSED]
            assert time.monotonic() < end
        assert all(cores == {held[-1]} for cores in family_cores(last.worker._process.pid))


@pytest.mark.parametrize("cores", [[4095], [-1], [0, 4095]])
def test_cores_that_are_not_there_are_refused(cores: list[int]) -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(ValueError, match=r"cores \[.*\] are not this machine's to give"), on_cores(cores):
        raise AssertionError("got them")
    assert os.sched_getaffinity(0) == before
    with pytest.raises(ValueError, match=r"cores is empty|at least 1"):
        Executor(cores=[])
