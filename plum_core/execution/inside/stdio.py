"""Programs that read stdin and write stdout: one child a test, output compared by the judge as a whole.

Both streams are memory files made by the judge: a program may seek, stat or re-open its input, no pipe can fill up,
and the output is read only after the child is dead. Its size is bounded by RLIMIT_FSIZE.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from plum_core.execution.inside import answers, frames
from plum_core.execution.inside.endings import Closed, Ending, ending_of
from plum_core.execution.inside.processes import Child, Zygote
from plum_core.execution.inside.results import Result


def run(
    zygote: Zygote, code: str, test: dict[str, str], limits: dict[str, Any], add: Callable[[float, int], None]
) -> Result:
    """Run ``code`` as ``__main__`` on the test's input; the result of comparing all of its output."""
    limits = {**limits, **{name: min(limits[name], limits[f"test_{name}"]) for name in ("cpu_s", "wall_s")}}
    stdin, stdout = os.memfd_create("stdin"), os.memfd_create("stdout")
    try:
        with open(stdin, "wb", closefd=False) as file:
            file.write(test["input"].encode("utf-8", "surrogatepass"))
        os.lseek(stdin, 0, os.SEEK_SET)
        ending = _converse(zygote.take(), code, (stdin, stdout), limits, add)
        limit = int(limits["output_kib"] * 1024)
        if os.fstat(stdout).st_size >= limit:
            return Result("output", f"more than {limits['output_kib']} KiB on stdout")
        if ending is not None:
            return Result(ending.outcome, ending.detail)
        printed = os.pread(stdout, limit, 0).decode("utf-8", "replace")
    finally:
        os.close(stdin)
        os.close(stdout)
    same = tokens(printed) == tokens(test["output"])
    return Result("passed", "") if same else Result("failed", "the output differs")


def _converse(
    child: Child,
    code: str,
    files: tuple[int, int],
    limits: dict[str, Any],
    add: Callable[[float, int], None],
) -> Ending | None:
    """Run to the end; None when the program ended with status 0, by falling off its end or by exiting."""
    nonce = os.urandom(8).hex()
    ending: Ending | None = None
    closed = False
    try:
        child.start(frames.pack_job({"mode": "main", "n": nonce, "code": code}), limits, files)
        child.await_done()
    except Ending as reason:
        ending = reason
    except Closed:
        closed = True  # os._exit and its like: the wait status tells
    finally:
        reaped = child.finish(closed=closed)
        add(child.used_s, reaped.peak_kib)
    if ending is not None:
        return ending
    values, broken = answers.read(child.written, nonce, 1, limits)
    if broken is not None:
        return broken
    if values:
        return _left(values[0])
    if not closed:
        return Ending("violation", "said that it was done before its answer was")
    return ending_of(reaped, limits, child.used_s) if reaped.status != 0 else None


def _left(status: Any) -> Ending | None:
    """What became of a program that ran to its end: its exit status, or the Result of an exception."""
    if type(status) is Result:
        return Ending(*status)
    return None if status == 0 else Ending("exit", "left with a status other than 0")


def tokens(text: str) -> list[list[str]]:
    """The words of each line, without blank lines at either end."""
    return [line.split() for line in text.strip().splitlines()]
