"""Confinement: what the zygote gives up once, what each child gives up before it reads its job, and the proof.

A child inherits nearly all of it from the zygote: namespaces, no_new_privs, dropped capabilities, rlimits, Landlock,
the empty environment and the long seccomp filter. What is left to the child is death with the parent, its own session,
and the short filter that takes away what the zygote itself needs. ``missing_layer`` tries the door handles in a child,
because a version number says nothing about a container's own restrictions.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import socket
import sys
import sysconfig
from collections.abc import Callable
from contextlib import suppress
from signal import SIGKILL

from plum_core.execution.inside import kernel, seccomp

JOB_FD, ANSWERS_FD = 3, 4  # a child's only descriptors beside 0, 1 and 2
MANDATORY = ("no_new_privs", "seccomp", "rlimits", "landlock")
DEFAULT_MEMORY = 1 << 30
OPEN_FILES = 64
STACK = 8 << 20


def readable_paths(packages: list[str]) -> list[str]:
    """What zygote and children may read: the standard library, shared objects, time zones, the folders ``packages``."""
    paths = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *packages]
    paths += [os.path.join(sys.base_prefix, "lib"), "/lib", "/lib64", "/usr/lib", "/usr/lib64"]
    paths += ["/etc/ld.so.cache", "/usr/share/zoneinfo", "/etc/localtime"]
    paths += ["/dev/zero", "/dev/urandom", "/dev/random"]
    return sorted(set(paths))


# The steps of a child's confinement, here and in forkserver.c, by what is said of one that failed.
STEPS = (
    "death with the parent was refused",
    "the zygote died before the step above",
    "an own session was refused",
    "seccomp: the child's filter was refused",
)


class Confinement:
    """What a child of this process, the zygote, still does to itself. Made once, so that a child only applies it."""

    def __init__(self, threads: bool) -> None:
        self._filter = kernel.ChildFilter(threads)
        self._zygote = os.getpid()

    def enter(self) -> None:
        """Confine this process, a fresh fork. Anything raised means that it is not confined, and must not go on."""
        if kernel.bare_prctl(kernel.PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0:
            raise OSError(0, STEPS[0])
        if os.getppid() != self._zygote:
            raise OSError(0, STEPS[1])
        try:
            os.setsid()
        except OSError:
            raise OSError(0, STEPS[2]) from None
        if not self._filter.load(os.getpid()):
            raise OSError(0, STEPS[3])
        os.closerange(ANSWERS_FD + 1, OPEN_FILES)


def zygote_limits() -> None:
    """The rlimits that every child inherits; the judge sets CPU, memory and file size for each job from outside."""
    for name, value in (
        (resource.RLIMIT_AS, DEFAULT_MEMORY),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_SIGPENDING, 64),
        (resource.RLIMIT_STACK, STACK),
    ):
        _, hard = resource.getrlimit(name)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # AS and FSIZE keep their hard limit: the judge sets both for each job from outside.
        keep_hard = name in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE)
        resource.setrlimit(name, (allowed, hard if keep_hard else allowed))


def enter_namespaces() -> list[str]:
    """Own namespaces for the zygote, where the kernel lets us; returns what was got.

    No PID namespace: the judge reads clocks and sets limits by pid, and a pid that has to be translated costs each
    program a wake-up. What it would give is given by the filter (signals only to itself) and by Landlock (no /proc).
    """
    flags = kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWNS
    for extra, names in ((0, []), (kernel.CLONE_NEWUSER, ["user_ns"])):
        with suppress(OSError):
            kernel.unshare(flags | extra)
            return [*names, "net_ns", "ipc_ns", "uts_ns", *_mounts()]
    return []


def _mounts() -> list[str]:
    with suppress(OSError):
        kernel.freeze_mounts()
        return ["mount_ns"]
    return []


def zygote_privileges() -> None:
    """no_new_privs, no core dump or ptrace by others, no capabilities, first victim when memory runs out."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0, "not dumpable")
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    kernel.drop_capabilities()


def zygote_landlock(packages: list[str]) -> None:
    """From here on only what ``readable_paths`` names can be read, by the zygote and by all that it forks."""
    ruleset = kernel.landlock_ruleset(readable_paths(packages), ["/dev/null"])
    kernel.landlock_restrict(ruleset)
    os.close(ruleset)


def zygote_filter() -> None:
    """The long seccomp filter."""
    packed = seccomp.pack(seccomp.zygote_filter(kernel.machine()))
    kernel.load_filter(ctypes.create_string_buffer(packed, len(packed)))


def missing_layer(simulated: list[str]) -> str | None:
    """The first mandatory layer that this kernel does not offer, as a sentence; None when all are there.

    Each is tried in a forked child. ``simulated`` names layers to be taken as missing: it can only make the
    executor refuse.
    """
    for layer in MANDATORY:
        why = "taken as missing, as asked for" if layer in simulated else _tried_in_a_child(layer)
        if why:
            return f"the sandbox needs {layer}, which this machine does not offer ({why}); {_REMEDY[layer]}"
    return None


_REMEDY = {
    "no_new_privs": "run on Linux 3.5 or later",
    "seccomp": "run on x86_64 or aarch64 Linux with CONFIG_SECCOMP_FILTER, and let the container use seccomp(2)",
    "rlimits": "let the container use setrlimit(2)",
    "landlock": "run on Linux 5.13 or later with landlock in the kernel's lsm= list",
}


def _tried_in_a_child(layer: str) -> str:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _TRIALS[layer]()
            said = ""
        except BaseException as problem:
            said = str(problem) or type(problem).__name__
        os.write(writer, said.encode()[:500] + b".")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    os.waitpid(pid, 0)
    return said[:-1] if said.endswith(".") else "the trial process died"


def failed_step(enter: Callable[[], None]) -> str:
    """What goes wrong when a child of this process, the zygote, confines itself by ``enter``; empty when nothing does.

    Tried before there is any program: a fork, and a signal to the zygote, have to be refused then.
    """
    zygote, (reader, writer) = os.getpid(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            enter()  # closes the pipe as its last step
            _expect(errno.EAGAIN, "a fork by a child", lambda: os.fork() or os._exit(0))
            _expect(errno.EPERM, "a signal by a child", lambda: os.kill(zygote, 0))
        except BaseException as problem:
            with suppress(OSError):
                os.write(writer, str(problem.args[-1]).encode()[:500])
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    return said or ("" if status == 0 else "it went on without its confinement")


def _expect(refusal: int, act: str, call: object) -> None:
    try:
        call()  # type: ignore[operator]
    except OSError as problem:
        if problem.errno == refusal:
            return
        raise OSError(problem.errno, f"{act} ended with {problem.strerror}") from None
    raise OSError(0, f"{act} was not refused")


def _try_no_new_privs() -> None:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")


def _try_seccomp() -> None:
    _try_no_new_privs()
    zygote_filter()
    if not kernel.ChildFilter().load(os.getpid()):
        raise OSError(0, STEPS[3])
    _expect(errno.EPERM, "opening a socket under the filter", socket.socket)
    _expect(errno.EAGAIN, "a fork under the filter", os.fork)


def _try_rlimits() -> None:
    zygote_limits()
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit > DEFAULT_MEMORY:
        raise OSError(0, f"RLIMIT_AS is {limit} after setting it to {DEFAULT_MEMORY}")
    with suppress(MemoryError):
        bytearray(DEFAULT_MEMORY)
        raise OSError(0, "an allocation past RLIMIT_AS was not refused")


def _try_landlock() -> None:
    _try_no_new_privs()
    kernel.landlock_restrict(kernel.landlock_ruleset([], []))
    _expect(errno.EACCES, "reading a folder under Landlock", lambda: os.listdir("/"))


_TRIALS = {
    "no_new_privs": _try_no_new_privs,
    "seccomp": _try_seccomp,
    "rlimits": _try_rlimits,
    "landlock": _try_landlock,
}
