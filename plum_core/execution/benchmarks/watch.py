"""What an executor holds at one moment: processes by role, their memory and descriptors, and what lies in /tmp.

Roles are read off the tree: a trainer starts judges, a judge forks a zygote, a zygote forks children, each of which
leads a session of its own, and at most one library zygote, which does not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue")  # POSIX queues are seen where they are mounted
SYSV = ("shm", "sem", "msg")
ROLES = ("trainer", "judge", "zygote", "library zygote", "child", "zombie", "other")
PAGE_MIB = os.sysconf("SC_PAGESIZE") / (1 << 20)
QUIET_S = 0.05
DEATH_S = 5.0  # within which everything is dead whose owner died
Number = TypeVar("Number", int, float)


class Process(NamedTuple):
    """One line of the process table."""

    parent: int
    session: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the processes of one role hold together. None: this user may not look."""

    count: int = 0
    rss_mib: float = 0.0
    pss_mib: float | None = 0.0
    descriptors: int | None = 0


def processes() -> dict[int, Process]:
    """Every process of the machine by its id."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
                found[int(name)] = Process(int(fields[1]), int(fields[3]), fields[0])
    return found


def command_line(pid: int) -> bytes:
    """The words that a process was started by; its forks keep them."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def roles(trainer: int) -> dict[int, str]:
    """Role of the trainer and of each of its descendants, zombies included."""
    table = processes()
    children: dict[int, list[int]] = {}
    for pid, process in table.items():
        children.setdefault(process.parent, []).append(pid)
    found = {trainer: "trainer"}
    waiting = [trainer]
    while waiting:
        parent = waiting.pop()
        for pid in children.get(parent, []):
            found[pid] = _role(found[parent], pid, table[pid])
            waiting.append(pid)
    return found


def _role(parents: str, pid: int, process: Process) -> str:
    if process.state == "Z":
        return "zombie"
    if parents == "trainer":
        return "judge" if b"inside/boot.py" in command_line(pid) else "other"
    if parents == "judge":
        return "zygote"
    if parents == "zygote" and process.session != pid:
        return "library zygote"
    return "child" if parents in ("zygote", "library zygote") else "other"


def family(trainer: int) -> set[int]:
    """Living processes that an executor in process ``trainer`` started, found by their words even when orphaned."""
    own = f'"parent": {trainer},'.encode()
    ours = [pid for pid in processes() if own in (words := command_line(pid)) and b"inside/boot.py" in words]
    return set(ours)


def await_end(trainer: int, spared: frozenset[int] = frozenset()) -> set[int]:
    """Those of the family but ``spared`` that still live after a while."""
    end = time.monotonic() + DEATH_S
    while (alive := family(trainer) - spared) and time.monotonic() < end:
        time.sleep(QUIET_S)
    return alive


def held(trainer: int) -> dict[str, Held]:
    """What each role holds. A process that ends meanwhile counts with what could be read."""
    found: dict[str, Held] = {}
    for pid, role in roles(trainer).items():
        before = found.get(role, Held())
        found[role] = Held(
            count=before.count + 1,
            rss_mib=before.rss_mib + rss_mib(pid),
            pss_mib=_sum(before.pss_mib, _pss_mib(pid)),
            descriptors=_sum(before.descriptors, _descriptors(pid)),
        )
    return found


def held_at_rest(trainer: int, seconds: float = 3.0) -> dict[str, Held]:
    """The same once two looks in a row see the same processes, so that what is about to end has ended."""
    end = time.monotonic() + seconds
    before: dict[int, str] = {}
    while (now := roles(trainer)) != before and time.monotonic() < end:
        before = now
        time.sleep(QUIET_S)
    return held(trainer)


def _sum(total: Number | None, more: Number | None) -> Number | None:
    return None if total is None or more is None else total + more


def rss_mib(pid: int) -> float:
    """Resident MiB of one process; 0 where it has ended."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_MIB
    return 0.0


def _pss_mib(pid: int) -> float | None:
    """Its own pages and its share of those that it shares."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except PermissionError:
        return None
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _descriptors(pid: int) -> int | None:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:
        return None
    except OSError:
        return 0


@contextmanager
def own_group() -> Iterator[int | None]:
    """Give this process and what it starts a group id of its own for a while, by which their files are known.

    None where that takes a privilege that we lack: what others leave meanwhile could not be told from what is ours.
    """
    before = os.getresgid()
    group = 1_400_000_000 + os.getpid()
    try:
        os.setresgid(group, group, before[2])
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        os.setresgid(*before)


def left_behind(group: int | None) -> set[str]:
    """Files, shared memory, semaphores and queues of ``group``; nothing where there is no group to know them by."""
    found = set()
    for place in PLACES if group is not None else ():
        with suppress(FileNotFoundError), os.scandir(place) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_gid == group:
                        found.add(entry.path)
    return found | set(_sysv(group))


def _sysv(group: int | None) -> Iterator[str]:
    for kind in SYSV:
        with suppress(FileNotFoundError):
            head, *lines = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()
            for line in lines:
                row = dict(zip(head.split(), map(int, line.split()), strict=True))
                if row["cgid"] == group:
                    yield f"System V {kind} {row[f'{kind}id']}"
