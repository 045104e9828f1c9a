"""The judge's side of the zygote and of one child: sockets, clocks and deadlines.

CPU seconds decide a timeout. They are read from the child's own CPU clock by the judge, so that a loaded machine
never turns a right program into a wrong one. Wall time bounds only what sleeps: time in which the child waited for a
processor is not counted, and a child that was starved for long ends as our failure, not as the program's.
"""

from __future__ import annotations

import _socket  # its sockets do all that is asked of a child's, without Python's wrapper around each
import json
import math
import os
import resource
import select
import socket
import struct
import sys
import time
from array import array
from collections.abc import Sequence
from typing import Any

from plum_core.execution.inside import frames
from plum_core.execution.inside.child import DONE, MARK
from plum_core.execution.inside.clocks import cpu_clock, own_queued_s, queued_s, stat
from plum_core.execution.inside.endings import Closed, Ending, Forged, Overrun, ParentGone, SandboxFault, ZygoteGone
from plum_core.execution.inside.zygote import ANSWER, LIBRARY, REQUEST, Reaped

# A child that could not run for so long, in seconds or in wall limits, is our failure.
STARVED = 20
STARVED_S = 60.0
RECHECK_S = 0.05
THREADS_RECHECK_S = 0.01
ANSWERS_TOGETHER = 4  # all answers of a program may be as long as so many of the longest
_RECEIVE = 1 << 16
_FILES = struct.Struct("=ii")
_decode = json.JSONDecoder().decode


class Zygote:
    """The client of one zygote. ``parent`` is polled along with every child: the worker ends with its parent.

    ``threads``: how many a child may have beside its first; 0 where its filter refuses them.
    """

    def __init__(self, control: socket.socket, parent: int, threads: int = 0) -> None:
        self._control = control
        self.parent = parent
        self.threads = threads
        self._spare: Child | None = None
        packet = control.recv(4096)
        if packet[:1] != b"+":
            raise SandboxFault(packet[1:].decode(errors="replace") or "the zygote died at its start")
        self.spaces = [name for name in packet[1:].decode().split(",") if name]

    def take(self) -> Child:
        """A child that is, or soon will be, waiting for its job."""
        child, self._spare = self._spare, None
        return child or self._fork()[1]

    def prepare(self) -> None:
        """Fork the next child ahead of its job, so that it confines itself while the judge is busy."""
        if self._spare is None:
            self._spare = self._fork()[1]

    def _request(self, number: int, files: bytes = b"") -> tuple[Reaped, int]:
        """One round trip; ``files`` are descriptors, 4 bytes each."""
        try:
            packet = REQUEST.pack(number)
            if files:
                self._control.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
            else:
                self._control.send(packet)
            answer = self._control.recv(256)
        except OSError as problem:
            raise ZygoteGone(f"the zygote is gone: {problem.strerror}") from None
        if not answer:
            raise ZygoteGone("the zygote is gone")
        status, cpu_s, peak_kib, pid = ANSWER.unpack(answer)
        if pid < 0:
            raise SandboxFault("the zygote cannot fork: too many processes, or too little memory")
        return Reaped(status, cpu_s, peak_kib), pid

    def _fork(self, old: int = 0) -> tuple[Reaped, Child]:
        """Collect child ``old`` and fork a new one."""
        ours, theirs = _socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        answers = os.memfd_create("answers", os.MFD_CLOEXEC)
        try:
            reaped, pid = self._request(old, _FILES.pack(theirs.fileno(), answers))
        except BaseException:
            os.close(answers)
            raise
        theirs.close()
        return reaped, Child(pid, ours, answers, self)

    def reap(self, pid: int) -> Reaped:
        """Kill child ``pid`` if it lives, collect it, and have the next one forked in the same round trip.

        ``-pid`` lets it die by itself first.
        """
        if self._spare is not None:
            return self._request(pid)[0]
        reaped, self._spare = self._fork(pid)
        return reaped

    def library(self) -> Zygote:
        """A second zygote with the library packages imported."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            _, pid = self._request(LIBRARY, theirs.fileno().to_bytes(4, sys.byteorder))
        try:
            return Zygote(ours, self.parent, self.threads)
        except SandboxFault:
            self._request(pid)  # it died at its start: collect it
            raise


class Child:
    """One confined child. The pid stays valid until ``finish``: only the zygote reaps, and only when asked.

    ``written``: the answer file, when the child is dead. ``used_s``: CPU seconds since the job was handed over.
    ``spent_s``, ``asleep_s``: CPU seconds that earlier children of the same program used, and seconds that all slept.
    ``marked``: answers of the tests that ended within their deadlines, None before the program was loaded.
    """

    def __init__(self, pid: int, sock: _socket.socket, answers: int, zygote: Zygote) -> None:
        self.pid = pid
        self.sock = sock
        self.written = b""
        self.used_s = 0.0
        self.spent_s = self.asleep_s = 0.0
        self.marked: int | None = None
        self._seen = bytearray()  # of the answer file, when a test ended
        self._lines = 0
        self._test_cpu = self._test_asleep = self._slept = 0.0  # when the test at hand began; by earlier children
        self._answers = answers
        self._zygote = zygote
        self._clock = cpu_clock(pid)
        self._buffer = bytearray()
        self._received = 0
        self._cpu_before = 0.0
        self._waited = 0.0
        self._own_queue = 0.0  # what this process had waited for a processor when the job began
        self.limits: dict[str, Any] = {}

    def go_on(self, earlier: Child) -> None:
        """What ``earlier``, another child of the same program, used up counts against the limits of this one."""
        self.spent_s = earlier.spent_s + earlier.used_s
        self.asleep_s = self._slept = self._test_asleep = earlier.asleep_s

    def start(self, job: bytes, limits: dict[str, Any], files: Sequence[int] = ()) -> None:
        """Set the job's limits and hand it over; ``files`` are descriptors that follow it."""
        self.limits = limits
        self._cpu_before = self.cpu_s()
        self._own_queue = own_queued_s()
        seconds = math.ceil(max(0.0, limits["cpu_s"] - self.spent_s) + self._cpu_before) + 1
        written = int(limits["output_kib"] * 1024) * (1 if files else ANSWERS_TOGETHER)
        try:
            for name, value in (
                (resource.RLIMIT_CPU, seconds),
                (resource.RLIMIT_AS, int(limits["memory_mib"] * (1 << 20))),
                (resource.RLIMIT_FSIZE, written),
            ):
                resource.prlimit(self.pid, name, (value, value + (name == resource.RLIMIT_CPU)))
            if not self._zygote.threads:
                resource.prlimit(self.pid, resource.RLIMIT_NPROC, (0, 0))
        except (OSError, ValueError) as problem:
            raise SandboxFault(f"the limits of a child could not be set: {problem}") from None
        self.send(job)
        if files:
            self.sock.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", files))])

    def await_done(self, ends: Sequence[int] = ()) -> None:
        """Until the child says that its answers are written. Raises Closed, or Ending when a limit is passed.

        With ``ends`` it says so of each test as well, in order: where it has given so many answers.
        """
        for end in (0, *ends) if ends else ():
            if self._told((MARK, DONE)) == DONE:
                return
            self._mark(end)
        self._told((DONE,))

    def _told(self, expected: tuple[bytes, ...]) -> bytes:
        self._wait(select.POLLIN)
        try:
            said = self.sock.recv(1)
        except OSError:
            raise Closed from None
        if not said:
            raise Closed
        if said not in expected:
            raise Forged("violation", "a message out of order")
        return said

    def _mark(self, end: int) -> None:
        """A test is over. What it answered is noted: what is not there yet, or is changed later, is forged."""
        part = os.pread(self._answers, os.fstat(self._answers).st_size, len(self._seen))
        self._seen += part
        self._lines += part.count(b"\n")
        if self._lines < end:
            raise Forged("violation", "said that a test was done before its answers were")
        self.marked = end
        self.begin_test()

    def begin_test(self) -> None:
        """From here on the deadline of one test counts anew."""
        self._test_cpu = self._used_cpu_s()
        if self.limits["test_wall_s"] < self.limits["wall_s"]:
            self._asleep(self._waited - self._test_cpu)
            self._test_asleep = self.asleep_s

    @property
    def is_rewritten(self) -> bool:
        """Whether answers of tests that were over were changed afterwards; of a child that is dead."""
        return not self.written.startswith(self._seen)

    def answers(self) -> bytes:
        """What the answer file holds."""
        return os.pread(self._answers, os.fstat(self._answers).st_size, 0)

    def cpu_s(self) -> float:
        """CPU seconds that the child has used so far."""
        try:
            return time.clock_gettime(self._clock)
        except OSError:
            return 0.0

    def _used_cpu_s(self) -> float:
        return max(0.0, self.cpu_s() - self._cpu_before)

    def send(self, frame: bytes) -> None:
        """Write one packed frame. Raises Closed when the child has gone."""
        view = memoryview(frame)
        while view:
            try:
                sent = self.sock.send(view, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._wait(select.POLLOUT)
                continue
            except OSError:
                raise Closed from None
            view = view[sent:]

    def receive_frame(self) -> bytes:
        """The body of the next frame. Raises Closed, or Ending when a limit is passed."""
        while True:
            if len(self._buffer) >= 4:
                (size,) = frames.HEADER.unpack_from(self._buffer)
                if size > self.limits["output_kib"] * 1024:
                    raise Ending("output", "an answer longer than the output limit")
                if len(self._buffer) >= 4 + size:
                    body = bytes(self._buffer[4 : 4 + size])
                    del self._buffer[: 4 + size]
                    return body
            self._fill()

    def receive(self) -> list[Any]:
        """The next answer, a JSON array of at least two entries. What is not one is a violation."""
        body = self.receive_frame()
        try:
            message = _decode(body.decode())
        except (ValueError, RecursionError):
            raise Ending("violation", "a message that is not JSON") from None
        if type(message) is not list or len(message) < 2:
            raise Ending("violation", "a message of another form")
        return message

    def _fill(self) -> None:
        self._wait(select.POLLIN)
        try:
            part = self.sock.recv(_RECEIVE)
        except OSError:
            raise Closed from None
        if not part:
            raise Closed
        self._received += len(part)
        if self._received > 4 * self.limits["output_kib"] * 1024:
            raise Ending("output", "answers longer than four times the output limit")
        self._buffer += part

    def _wait(self, event: int) -> None:
        """Until the socket is ready. Raises Ending past the limits, SandboxFault when the child was starved."""
        cpu_s = self.limits["cpu_s"] - self.spent_s
        wall_s = min(self.limits["wall_s"] - self._slept - self._waited, self.limits["test_wall_s"])
        poll = select.poll()
        poll.register(self.sock, event)
        poll.register(self._zygote.parent, select.POLLIN)
        began = time.monotonic()
        used = self._used_cpu_s()
        left = min(cpu_s - used, self._test_left(used, poll), wall_s)
        while True:
            # when the time is up, look once more: this process may have been late itself
            ready = poll.poll(max(1.0, self._pause(left) * 1000 + 1)) or poll.poll(0)
            if any(fd == self._zygote.parent for fd, _ in ready):
                raise ParentGone
            used = self._used_cpu_s()
            if used >= cpu_s:
                raise Ending("timeout", f"more than {self.limits['cpu_s']:g} CPU seconds")
            waited = self._waited + time.monotonic() - began
            if ready:
                self._waited = waited
                return
            left = min(cpu_s - used, self._test_left(used, poll), self._sleep_left(waited - used))

    def _test_left(self, used: float, poll: select.poll) -> float:
        """CPU seconds that the test at hand may still use. What the child says by now ends the test in time."""
        limit = self.limits["test_cpu_s"]
        left: float = limit - (used - self._test_cpu)
        if left <= 0 and not poll.poll(0):
            raise Overrun("timeout", f"more than {limit:g} CPU seconds in one test")
        return max(0.0, left)

    def _pause(self, left: float) -> float:
        """Seconds until the next look: nothing but the judge counts threads, so there it looks often."""
        most = self._zygote.threads
        if not most:
            return left
        fields = stat(self.pid)
        if fields and int(fields[17]) > most + 1:
            raise Ending("violation", f"more than {most} threads")
        return min(left, THREADS_RECHECK_S)

    def _sleep_left(self, off_cpu: float) -> float:
        """Seconds that the child may still sleep, of ``off_cpu`` seconds in which it did not run.

        Not counted: its waiting for a processor, and ours, in which it may have waited for us. The kernel books a
        wait when it ends, so a child that is runnable now is asked again a little later.
        """
        wall_s, test_wall_s = self.limits["wall_s"], self.limits["test_wall_s"]
        if stat(self.pid)[:1] == [b"R"]:
            if off_cpu > max(STARVED * wall_s, STARVED_S):
                raise SandboxFault("a child was starved of processor time")
            return RECHECK_S
        self._asleep(off_cpu)
        if self.asleep_s >= wall_s:
            raise Ending("timeout", f"asleep for more than {wall_s:g} seconds")
        test_left = test_wall_s - (self.asleep_s - self._test_asleep)
        if test_left <= 0:
            raise Overrun("timeout", f"asleep for more than {test_wall_s:g} seconds in one test")
        return max(RECHECK_S, min(wall_s - self.asleep_s, test_left))

    def _asleep(self, off_cpu: float) -> None:
        self.asleep_s = self._slept + off_cpu - queued_s(self.pid) - (own_queued_s() - self._own_queue)

    def finish(self, *, closed: bool) -> Reaped:
        """Kill, reap and close; ``closed``: the child closed its side, so find out how it ended."""
        try:
            self.sock.close()
            reaped = self._zygote.reap(-self.pid if closed else self.pid)
            self.used_s = max(0.0, reaped.cpu_s - self._cpu_before)
            self.written = self.answers()
        finally:
            os.close(self._answers)
        return reaped
