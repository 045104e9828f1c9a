"""Verdicts that are kept: in memory, or in a file that several processes share."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

from plum_core.execution.limits import Limits
from plum_core.records.codec import encode_line, from_json, to_json
from plum_core.records.types import Outcome, Verdict

MAX_LINE = 1 << 18  # bytes; a verdict with larger values is not kept
_LASTING = frozenset({Outcome.PASSED, Outcome.FAILED, Outcome.ERROR, Outcome.EXIT, Outcome.OUTPUT, Outcome.VIOLATION})
_HEAD = re.compile(rb'\{"key":"([0-9a-f]{64})",')
_START = b'{"key":"'


def is_lasting(verdict: Verdict, limits: Limits) -> bool:
    """Whether a later run, on a slower or fuller machine, would surely say the same.

    A pass is a fact. A no is one where no limit that is measured in seconds can have had a part in it, be it in a
    test behind the first that failed; what was cut off by time, memory or a signal is asked again.
    """
    if verdict.outcome is Outcome.PASSED:
        return True
    cpu_s, wall_s = min(limits.cpu_s, limits.test_cpu_s), min(limits.wall_s, limits.test_wall_s)
    return verdict.outcome in _LASTING and verdict.cpu_s < cpu_s / 2 and verdict.wall_s < wall_s / 2


class Cache(Protocol):
    """Verdicts by the key of their program; the id in them is whoever's was first."""

    def get(self, key: bytes) -> Verdict | None:
        """The verdict under ``key``, where there is one."""

    def put(self, key: bytes, verdict: Verdict) -> None:
        """Keep ``verdict``."""


class MemoryCache:
    """The ``entries`` verdicts that were used last; may be given to several executors of one thread."""

    def __init__(self, entries: int = 1 << 16) -> None:
        if entries < 1:
            raise ValueError(f"entries must be at least 1, got {entries}: leave the cache out to keep nothing")
        self._entries = entries
        self._kept: OrderedDict[bytes, Verdict] = OrderedDict()

    def get(self, key: bytes) -> Verdict | None:
        verdict = self._kept.get(key)
        if verdict is not None:
            self._kept.move_to_end(key)
        return verdict

    def put(self, key: bytes, verdict: Verdict) -> None:
        if sum(len(value or "") for value in verdict.extra.get("values", ())) > MAX_LINE:
            return
        self._kept[key] = verdict
        if len(self._kept) > self._entries:
            self._kept.popitem(last=False)


def _verdict(line: bytes) -> Verdict:
    verdict = from_json(Verdict, json.loads(line)["verdict"])
    if verdict.outcome not in _LASTING or not all(type(value) is list for value in verdict.extra.values()):
        raise ValueError("no verdict of ours")
    return verdict


class DiskCache:
    """One JSON line a verdict, only ever appended to; what other processes append is found too.

    A line goes out in one write under a file lock. One that a kill or a full disk tore is closed with a newline by
    the next writer, and no reader takes a line that is not whole. In memory: about 150 bytes an entry.
    Raises ValueError for a path that cannot be such a file, or that holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._offsets: dict[bytes, int] = {}
        self._read_to = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as problem:
            raise ValueError(f"cannot keep verdicts in {path}: {problem.strerror}; name a file to write to") from None
        first = os.pread(self._fd, len(_START), 0).split(b"\n")[0]
        if not _START.startswith(first):
            os.close(self._fd)
            raise ValueError(f"{path} is no cache of verdicts: name one, or a file that does not exist yet")

    def get(self, key: bytes) -> Verdict | None:
        if key not in self._offsets:
            self._read_on()
        offset = self._offsets.get(key)
        if offset is None:
            return None
        try:
            return _verdict(os.pread(self._fd, MAX_LINE, offset).partition(b"\n")[0])
        except (ValueError, TypeError, KeyError):  # torn, or damaged since
            del self._offsets[key]
            return None

    def put(self, key: bytes, verdict: Verdict) -> None:
        line = encode_line({"key": key.hex(), "verdict": to_json(verdict)})
        if len(line) > MAX_LINE:
            return
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            size = os.fstat(self._fd).st_size
            if size and os.pread(self._fd, 1, size - 1) != b"\n":
                line = b"\n" + line
            os.write(self._fd, line)  # where the disk takes only a part, this is a torn line like any other
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Verdicts are with the kernel already: this only gives the descriptor back."""
        os.close(self._fd)

    def _read_on(self) -> None:
        """Note the whole lines that were appended since, by us or by others."""
        while self._read_to < os.fstat(self._fd).st_size:
            block = os.pread(self._fd, 16 * MAX_LINE, self._read_to)
            end = block.rfind(b"\n") + 1
            if not end:
                if len(block) < 16 * MAX_LINE:
                    return  # a line that somebody has in hand
                end = len(block)  # no line of ours is that long
            start = 0
            while start < end:
                head = _HEAD.match(block, start)
                if head:
                    self._offsets[bytes.fromhex(head[1].decode())] = self._read_to + start
                start = block.find(b"\n", start, end) + 1 or end
            self._read_to += end
