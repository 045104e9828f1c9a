"""The Linux calls that Python does not offer, by ctypes. Each raises OSError under the name of its step."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

from plum_core.execution.inside import seccomp

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_prctl.restype = ctypes.c_int
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
# For the moments after a fork, in which every object that is touched is a page copied: no errno, no conversions, no
# GIL let go. glibc's fork without handlers (2.34 and later): Python's own clean-up after a fork concerns other
# threads, and costs a child 70 copied pages.
_bare = ctypes.PyDLL(None)
bare_prctl = _bare.prctl
fork = getattr(_bare, "_Fork", _bare.fork)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
SECCOMP_MODE_FILTER = 2

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same on every architecture
_LANDLOCK_PATH_BENEATH = 1
READ_FILE, READ_DIR, WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
# Rights that each Landlock version knows of: those not granted by a rule are refused.
_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NET_RIGHTS_SINCE, _SCOPES_SINCE = 4, 6

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
_MOUNT_SETATTR, _AT_RECURSIVE, _MS_PRIVATE, _RDONLY, _NOSUID = 442, 0x8000, 1 << 18, 1, 2
_CAPSET = {"x86_64": 126, "aarch64": 91}


def machine() -> str:
    """The instruction set's name, as the system-call table knows it."""
    return platform.machine()


def _check(result: int, step: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{step}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int, step: str) -> None:
    """prctl(2) with one argument."""
    _check(_prctl(option, value, 0, 0, 0), step)


def load_filter(packed: ctypes.Array[ctypes.c_char]) -> None:
    """Load packed BPF instructions as this thread's seccomp filter; needs no_new_privs."""
    program = _program(packed)
    _check(_prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0), "seccomp")


def _program(packed: ctypes.Array[ctypes.c_char]) -> ctypes.Array[ctypes.c_char]:
    """``struct sock_fprog`` over the packed instructions, which must outlive it."""
    return ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(packed) // 8, ctypes.addressof(packed)))


def landlock_version() -> int:
    """The kernel's Landlock ABI, 1 or more. Raises OSError where there is none."""
    return _check(_syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1)), "landlock")


def landlock_ruleset(readable: list[str], writable: list[str]) -> int:
    """A ruleset descriptor: reading beneath ``readable`` and writing to the files ``writable``, nothing else.

    Missing paths are passed over. TCP, abstract sockets and signals to outside are refused where the kernel can.
    """
    version = landlock_version()
    rights = (1 << _FS_RIGHTS.get(version, 16)) - 1
    fields = [rights]
    if version >= _NET_RIGHTS_SINCE:
        fields.append(0b11)  # bind, connect
    if version >= _SCOPES_SINCE:
        fields.append(0b11)  # abstract unix sockets, signals
    attributes = struct.pack(f"<{len(fields)}Q", *fields)
    ruleset = _check(_syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0), "landlock")
    for path in readable:
        _landlock_add(ruleset, path, READ_FILE | (READ_DIR if os.path.isdir(path) else 0))
    for path in writable:
        _landlock_add(ruleset, path, READ_FILE | WRITE_FILE)
    return ruleset


def _landlock_add(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = struct.pack("<Qi", rights, fd)
        _check(_syscall(_LANDLOCK_ADD, ruleset, _LANDLOCK_PATH_BENEATH, rule, 0), f"landlock rule for {path}")
    finally:
        os.close(fd)


def landlock_restrict(ruleset: int) -> None:
    """Enter the ruleset's domain for good."""
    _check(_syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def freeze_mounts() -> None:
    """In an own mount namespace: everything read-only, no set-uid programs, no news from other namespaces."""
    attributes = struct.pack("<4Q", _RDONLY | _NOSUID, 0, _MS_PRIVATE, 0)  # struct mount_attr
    at, path, size = ctypes.c_int(-100), ctypes.c_char_p(b"/"), ctypes.c_size_t(len(attributes))
    _check(_syscall(_MOUNT_SETATTR, at, path, ctypes.c_uint(_AT_RECURSIVE), attributes, size), "mount_setattr")


def drop_capabilities() -> None:
    """Empty all capability sets of this process."""
    header = struct.pack("<Ii", 0x20080522, 0)
    _check(_syscall(_CAPSET[machine()], header, bytes(24)), "capset")


class ChildFilter:
    """The child's seccomp filter, packed once in the zygote; a child writes in its pid and loads it."""

    def __init__(self, threads: bool = False) -> None:
        packed, offsets = seccomp.pid_offsets(machine(), threads)
        self._buffer = ctypes.create_string_buffer(packed, len(packed))
        self.words = memoryview(self._buffer).cast("B").cast("I")
        self.pids = tuple(at // 4 for at in offsets)
        self._program = _program(self._buffer)
        self.address = ctypes.c_void_p(ctypes.addressof(self._program))

    def load(self, pid: int) -> bool:
        """Close this process in; ``pid`` is its own. False where the kernel refuses."""
        words = self.words
        for at in self.pids:
            words[at] = pid
        return bool(bare_prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, self.address, 0, 0) >= 0)
