"""Which layer alone stops what; the table of it: ``python tests/execution/layers.py``."""

from __future__ import annotations

import platform

import pytest

from tests.execution.layers import CLASSES, EXTRA, blocked, stopped

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the acts use numbers of x86_64")

# All but reading files and allocating memory ends at the system-call filter, were it the only layer.
BY_SECCOMP = sorted(CLASSES.keys() - {"read files", "limits", "memory of others"})


@pytest.mark.parametrize("group", CLASSES)
def test_all_layers_together_stop_every_act(group: str) -> None:
    assert stopped("all", group) == len(CLASSES[group])


@pytest.mark.parametrize("group", BY_SECCOMP)
def test_seccomp_alone(group: str) -> None:
    assert stopped("seccomp", group) == len(CLASSES[group])


def test_landlock_alone_stops_reading() -> None:
    assert stopped("landlock", "read files") == len(CLASSES["read files"])
    assert blocked("landlock", "canary_file_write")


def test_limits_alone_stop_allocating_and_nothing_else_does() -> None:
    assert blocked("rlimits", "big_memory")
    assert not any(blocked(layer, "big_memory") for layer in ("nothing", "no privileges", "seccomp", "landlock"))


def test_the_acts_succeed_where_nothing_stops_them() -> None:
    """Else the numbers above would say nothing."""
    for name in ("canary_file_read", "canary_file_write", "canary_kill", "canary_tcp_connect", "tcp", *EXTRA):
        assert not blocked("nothing", name), name
