"""What the soak and the kills look at: roles, and whose a file is."""

from __future__ import annotations

import ctypes
import os
import tempfile

import pytest

from plum_core.execution import Executor
from plum_core.execution.benchmarks import watch
from plum_core.execution.benchmarks.mix import make_case

IPC_PRIVATE, IPC_RMID, MODE = 0, 0, 0o600
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may take a group of its own")


@root_only
@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_a_file_that_is_left_is_told_from_those_of_others(place: str) -> None:
    with tempfile.NamedTemporaryFile(dir=place, prefix="plum-others-"), watch.own_group() as group:
        assert group is not None
        assert watch.left_behind(group) == set()
        with tempfile.NamedTemporaryFile(dir=place, prefix="plum-ours-") as ours:
            assert watch.left_behind(group) == {ours.name}
            assert watch.left_behind(None) == set()
    assert os.getegid() == os.getgid() != group


@root_only
def test_shared_memory_that_is_left_is_seen() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with watch.own_group() as group:
        number = libc.shmget(IPC_PRIVATE, 4096, MODE)
        assert number >= 0
        try:
            assert watch.left_behind(group) == {f"System V shm {number}"}
        finally:
            libc.shmctl(number, IPC_RMID, None)
        assert watch.left_behind(group) == set()


def test_roles_of_a_standing_executor() -> None:
    before = watch.family(os.getpid())
    with Executor(workers=2) as executor:
        list(executor.run([make_case(0, 0).program]))
        found = watch.held_at_rest(os.getpid())
        assert len(watch.family(os.getpid()) - before) >= 6
    assert {role: found[role].count for role in ("trainer", "judge", "zygote", "child")} == {
        "trainer": 1,
        "judge": 2,
        "zygote": 2,
        "child": 2,
    }
    assert watch.await_end(os.getpid(), frozenset(before)) == set()
