"""SIGTERM: the step in hand is finished and saved, and the process ends with status 0 within 30 seconds.

Outside training the signal ends the work at once: every stage keeps its place in files that are whole or absent.
Inside ``deferred`` it is only noted, and the training loop ends after the step in hand, on all ranks after the same
one. Where that takes longer than ``GRACE_S`` the process ends from the last checkpoint, which loses time, no weights.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_S = 20.0  # of the 30 s that schedulers commonly give before SIGKILL
FAREWELL_S = 1.0  # a rank stays so long, so that its peers get their own SIGTERM before they miss it


class Stopped(BaseException):
    """The process was told to end. No ``except Exception`` may hold it up."""


class _Signal:
    """What this process knows of SIGTERM; signal handlers are the process's own, and so is this."""

    def __init__(self) -> None:
        self.asked, self.deferring = False, 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            return
        self.asked = True
        end = threading.Timer(GRACE_S, os._exit, (0,))  # a thread: the main one may wait inside a collective
        end.daemon = True
        end.start()
        if not self.deferring:
            raise Stopped


_signal = _Signal()


def stop_asked() -> bool:
    """Whether a SIGTERM has come."""
    return _signal.asked


@contextmanager
def deferred() -> Iterator[None]:
    """SIGTERM is noted and no more; whoever is inside asks ``stop_asked`` and raises ``Stopped`` where it suits."""
    _signal.deferring += 1
    try:
        yield
    finally:
        _signal.deferring -= 1


@contextmanager
def ends_on_sigterm(ranks: int = 1) -> Iterator[None]:
    """Leave the block quietly, so that the program ends with status 0, when SIGTERM comes.

    Of several ranks one may see its peer leave before its own signal is handled: what that raises is part of the
    stop. Without a main thread's signals, and inside another such block, this does nothing.
    """
    if signal.getsignal(signal.SIGTERM) is _signal or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _signal)
    try:
        yield
    except (Stopped, RuntimeError) as error:
        if not (_signal.asked or isinstance(error, Stopped)):  # Stopped alone: another rank was told
            raise
        print("stopped by SIGTERM; the same command goes on from here", file=sys.stderr, flush=True)
        if ranks > 1:
            time.sleep(FAREWELL_S)
    finally:
        if not _signal.asked:  # else the last lines of the program are still under the deadline
            signal.signal(signal.SIGTERM, before)
