"""What `make` does with its settings, and that the launch depends on no name of the machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Brings the loopback of a new network namespace up (SIOCSIFFLAGS, IFF_UP | IFF_RUNNING) without `ip`.
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 0x41))
socket.sethostname("a-name-that-nothing-resolves")
os.execvp("bash", ["bash", "-c", sys.argv[1]])
"""
ALL_REDUCE = """
import sys, torch, torch.distributed as dist
dist.init_process_group("gloo")
t = torch.ones(1)
dist.all_reduce(t)
sys.stdout.write(f"sum {int(t)}\\n")  # one write: print makes several, and two ranks share the pipe
sys.stdout.flush()
dist.destroy_process_group()
"""
ISOLATED = ("unshare", "--user", "--map-root-user", "--net", "--uts")


def launch_line(*settings: str) -> str:
    """The command that `make run` would start, as `make` prints it without running it."""
    done = subprocess.run(
        ["make", "-n", "run", *settings],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return next(line for line in lines if "runners/plum.py" in line)


def environment() -> dict[str, str]:
    """This one, less what the make that runs these tests hands down, and less what the guards set."""
    ours = {"GLOO_SOCKET_IFNAME", "OMP_NUM_THREADS", "NPROC", "JOBS", "ARGS"}
    return {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k not in ours}


def test_one_process_needs_no_launcher() -> None:
    line = launch_line("NPROC=1", "ARGS=--smoke")
    assert line.split() == [
        ".venv/bin/python",
        "runners/plum.py",
        "--config",
        "runners/configs/tiny.toml",
        "--smoke",
    ]


def test_several_processes_have_a_launcher() -> None:
    assert launch_line("NPROC=3").split()[:4] == [".venv/bin/python", "runners/launch.py", "3", "runners/plum.py"]


def test_help_lists_every_target() -> None:
    help_text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert targets
    assert [t for t in targets if f"make {t} " not in help_text] == []


def test_the_launch_works_where_the_host_name_does_not_resolve(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*ISOLATED, "true"], check=False).returncode:
        pytest.skip("no user namespaces here: cannot give a process a host name and network of its own")
    (tmp_path / "reduce.py").write_text(ALL_REDUCE)
    line = launch_line("NPROC=2", f"PY={sys.executable}")
    command = line.replace("runners/plum.py", str(tmp_path / "reduce.py"))
    done = subprocess.run(
        [*ISOLATED, sys.executable, "-c", LOOPBACK_UP, command],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        timeout=100,
    )
    assert done.stdout.splitlines() == ["sum 2", "sum 2"], done.stderr
