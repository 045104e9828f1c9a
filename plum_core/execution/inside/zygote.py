"""The fork server: a small, warmed, single-threaded interpreter that forks one child per program.

Forked from the worker before the worker has read any job, so neither tests nor expected values nor another
program's source are ever in its memory. The judge speaks to it over a SOCK_SEQPACKET pair, one packet a message:

    pid, descriptors  kill and reap child ``pid`` unless it is 0; fork a child with these descriptors, its job socket
                      and its answer file, if there are any
                                            -> status, CPU seconds, peak KiB, pid of the new child (or -1)
    -pid              collect child ``pid``, which has closed its socket: it is dead, or gets a moment to die
    -1, descriptor    fork a second zygote, which imports the library packages and serves the descriptor -> the same
"""

from __future__ import annotations

import gc
import importlib
import os
import random
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from plum_core.execution.inside import child, confine, kernel, native, words

if TYPE_CHECKING:
    import ctypes

REQUEST = struct.Struct("<q")
ANSWER = struct.Struct("<idqq")
LIBRARY = -1
STILL_ALIVE = -1  # in the place of a wait status
GRACE_S = 0.2

# Imported before the first fork: what programs commonly import, so that a run does not pay for it.
COMMON = sorted(
    words(
        """
abc ast bisect calendar collections collections.abc contextlib copy dataclasses datetime decimal enum
fractions functools heapq io itertools json math numbers operator os random re statistics string
struct sys textwrap time types typing
        """
    )
)
CONTROL_FD = confine.OPEN_FILES - 1


class Reaped(NamedTuple):
    """How a child ended: wait status, CPU seconds, peak resident KiB."""

    status: int
    cpu_s: float
    peak_kib: int


def warm(modules: list[str]) -> None:
    """Import ``modules`` and run the paths that every child takes once, so that a child finds its pages ready."""
    # random and threading would run Python code after every fork; a child needs none of it
    register, os.register_at_fork = os.register_at_fork, lambda **_: None
    try:
        for name in modules:
            importlib.import_module(name)
    finally:
        os.register_at_fork = register
    child.rehearse()
    random.seed(0)  # the same draws in every child: verdicts are repeatable


def start(
    control: socket.socket, packages: list[str], simulated: list[str], threads: bool, core: ctypes.PyDLL | None
) -> None:
    """Become the zygote on ``control``; never returns. The first packet says what was got, or why nothing was."""
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL, "death with the parent")
        missing = confine.missing_layer(simulated)
        if missing:
            control.send(b"!" + missing.encode())
            os._exit(0)
        spaces = confine.enter_namespaces()
        os.environ.clear()
        _silence()
        warm(COMMON)
        confine.zygote_privileges()
        confine.zygote_limits()
        library = [path for path in packages if os.path.isdir(path)]
        confine.zygote_landlock(library)
        confine.zygote_filter()
        confined = confine.Confinement(threads) if core is None else native.NativeConfinement(core, threads)
        failed = confine.failed_step(confined.enter)
        if failed:
            control.send(f"!a sandboxed process could not be confined: {failed}".encode())
            os._exit(0)
        _hide_ourselves()
        control.send(b"+" + ",".join(spaces).encode())
        _serve(control, library, threads, core)
    except BaseException as problem:
        with suppress(OSError):
            control.send(b"?" + f"{type(problem).__name__}: {problem}".encode()[:500])
        os._exit(70)


def _silence() -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)


def _hide_ourselves() -> None:
    """Our modules leave the module table, so that a program cannot import what is not installed for it."""
    for name in [name for name in sys.modules if name.split(".")[0] == "plum_core"]:
        del sys.modules[name]


def _serve(control: socket.socket, library: list[str], threads: bool, core: ctypes.PyDLL | None) -> None:
    # out of the way of the numbers that children use: descriptors that arrive are then JOB_FD and ANSWERS_FD
    os.dup2(control.detach(), CONTROL_FD, inheritable=False)
    os.closerange(confine.JOB_FD, CONTROL_FD)
    gc.collect()
    gc.disable()
    gc.freeze()
    if core is None:
        _serve_in_python(library, threads)
    me, confined = os.getpid(), native.NativeConfinement(core, threads, CONTROL_FD)
    while True:
        job = confined.serve()
        if job is not None:
            _live(job)
        pid = _fork_library(confine.JOB_FD, library, me, threads, core)
        os.close(confine.JOB_FD)
        os.write(CONTROL_FD, ANSWER.pack(0, 0.0, 0, pid))


def _serve_in_python(library: list[str], threads: bool) -> NoReturn:
    """What forkserver.c does, at a third more CPU a program."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, CONTROL_FD)
    me, confinement = os.getpid(), confine.Confinement(threads)
    # Local names, and few objects: after each fork, the first touch of each page is a fault in zygote and child.
    receive, send, fork, close = control.recvmsg, control.send, kernel.fork, os.closerange
    unpack, pack, first, end = REQUEST.unpack, ANSWER.pack, confine.JOB_FD, confine.ANSWERS_FD + 1
    while True:
        packet, ancillary, _, _ = receive(64, 64)
        if not packet:
            os._exit(0)
        (old,) = unpack(packet)
        status, cpu_s, peak_kib = _collect(old) if old not in (0, LIBRARY) else (0, 0.0, 0)
        pid = 0
        if ancillary:
            pid = _fork_library(first, library, me, threads, None) if old == LIBRARY else fork()
            if pid == 0:
                _enter(confinement)
                _live(None)
            close(first, end)
        send(pack(status, cpu_s, peak_kib, pid))


def _enter(confinement: confine.Confinement) -> None:
    """Where a child cannot be confined it dies by a signal that no confined child can send: our failure."""
    try:
        confinement.enter()
    except BaseException:
        os.kill(os.getpid(), signal.SIGKILL)


def _live(job: dict[str, Any] | None) -> NoReturn:
    """A child's life, once it is confined; without a job, it is still to be read."""
    try:
        gc.enable()
        child.main(confine.JOB_FD, confine.ANSWERS_FD, job)
    finally:
        os._exit(child.BROKEN)


def _collect(old: int) -> tuple[int, float, int]:
    """Wait status, CPU seconds and peak KiB of child ``old``, which is killed if it lives.

    ``-old``: it has closed its socket, so it has died of its own or of another's doing, or gets a moment to do so.
    """
    if old > 0:
        os.kill(old, signal.SIGKILL)
        _, status, usage = os.wait4(old, 0)
        return status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss
    end = time.monotonic() + GRACE_S
    while time.monotonic() < end:
        done, status, usage = os.wait4(-old, os.WNOHANG)
        if done:
            return status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss
        time.sleep(0.0005)
    return (STILL_ALIVE, *_collect(-old)[1:])


def _fork_library(fd: int, library: list[str], me: int, threads: bool, core: ctypes.PyDLL | None) -> int:
    pid = os.fork()
    if pid == 0:
        _become_library(socket.socket(fileno=fd), library, me, threads, core)
    return pid


def _become_library(
    control: socket.socket, library: list[str], parent: int, threads: bool, core: ctypes.PyDLL | None
) -> None:
    """In a fork of the base zygote: import the packages of ``library``, then serve."""
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL, "death with the parent")
        if os.getppid() != parent:
            os._exit(0)
        gc.unfreeze()
        if core is not None:
            core.plum_open()
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # else it raises SIGINT when its threads are refused
        os.environ["OMP_NUM_THREADS"] = "1"
        sys.path.extend(sorted({os.path.dirname(path) for path in library}))
        names = [os.path.basename(path) for path in library if "." not in os.path.basename(path)]
        warm(names)
        os.environ.clear()
        control.send(b"+")
        _serve(control, [], threads, core)
    except BaseException as problem:
        with suppress(OSError):
            control.send(b"?" + f"{type(problem).__name__}: {problem}".encode()[:500])
    os._exit(70)
