"""What the kernel counts of a process: its CPU time, and for how long it waited for a processor."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from functools import cache

RECENT_S = 0.05  # seconds for which what was read of this process itself holds


def cpu_clock(pid: int) -> int:
    """The id of another process's CPU clock (linux/posix-timers_types.h: complemented pid, CPUCLOCK_SCHED)."""
    return (~pid << 3) | 2


def queued_s(pid: int) -> float:
    """Seconds for which a process has waited for a processor; 0 where the kernel does not keep count."""
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/schedstat", "rb") as file:
        return int(file.read().split()[1]) / 1e9
    return 0.0


def stat(pid: int) -> list[bytes]:
    """The fields of /proc/pid/stat from the state on; empty when there is no such process."""
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()
    return []


@cache
def _own_schedstat() -> int:
    return os.open("/proc/self/schedstat", os.O_RDONLY | os.O_CLOEXEC)


_own_queue = (-math.inf, 0.0)  # when it was read last, and what it was


def own_queued_s() -> float:
    """The same of this process, as it was at most a moment ago: every job asks for it."""
    global _own_queue
    now = time.monotonic()
    if now - _own_queue[0] > RECENT_S:
        with suppress(OSError, ValueError, IndexError):
            _own_queue = (now, int(os.pread(_own_schedstat(), 100, 0).split()[1]) / 1e9)
    return _own_queue[1]
