"""What each layer of confinement stops when it stands alone: run as a script, it prints a table.

    PYTHONPATH=. python tests/execution/layers.py

The executor has no way to leave a layer out. Here each act runs in a fork of this process, which entered one layer by
the very functions that the executor uses.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from plum_core.execution.inside import confine, kernel
from tests.execution.attacks import FORBIDDEN
from tests.execution.canaries import Canaries

# Harmless with no confinement at all, or undone by the next canaries.
CLASSES = {
    "read files": ("read_passwd", "list_home", "canary_file_read"),
    "write files": (
        "canary_file_write",
        "canary_file_unlink",
        "canary_file_link",
        "canary_file_chmod",
        "canary_file_times",
    ),
    "other processes": ("kill_all", "canary_kill", "canary_affinity", "canary_priority", "canary_limits"),
    "memory of others": ("canary_ptrace", "canary_vm_read", "canary_proc_mem", "canary_proc_environ"),
    "network": ("tcp", "udp", "canary_tcp_connect"),
    "unix sockets": ("unix", "canary_unix_connect", "canary_abstract_connect"),
    "System V IPC": ("canary_shared_memory", "canary_message_queue", "canary_semaphores", "canary_new_shared_memory"),
    "new processes": ("fork", "exec", "subprocess"),
    "limits": ("raise_limit", "memfd", "big_memory"),
    "kernel interfaces": ("io_uring", "bpf", "keyctl", "userfault", "namespace", "own_filter"),
}
EXTRA = {
    "exec": "import os\nos.execv('/bin/sh', ['sh', '-c', 'exit 7'])",
    "fork": "import os\npid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)",
    "big_memory": "import mmap\nx = mmap.mmap(-1, 3 << 30)",
}


def _nothing() -> None:
    pass


def _no_new_privs() -> None:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")


def _privileges() -> None:
    _no_new_privs()
    kernel.drop_capabilities()


def _seccomp() -> None:
    _no_new_privs()
    confine.zygote_filter()
    kernel.ChildFilter().load(os.getpid())


def _landlock() -> None:
    _no_new_privs()
    kernel.landlock_restrict(kernel.landlock_ruleset(confine.readable_paths([]), ["/dev/null"]))


def _rlimits() -> None:
    confine.zygote_limits()
    for name in (resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE):
        resource.setrlimit(name, (0, 0))


def _namespaces() -> None:
    confine.enter_namespaces()


def _all() -> None:
    _namespaces()
    _rlimits()
    kernel.drop_capabilities()
    _landlock()
    _seccomp()


LAYERS: dict[str, Callable[[], None]] = {
    "nothing": _nothing,
    "no privileges": _privileges,
    "seccomp": _seccomp,
    "landlock": _landlock,
    "rlimits": _rlimits,
    "namespaces": _namespaces,
    "all": _all,
}


def blocked(layer: str, name: str) -> bool:
    """Whether the act is refused, or its process killed, within one layer; fresh canaries each time."""
    sources = {attack.name: attack.code for attack in FORBIDDEN}
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        canaries = Canaries(Path(folder))
        try:
            acts = dict(canaries.acts())
            act = EXTRA.get(name) or acts.get(name.removeprefix("canary_"))
            wrapped = "def f():\n    try:\n" + "".join(f"        {line}\n" for line in (act or "").splitlines())
            code = (
                sources[name]
                if act is None
                else wrapped + "        return 'leak'\n    except BaseException:\n        return ''\n"
            )
            return _in_a_fork(LAYERS[layer], code)
        finally:
            canaries.end()


def _in_a_fork(enter: Callable[[], None], code: str) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            import ctypes
            import socket  # noqa: F401 (before the files are out of reach)

            ctypes.CDLL(None)
            space: dict[str, Callable[[], str]] = {}
            exec(code, space)
            enter()
            os._exit(7 if space["f"]() == "leak" else 0)
        except BaseException:
            os._exit(1)  # the layer itself could not be had
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 1:
        raise OSError("the layer could not be entered")
    return not (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 7)


def stopped(layer: str, group: str) -> int:
    """How many acts of a class the layer alone stops."""
    return sum(blocked(layer, name) for name in CLASSES[group])


def table() -> str:
    """Classes of acts by layers: how many of each are stopped."""
    lines = ["| acts | number | " + " | ".join(LAYERS) + " |", "|---" * (len(LAYERS) + 2) + "|"]
    for group, names in CLASSES.items():
        cells = [str(stopped(layer, group)) for layer in LAYERS]
        lines.append(f"| {group} | {len(names)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
    sys.exit(0)
