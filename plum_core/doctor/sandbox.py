"""Which of the kernel's features confine model-written programs here, and what each of them gives.

Whether they work is answered by trying, in a forked child where the try cannot be undone. What the sandbox then makes
of them is told by starting it (``project.sandbox_finding``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from plum_core.doctor.finding import Finding
from plum_core.execution.inside import kernel

SYSCTL = Path("/proc/sys")
# What each version of Landlock added to the first, in the words of a reader (kernel.org, userspace-api/landlock).
LANDLOCK = {
    1: "only named files can be opened",
    2: "and none linked or renamed across folders",
    3: "and none truncated",
    4: "and no TCP",
    5: "and no ioctl on devices",
    6: "and no signals or abstract sockets to outside",
}


def look_at_sandbox() -> Iterator[Finding]:
    """seccomp, Landlock, user namespaces, cgroup delegation."""
    yield seccomp_finding()
    yield landlock_finding()
    yield namespaces_finding()
    yield cgroup_finding()


def seccomp_finding(actions: Path = SYSCTL / "kernel/seccomp/actions_avail") -> Finding:
    """Filters on system calls; the sandbox does not start without."""
    if actions.exists() and "kill_process" in actions.read_text().split():
        value = "filters; only listed system calls: no new process, socket, thread or file to write"
        return Finding(name="seccomp", value=value)
    return Finding(
        name="seccomp",
        value="no filters in this kernel",
        state="missing",
        remedy="run on Linux 4.14 or later built with CONFIG_SECCOMP_FILTER, outside emulators such as gVisor",
    )


def landlock_finding() -> Finding:
    """Rules on files; the sandbox does not start without."""
    try:
        version = kernel.landlock_version()
    except OSError as error:
        return Finding(
            name="Landlock",
            value=f"not offered ({error.strerror})",
            state="missing",
            remedy="run on Linux 5.13 or later, with landlock among the modules of the boot parameter lsm=",
        )
    gives = ", ".join(words for since, words in LANDLOCK.items() if since <= version)
    newer = [words.removeprefix("and ") for since, words in LANDLOCK.items() if since > version]
    return Finding(
        name="Landlock",
        value=f"ABI {version}; {gives}",
        state="absent" if newer else "ok",
        remedy=f"a newer kernel would add {', '.join(newer)}; seccomp refuses those meanwhile" if newer else "",
    )


def can_unshare(flags: int) -> bool:
    """Whether a child of this process may enter new namespaces."""
    child = os.fork()
    if child == 0:
        try:
            kernel.unshare(flags)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def namespaces_finding() -> Finding:
    """A second fence around network, IPC and mounts, where the kernel lets this user have one."""
    inner = kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWNS
    if can_unshare(kernel.CLONE_NEWUSER | inner):
        value = "offered; a network, IPC and mounts of their own, all read-only, behind the other layers"
        return Finding(name="user namespaces", value=value)
    if os.geteuid() == 0 and can_unshare(inner):
        value = "refused, but root needs none: a network, IPC and mounts of their own, behind the other layers"
        return Finding(name="user namespaces", value=value)
    return Finding(
        name="user namespaces", value="refused; the other layers stand alone", state="absent", remedy=_who_refuses()
    )


def _who_refuses() -> str:
    for name, refusing, remedy in (
        ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
        ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
    ):
        path = SYSCTL / name
        if path.exists() and path.read_text().strip() == refusing:
            return f"{remedy}, if you want the second fence"
    return "in a container: let its seccomp profile allow unshare, if you want the second fence"


def cgroup_finding(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Finding:
    """Whether this user may bound the job as a whole; the sandbox makes no groups of its own."""
    paths = [line.partition("::")[2].strip("/") for line in own.read_text().splitlines() if line.startswith("0::")]
    place = root / paths[0] if paths else root
    if paths and (place / "cgroup.subtree_control").exists() and os.access(place / "cgroup.procs", os.W_OK):
        value = "delegated here; bounds memory and processes of the whole job, which single programs' limits do not"
        return Finding(name="cgroup v2", value=value)
    return Finding(
        name="cgroup v2",
        value="not delegated to this process; each program has its limits, the job as a whole has none from here",
        state="absent",
        remedy="bound the job from outside: systemd-run -p MemoryMax=16G -p TasksMax=512, or the container's limits",
    )
