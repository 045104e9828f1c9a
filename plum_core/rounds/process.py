"""This process among others: it must not outlive the torchrun that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def die_with_parent() -> bool:
    """Under torchrun on Linux, have the kernel kill this rank when its launcher dies; whether that was done.

    torchrun ends its ranks itself, unless it is killed by a signal that it cannot catch: without this they would
    go on and hold the run folder. A process that a person started outlives its shell as any other does.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() == 1:  # it died before the call
        os.kill(os.getpid(), signal.SIGKILL)
    return True
