"""All attacks as root, as an ordinary user and within a container's restrictions, beside canaries of the same user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.execution.attacks import ATTACKS
from tests.execution.test_confinement import CONTAINER

NOBODY = 65534
OUTER_ONLY = CONTAINER.partition("from plum_core.execution import Executor")[0]


RUN = "import json, sys\nfrom tests.execution import canaries\ncanaries.main(json.loads(sys.argv[1]))"


@cache
def interpreter_for(uid: int) -> str:
    """An interpreter that the user may run and that has what the package needs; skips where there is none."""
    if uid == os.getuid():
        return sys.executable
    probe = "import sys; assert sys.version_info >= (3, 11); import plum_core.execution"
    for python in (sys.executable, "/usr/bin/python3"):
        with suppress(OSError):  # not executable for that user
            if subprocess.run([python, "-c", probe], cwd=ROOT, user=uid, group=uid, extra_groups=[]).returncode == 0:
                return python
    pytest.skip(f"user {uid} can run neither {sys.executable} nor a Python of 3.11 or later under /usr/bin")


def attack(folder: Path, uid: int, container: bool, shared: Path | None) -> dict[str, Any]:
    options = {
        "uid": uid,
        "container": OUTER_ONLY if container else "",
        "shared": str(shared) if shared else "",
        "folder": str(folder),
    }
    python = interpreter_for(uid)
    done = subprocess.run(
        [python, "-c", RUN, json.dumps(options)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        user=uid,
        group=uid if uid != os.getuid() else None,
        extra_groups=[] if uid != os.getuid() else None,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def ours(uid: int) -> set[str]:
    """Worker processes of a user that have lost their trainer, or never had one."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid and b"boot.py" in (entry / "cmdline").read_bytes():
                found.add(entry.name)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("container", [False, True], ids=["host", "container"])
@pytest.mark.parametrize("user", ["root", "ordinary"])
def test_every_attack_beside_canaries(user: str, container: bool, shared_data: Callable[[str], Path]) -> None:
    me = os.getuid()
    if me != 0 and user == "root":
        pytest.skip("needs root, to be root")
    uid = me if me != 0 or user == "root" else NOBODY
    before = ours(uid)
    folder = Path("/tmp") / f"plum-canaries-{os.getpid()}-{user}-{container}"
    folder.mkdir()
    os.chown(folder, uid, -1)
    try:
        told = attack(folder, uid, container, shared_data("attacks.jsonl"))
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    assert told["uid"] == uid
    assert told["verdicts"] == told["programs"] >= len(ATTACKS) + 82 + 29
    assert told["wrong"] == []
    assert told["changed"] == {}
    assert told["visitors"] == 0
    assert {"no_new_privs", "seccomp", "rlimits", "landlock"} <= set(told["layers"])
    assert not container or len(told["layers"]) == 4
    end = time.monotonic() + 5
    while ours(uid) - before and time.monotonic() < end:
        time.sleep(0.05)
    if uid == NOBODY:  # another suite of ours may run as the same user else
        assert ours(uid) - before == set()
