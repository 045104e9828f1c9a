"""A child's own life: read the job, run it, answer. Everything here runs beside the program and may be subverted
by it; nothing here decides anything, except under the mode ``inline``, whose verdicts are marked as not attested.

Answers are JSON arrays that begin with the job's nonce, one a line of a memory file that outlives the child, so that
what was answered before a crash or a limit counts, and the judge is woken once:

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
DONE = b"."  # on the socket: all answers are in the file
MARK = b"+"  # the same: the program is loaded, or the answers of one more test are in the file


def main(sock: int, answers: int, job: dict[str, Any] | None = None) -> None:
    """Serve one job, which is on the descriptor ``sock`` unless it is here, with ``answers`` for a file; then end."""
    if job is None:
        job = frames.read_job(sock)
    _MODES[job["mode"]](job, sock, answers)
    os._exit(0)


def run_calls(job: dict[str, Any], sock: int, answers: int) -> None:
    """Answer the calls in order, then, where there is a tester, its requests until the socket closes.

    ``job["ends"]``: after how many calls each test ends, where tests have deadlines.
    """
    ends = job["ends"]
    loaded = _load(job, answers)
    if ends:
        os.write(sock, MARK)
    if loaded is not None:
        for i, call in enumerate(job["calls"]):
            answer(answers, job["n"], i, call, *loaded)
            if i + 1 in ends:
                os.write(sock, MARK)
    os.write(sock, DONE)
    if loaded is not None and job["serve"]:
        remote.serve(sock, job["n"], loaded[0])


def _load(job: dict[str, Any], answers: int) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The program's globals, and the functions that its tests bind; None, and an answer, when its code raised."""
    try:
        space = load(job["code"], "candidate", job["setup"])
        return space, bound(job["bind"], space)
    except BaseException as problem:
        raised(answers, job["n"], -1, problem)
        return None


def bound(bind: dict[str, str], space: dict[str, Any]) -> dict[str, Any]:
    """The functions that tests bind to names of theirs."""
    return {name: space[source] if source in space else eval(source, space) for name, source in bind.items()}


def answer(
    answers: int, nonce: str, index: int, call: list[Any], space: dict[str, Any], binding: dict[str, Any]
) -> None:
    """Carry out one call and write its answer."""
    try:
        value = _called(call, space, binding)
    except BaseException as problem:
        return raised(answers, nonce, index, problem)
    returned(answers, nonce, index, value, call[-1])


def returned(answers: int, nonce: str, index: int, value: Any, lazy: bool) -> None:
    """Write what a call returned; with ``lazy``, a lazy iterable is spelt out."""
    try:
        tree = codec.encode(codec.iterated(value) if lazy else value, codec.opaque)
    except BaseException as problem:
        return raised(answers, nonce, index, problem)
    _put(answers, [nonce, index, "v", tree])


def raised(answers: int, nonce: str, index: int, problem: BaseException) -> None:
    """Write that a call raised, or with -1 the program's own code."""
    _put(answers, [nonce, index, "e", *describe(problem)])


def _put(answers: int, answer: list[Any]) -> None:
    try:
        line = frames.dumps(answer)
    except (ValueError, RecursionError, MemoryError) as problem:  # what JSON cannot write
        line = frames.dumps([*answer[:2], "e", *describe(problem)])
    os.write(answers, line.encode() + b"\n")


def _called(call: list[Any], space: dict[str, Any], binding: dict[str, Any]) -> Any:
    """``["c", name, args, kwargs, lazy]``: a call with plain arguments; ``["x", source, lazy]``: an expression."""
    if call[0] == "c":
        _, name, args, kwargs, _ = call
        function = binding[name] if name in binding else lookup(name, space)
        return function(*args, **kwargs)
    return eval(compile(call[1], "<test>", "eval", 0, True), space, binding)


def run_main(job: dict[str, Any], sock: int, answers: int) -> None:
    """Run the program as ``__main__``; its stdin and stdout come as two descriptors after the job."""
    _, ancillary, _, _ = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, os.dup(sock)).recvmsg(1, 64)
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
        _put(answers, [job["n"], 0, "e", *describe(problem)])
    else:
        _put(answers, [job["n"], 0, "v", status])
    os.write(sock, DONE)


def _run_to_end(code: str) -> int:
    try:
        load(code, "__main__")
    except SystemExit as leave:
        return 0 if leave.code is None else leave.code if type(leave.code) is int else 1
    return 0


def run_inline(job: dict[str, Any], sock: int, answers: int) -> None:
    """Program and tests in one namespace, and the child itself says what passed."""
    ends = job["ends"]
    loaded = _load(job, answers)
    if ends:
        os.write(sock, MARK)
    for i, test in enumerate(job["tests"] if loaded is not None else ()):
        try:
            exec(compile(test, "<test>", "exec", 0, True), loaded[0])  # type: ignore[index]
            answer = [job["n"], i, "v", True]
        except BaseException as problem:
            answer = [job["n"], i, "e", *describe(problem)]
        _put(answers, answer)
        if i + 1 in ends:
            os.write(sock, MARK)
    os.write(sock, DONE)


_MODES = {"calls": run_calls, "main": run_main, "inline": run_inline, "tester": tester.run}


def rehearse() -> None:
    """Run once, in the zygote, what every child runs: the pages it touches are then warm."""
    reader, writer = os.pipe()
    code = "def f(a, b=1):\n    return [a, (b,), {a: b}, {a}, 1.5, 'x']\n"
    calls = [["c", "f", [1], {"b": 2}, False], ["x", "f(1, 2)", False], ["c", "missing", [], {}, False]]
    job = {"mode": "calls", "n": "0", "code": code, "setup": "import math\n", "bind": {}, "calls": calls}
    frames.write_bytes(writer, frames.pack_job({**job, "ends": (), "serve": False}))
    run_calls(frames.read_job(reader), 1, 1)  # 1 is /dev/null in the zygote
    os.close(reader)
    os.close(writer)
    del sys.modules["candidate"]
