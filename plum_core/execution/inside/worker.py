"""A worker's loop: jobs from the parent in, verdicts out, one at a time."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import select
import signal
import socket
import sys
import traceback
import warnings
from typing import Any

from plum_core.execution.inside import frames, kernel, native, zygote
from plum_core.execution.inside.endings import ParentGone, SandboxFault, ZygoteGone
from plum_core.execution.inside.judge import Judge
from plum_core.execution.inside.processes import Zygote

# CPU seconds for which this process may work on one job: the evaluator's bounds leave it far below
JUDGING_S, JUDGING_STDIN_S = 20.0, 2.0
COLLECT_AFTER = 10_000  # objects made and kept: the trees of a program's tests are some hundreds
MEMORY = 8 << 30  # address space of this process


def main(options: dict[str, Any]) -> None:
    """Serve the parent at the other end of the descriptor ``options["channel"]`` until it goes; never returns."""
    channel = options["channel"]
    try:
        parent = os.pidfd_open(options["parent"])
    except ProcessLookupError:
        os._exit(0)
    if options["dies_with_parent"]:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL, "death with the parent")
    if os.getppid() != options["parent"]:
        os._exit(0)
    os.set_inheritable(channel, False)
    packages = _package_folders(options["packages"])
    threads = options["threads"]
    core, slow = _core(options["core"])
    control = _fork_zygote((channel, parent), packages, options["simulated"], threads > 0, core)
    warnings.simplefilter("ignore")  # of test code that is only read here; the zygote has its own filters
    try:
        client = Zygote(control, parent, threads)
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY if hard < 0 else min(MEMORY, hard), hard))
        frames.write(channel, {"ready": True, "layers": client.spaces, "python": sys.version.split()[0], "slow": slow})
        _serve(channel, parent, Judge(client, packages))
    except SandboxFault as fault:
        frames.write(channel, {"unavailable": str(fault)})
    except (ParentGone, BrokenPipeError, ConnectionResetError, frames.ChannelClosed):
        pass
    os._exit(0)  # the zygote and its children die with this process


def _core(path: str | None) -> tuple[ctypes.PyDLL | None, str]:
    """forkserver.c, compiled; or why this interpreter goes without."""
    if path is None:
        return None, ""
    try:
        return native.load(path), ""
    except (OSError, AttributeError) as problem:
        return None, str(problem)


def _fork_zygote(
    close: tuple[int, ...], packages: list[str], simulated: list[str], threads: bool, core: ctypes.PyDLL | None
) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if core is not None:
        core.plum_join()
    if os.fork() == 0:
        for fd in close:
            os.close(fd)
        ours.close()
        zygote.start(theirs, packages, simulated, threads, core)
    if core is not None:
        core.plum_close()
    theirs.close()
    return ours


def _serve(channel: int, parent: int, judge: Judge) -> None:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(parent, select.POLLIN)
    judge.prepare()
    gc.freeze()  # what stands now stays: no collection need look at it
    gc.set_threshold(COLLECT_AFTER)
    while True:
        if any(fd == parent for fd, _ in poll.poll()):
            return
        job = frames.read(channel)
        # hard, because no handler runs while a builtin works; of this process's own time, so load has no part in it
        signal.setitimer(signal.ITIMER_VIRTUAL, JUDGING_S + JUDGING_STDIN_S * len(job["stdin_tests"]))
        gone = False
        try:
            verdict = judge.judge(job)
        except ZygoteGone as fault:
            gone, verdict = True, {"fault": str(fault)}
        except SandboxFault as fault:
            verdict = {"fault": str(fault)}
        except Exception:
            verdict = {"fault": traceback.format_exc(limit=-3)}
        frames.write(channel, {"token": job["token"], "gone": gone, **verdict})
        if gone:
            return
        judge.prepare()


def _package_folders(names: list[str]) -> list[str]:
    """Folders of the importable packages ``names`` (and of the shared objects beside them) of this interpreter."""
    found = []
    for site in _site_folders():
        for name in names:
            for folder in (os.path.join(site, name), os.path.join(site, f"{name}.libs")):
                if os.path.isdir(folder):
                    found.append(folder)
    return found


def _site_folders() -> list[str]:
    """site-packages, found by hand: the interpreter runs with -S, so that no .pth file is executed."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    roots = [os.path.dirname(os.path.dirname(sys.executable)), sys.base_prefix]
    return [os.path.join(root, "lib", version, "site-packages") for root in dict.fromkeys(roots)]
