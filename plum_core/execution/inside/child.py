"""A child's own life: read the job, run it, answer. Everything here runs beside the program and may be subverted
by it; nothing here decides anything, except under the mode ``inline``, whose verdicts are marked as not attested.

Answers are JSON arrays that begin with the job's nonce:

    [nonce, i, "v", value]                 call ``i`` returned ``value`` (see codec)
    [nonce, i, "e", type names, message]   it raised; ``i`` = -1: the program's own code did
"""

from __future__ import annotations

import os
import socket
import sys
from array import array
from typing import Any

from plum_core.execution.inside import codec, frames, remote, tester
from plum_core.execution.inside.program import describe, load, lookup

BROKEN = 70  # exit status of a child that failed outside the program


def main(fd: int) -> None:
    """Serve one job on the socket ``fd`` and end the process."""
    job = frames.read_job(fd)
    _MODES[job["mode"]](fd, job)
    os._exit(0)


def run_calls(fd: int, job: dict[str, Any]) -> None:
    """Answer the calls in order, then, where there is a tester, its requests until the socket closes."""
    nonce = job["n"]
    try:
        space = load(job["code"], "candidate", job["setup"])
        bound = {name: eval(source, space) for name, source in job["bind"].items()}
    except BaseException as problem:
        frames.write(fd, [nonce, -1, "e", *describe(problem)])
        return
    for i, call in enumerate(job["calls"]):
        try:
            answer = [nonce, i, "v", codec.encode(_answer(call, space, bound), codec.opaque)]
        except BaseException as problem:
            answer = [nonce, i, "e", *describe(problem)]
        _send(fd, answer)
    if job["serve"]:
        remote.serve(fd, nonce, space)


def _send(fd: int, answer: list[Any]) -> None:
    try:
        frames.write(fd, answer)
    except (ValueError, RecursionError, MemoryError) as problem:  # what JSON cannot write
        frames.write(fd, [*answer[:2], "e", *describe(problem)])


def _answer(call: list[Any], space: dict[str, Any], bound: dict[str, Any]) -> Any:
    """``["c", name, args, kwargs, lazy]``: a call with plain arguments; ``["x", source, lazy]``: an expression."""
    if call[0] == "c":
        _, name, args, kwargs, lazy = call
        function = bound[name] if name in bound else lookup(name, space)
        value = function(*args, **kwargs)
    else:
        _, source, lazy = call
        value = eval(compile(source, "<test>", "eval", 0, True), space, bound)
    return codec.iterated(value) if lazy else value


def run_main(fd: int, job: dict[str, Any]) -> None:
    """Run the program as ``__main__``; its stdin and stdout come as two descriptors after the job."""
    nonce = job["n"]
    _, ancillary, _, _ = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, os.dup(fd)).recvmsg(1, 64)
    for target, source in enumerate(array("i", ancillary[0][2])):
        os.dup2(source, target)
        os.close(source)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115 (for good)
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.argv = ["program"]
    try:
        status = _run_to_end(job["code"])
        sys.stdout.flush()
    except BaseException as problem:
        frames.write(fd, [nonce, 0, "e", *describe(problem)])
    else:
        frames.write(fd, [nonce, 0, "v", status])


def _run_to_end(code: str) -> int:
    try:
        load(code, "__main__")
    except SystemExit as leave:
        return 0 if leave.code is None else leave.code if type(leave.code) is int else 1
    return 0


def run_inline(fd: int, job: dict[str, Any]) -> None:
    """Program and tests in one namespace, and the child itself says what passed."""
    nonce = job["n"]
    try:
        space = load(job["code"], "candidate", job["setup"])
    except BaseException as problem:
        frames.write(fd, [nonce, -1, "e", *describe(problem)])
        return
    for i, test in enumerate(job["tests"]):
        try:
            exec(compile(test, "<test>", "exec", 0, True), space)
            answer = [nonce, i, "v", True]
        except BaseException as problem:
            answer = [nonce, i, "e", *describe(problem)]
        _send(fd, answer)


_MODES = {"calls": run_calls, "main": run_main, "inline": run_inline, "tester": tester.run}


def rehearse() -> None:
    """Run once, in the zygote, what every child runs: the pages it touches are then warm."""
    reader, writer = os.pipe()
    code = "def f(a, b=1):\n    return [a, (b,), {a: b}, {a}, 1.5, 'x']\n"
    calls = [["c", "f", [1], {"b": 2}, False], ["x", "f(1, 2)", False], ["c", "missing", [], {}, False]]
    job = {"mode": "calls", "n": "0", "code": code, "setup": "import math\n", "bind": {}, "calls": calls}
    frames.write_bytes(writer, frames.pack_job({**job, "serve": False}))
    run_calls(1, frames.read_job(reader))  # 1 is /dev/null in the zygote
    os.close(reader)
    os.close(writer)
    del sys.modules["candidate"]
