"""Frames on a stream socket: a 4-byte little-endian length, then that many bytes.

JSON is what comes from a child, and what parent and worker speak. A job goes from the judge to a child by marshal,
which the child reads at a third of the cost; that way round, the writer is trusted.
"""

from __future__ import annotations

import json
import marshal
import os
import struct
from typing import Any

HEADER = struct.Struct("<I")
# ensure_ascii: a lone surrogate in a string travels as an escape
dumps = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode


class ChannelClosed(Exception):
    """The other side closed the socket. No EOFError, which a program may raise on its own account."""


def pack(message: Any) -> bytes:
    """One frame. ``message`` is JSON-able."""
    body = dumps(message).encode()
    return HEADER.pack(len(body)) + body


def pack_job(job: dict[str, Any]) -> bytes:
    """One frame for a child: ``job`` is of built-in types.

    By version 2 of the format, whose reader neither interns strings nor shares them: less of its memory is written to.
    """
    body = marshal.dumps(job, 2)
    return HEADER.pack(len(body)) + body


def read_job(fd: int) -> dict[str, Any]:
    """The job on a child's socket; what the judge wrote, and nobody else. Not a byte more: descriptors may follow."""
    job: dict[str, Any] = marshal.loads(read_exactly(fd, HEADER.unpack(read_exactly(fd, HEADER.size))[0]))
    return job


def read_exactly(fd: int, size: int) -> bytes:
    """``size`` bytes of a blocking descriptor. Raises ChannelClosed when the other side closes before."""
    parts = []
    while size > 0:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            raise ChannelClosed
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read(fd: int) -> Any:
    """The next message of a blocking descriptor; for a trusted writer."""
    return json.loads(read_exactly(fd, HEADER.unpack(read_exactly(fd, 4))[0]))


def write(fd: int, message: Any) -> None:
    """Send one message on a blocking descriptor."""
    write_bytes(fd, pack(message))


def write_bytes(fd: int, frame: bytes) -> None:
    """All of ``frame``, which is packed already."""
    sent = os.write(fd, frame)
    while sent < len(frame):
        frame = frame[sent:]
        sent = os.write(fd, frame)
