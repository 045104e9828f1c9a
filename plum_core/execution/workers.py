"""The parent's side of one worker: start, frames without blocking, end."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plum_core.execution.compiled import announce, compiled_core
from plum_core.execution.cores import on_cores
from plum_core.execution.inside import frames
from plum_core.execution.limits import SandboxUnavailable

_BOOT = Path(__file__).parent / "inside" / "boot.py"
START_S = 60.0
_CHUNK = 1 << 16


class WorkerDied(Exception):
    """The worker's channel closed."""


class Worker:
    """One judge process with its zygote, on ``cores`` where they are given. Not thread-safe."""

    def __init__(
        self,
        python: str,
        packages: Sequence[str],
        simulate_missing: Sequence[str],
        cores: Sequence[int] | None = None,
        threads: int = 0,
        hash_seed: int = 0,
    ) -> None:
        ours, theirs = socket.socketpair()
        core = compiled_core()
        options = {
            "channel": theirs.fileno(),
            "parent": os.getpid(),
            "packages": list(packages),
            "simulated": list(simulate_missing),
            "threads": threads,
            "core": core,
            # the kernel's parent-death signal means the thread that started the process
            "dies_with_parent": threading.current_thread() is threading.main_thread(),
        }
        # a clean interpreter: no site, no user site, no PYTHON* but a fixed hash seed, no bytecode written
        command = [python, "-S", "-s", "-P", "-B", "-X", "utf8", str(_BOOT), json.dumps(options)]
        try:
            with on_cores(cores):
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env={"PYTHONHASHSEED": str(hash_seed), "LC_ALL": "C.UTF-8", **_preload(core)},
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as problem:
            ours.close()
            raise ValueError(f"cannot run the interpreter {python}: {problem.strerror}") from None
        finally:
            theirs.close()
        self.sock = ours
        self.sock.setblocking(False)
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self.layers: list[str] = []

    def fileno(self) -> int:
        """For selectors."""
        return self.sock.fileno()

    def await_ready(self) -> None:
        """Until the worker has proved its confinement. Raises SandboxUnavailable with the worker's sentence."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        try:
            while not (messages := self.receive()):
                if not poll.poll(START_S * 1000):
                    raise SandboxUnavailable(f"a sandbox worker did not start within {START_S:g} seconds")
        except WorkerDied:
            raise SandboxUnavailable("a sandbox worker died at its start; its message stands above") from None
        if "unavailable" in messages[0]:
            raise SandboxUnavailable(messages[0]["unavailable"])
        self.greet(messages[0])

    def greet(self, message: dict[str, Any]) -> None:
        """Note what the first message of a worker that started tells."""
        self.layers = message["layers"]
        if message["slow"]:
            announce(message["slow"])

    def send(self, frame: bytes) -> None:
        """Write what the socket takes now of a message that is packed already, and queue the rest."""
        self._outgoing += frame
        self.flush()

    def flush(self) -> None:
        """Write what is queued, as far as the socket takes it."""
        while self._outgoing:
            try:
                sent = self.sock.send(self._outgoing, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except OSError:
                raise WorkerDied from None
            del self._outgoing[:sent]

    @property
    def wants_to_write(self) -> bool:
        """Whether something is still queued."""
        return bool(self._outgoing)

    def receive(self) -> list[dict[str, Any]]:
        """All complete messages that have arrived. Raises WorkerDied, but not before its last words are handed out."""
        dead = False
        while not dead:
            try:
                part = self.sock.recv(_CHUNK)
            except BlockingIOError:
                break
            except OSError:  # it left jobs of ours unread; what it said before is still there
                dead = True
                break
            dead = not part
            self._incoming += part
            if len(part) < _CHUNK:  # the socket is empty, or the next call is told of its end
                break
        messages = []
        while len(self._incoming) >= 4:
            (size,) = frames.HEADER.unpack_from(self._incoming)
            if len(self._incoming) < 4 + size:
                break
            messages.append(json.loads(self._incoming[4 : 4 + size].decode()))  # text is read at half the cost
            del self._incoming[: 4 + size]
        if dead and not messages:
            raise WorkerDied
        return messages

    @property
    def overran(self) -> bool:
        """Of a worker that died: whether the kernel stopped it over a job that took too long to judge."""
        try:
            return self._process.wait(timeout=5) == -signal.SIGVTALRM
        except subprocess.TimeoutExpired:
            return False

    def kill(self) -> None:
        """End the worker; its zygote and children die with it."""
        self.sock.close()
        self._process.kill()
        self._process.wait()


def default_python() -> str:
    """The interpreter that runs us."""
    return sys.executable


def _preload(core: str | None) -> dict[str, str]:
    """The environment that puts pages.c before the interpreter, with all symbols resolved before the first fork.

    LD_PRELOAD knows no escapes: from a path with a space or a colon it is loaded later, to less effect.
    """
    return {} if core is None or set(core) & set(" :") else {"LD_PRELOAD": core, "LD_BIND_NOW": "1"}
