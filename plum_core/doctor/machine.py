"""Python, cores, memory, disk."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from plum_core.doctor.finding import Finding

GIB = 1 << 30
NEEDED_MEMORY_GIB = 4.0  # policy, author, optimizer and 32 judged programs of the embedded default, with room
NEEDED_DISK_GIB = 1.0  # a run folder of the embedded default stays far below


def cores() -> int:
    """Cores this process may use: fewer than the machine's under taskset or in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float:
    """Memory not in use, or what the container may still take, whichever is less."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    cap, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if cap.exists() and (text := cap.read_text().strip()) != "max":
        free = min(free, int(text) - int(used.read_text()))
    return free / GIB


def cores_finding() -> Finding:
    """Cores and who else is on them."""
    n, load = cores(), os.getloadavg()[0]
    remedy = ""
    if load > n / 2:
        remedy = "wait for the other work on this machine: it takes its share of every phase"
    elif n < 2:
        remedy = "one core takes twice as long: begin with make run ARGS=--smoke"
    return Finding(name="cores", value=f"{n}, load {load:.1f}", state="slow" if remedy else "ok", remedy=remedy)


def look_at_machine(root: Path) -> Iterator[Finding]:
    """Python, cores, memory, and the disk below ``root``, where runs go."""
    old = sys.version_info < (3, 11)
    yield Finding(
        name="Python",
        value=f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        state="missing" if old else "ok",
        remedy="make a .venv with Python 3.11 or later: make run PYTHON=/path/to/python3" if old else "",
    )
    yield cores_finding()
    free = memory_gib()
    yield Finding(
        name="memory",
        value=f"{free:.1f} GiB available",
        state="ok" if free >= NEEDED_MEMORY_GIB else "slow",
        remedy="" if free >= NEEDED_MEMORY_GIB else f"free some: below {NEEDED_MEMORY_GIB:.0f} GiB it may swap",
    )
    disk = shutil.disk_usage(root).free / GIB
    yield Finding(
        name="disk",
        value=f"{disk:.1f} GiB free at {root}",
        state="ok" if disk >= NEEDED_DISK_GIB else "missing",
        remedy="" if disk >= NEEDED_DISK_GIB else f"free {NEEDED_DISK_GIB:.0f} GiB: a run folder goes there",
    )
