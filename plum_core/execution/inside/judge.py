"""The judge: hands a program to confined children, holds the tests, and decides.

A program arrives as the parent's JSON; the verdict goes back the same way. What a child sends is data: it is bounded,
checked for its nonce and order, decoded to plain values, and compared here.
"""

from __future__ import annotations

import json
import os
import reprlib
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from plum_core.execution.inside import answers, codec, frames, stdio
from plum_core.execution.inside.endings import Closed, Ending, Forged, Overrun, ending_of
from plum_core.execution.inside.plan import Check, Plan, inline, make_plan, wants
from plum_core.execution.inside.processes import Child, Zygote
from plum_core.execution.inside.results import Result, exception_result

MAX_DETAIL = 400


class Usage:
    """What the children of one program used and answered together."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self.peak_kib = 0
        self.values: list[str | None] = []  # of the calls that ask for theirs, as literals

    def add(self, cpu_s: float, peak_kib: int) -> None:
        self.cpu_s += cpu_s
        self.peak_kib = max(self.peak_kib, peak_kib)


class Untransportable(Exception):
    """The tester found something in the tests that it cannot hand to the program."""


class Raised(Exception):
    """A call of the program ended with an exception."""

    def __init__(self, result: Result) -> None:
        super().__init__(result)
        self.result = result


class Judge:
    """Judges one program at a time. ``packages`` are the library packages of the second zygote."""

    def __init__(self, zygote: Zygote, packages: list[str]) -> None:
        self._zygote = zygote
        self._library: Zygote | None = None
        names = [os.path.basename(path) for path in packages]
        self._packages = [name for name in names if "." not in name]

    def judge(self, program: dict[str, Any]) -> dict[str, Any]:
        """The verdict's fields. Raises SandboxFault when the run says nothing about the program."""
        began = time.monotonic()
        usage = Usage()
        attested = True
        tests = tuple(program["tests"])
        plan = _plan(tests, program["setup"], json.dumps(program["calls"]), program.get("entry"))
        if isinstance(plan, Result):
            results = [plan] * (len(tests) + len(program["calls"]) + len(program["stdin_tests"]))
        else:
            attested = plan.tier < 2
            try:
                results = self._results(plan, program, usage)
            except Untransportable:
                attested = False
                results = self._results(inline(plan, program["setup"]), program, usage)
        first = next((result for result in results if result.outcome != "passed"), Result("passed", ""))
        if not results:
            first = Result("error", "the program has no tests")
        return {
            "outcome": first.outcome,
            "passed": [result.outcome == "passed" for result in results],
            "detail": first.detail[:MAX_DETAIL],
            "wall_s": round(time.monotonic() - began, 6),
            "cpu_s": round(usage.cpu_s, 6),
            "peak_mib": round(usage.peak_kib / 1024, 3),
            "attested": attested,
            "values": usage.values,
        }

    def _results(self, plan: Plan, program: dict[str, Any], usage: Usage) -> list[Result]:
        limits = program["limits"]
        if len(program["code"]) > limits["source_kib"] * 1024:
            count = len(plan.tests) + len(program["stdin_tests"])
            return [Result("error", f"source of more than {limits['source_kib']} KiB")] * count
        zygote = self._for(program, plan)
        results = []
        if plan.tests:
            results = (_run_inline if plan.tier == 2 else _run_split)(zygote, plan, program, usage)
        for test in program["stdin_tests"]:
            results.append(stdio.run(zygote, program["code"], test, limits, usage.add))
        return results

    def prepare(self) -> None:
        """Fork the next program's child ahead of time."""
        self._zygote.prepare()

    def _for(self, program: dict[str, Any], plan: Plan) -> Zygote:
        """The zygote whose modules the program wants."""
        sources = [program["code"], plan.setup, plan.tester_setup]
        if not wants(self._packages, *sources, *(test.source for test in plan.tests if test.checks is None)):
            return self._zygote
        if self._library is None:
            self._library = self._zygote.library()
        return self._library


@lru_cache(maxsize=256)
def _plan(tests: tuple[str, ...], setup: str, calls: str, entry: str | None) -> Plan | Result:
    """Many programs share one suite, so plans are kept. A suite that cannot be read fails every program."""
    try:
        return make_plan(tests, setup, entry, json.loads(calls))
    except ValueError as problem:
        return Result("error", f"the tests cannot be read: {problem}")


def _nonce() -> str:
    return os.urandom(8).hex()


def _run_split(zygote: Zygote, plan: Plan, program: dict[str, Any], usage: Usage) -> list[Result]:
    """Splitting tests, and after them those that need a tester, against one child.

    A test that passes its deadline ends its child; the tests behind it go on in another one.
    """
    limits, count = program["limits"], len(plan.calls)
    job = {"mode": "calls", "code": program["code"], "setup": plan.setup, "bind": plan.bind, "serve": plan.tier == 1}
    ends = _ends(plan, limits)
    tested: dict[int, Result] = {}
    values: list[Any] = []
    child: Child | None = None
    while True:
        earlier, child, first, nonce = child, zygote.take(), len(values), _nonce()
        if earlier is not None:
            child.go_on(earlier)
        marks = [end - first for end in ends if end > first]
        left = {**job, "n": nonce, "calls": plan.calls[first:], "ends": marks}

        def converse(
            child: Child, left: dict[str, Any] = left, marks: list[int] = marks, nonce: str = nonce, first: int = first
        ) -> None:
            child.start(frames.pack_job(left), limits)
            child.await_done(marks)
            if plan.tier == 1 and answers.read(child.answers(), nonce, count - first, limits).ending is None:
                _run_tester(zygote, plan, child, limits, tested, usage)

        ending = _run_child(child, converse, limits, usage)
        got, broken = answers.read(child.written, nonce, count - first, limits)
        if isinstance(ending, Forged):
            got = []
        lost = Result(*(broken or ending).args)
        if broken or not isinstance(ending, Overrun) or not marks or child.marked is None:
            values += got
            break
        values += got[: child.marked]
        values += [lost] * (next(end for end in ends if end > len(values)) - len(values))
        if len(values) == count and plan.tier == 0:
            break
    asked = [test.asked for test in plan.tests if test.asked is not None]
    usage.values = [codec.literal(values[i]) if i < len(values) else None for i in asked]
    readers = [_reader(value) for value in values]
    readers += [_reader(lost)] * (count - len(values))
    return [
        tested.get(i, lost) if test.checks is None else _decide(test.checks, readers)
        for i, test in enumerate(plan.tests)
    ]


def _ends(plan: Plan, limits: dict[str, Any]) -> list[int]:
    """After how many calls each split test ends; none where no test has a deadline of its own."""
    return sorted({test.end for test in plan.tests if test.end > 0}) if _paced(limits) else []


def _paced(limits: dict[str, Any]) -> bool:
    return bool(limits["test_cpu_s"] < limits["cpu_s"] or limits["test_wall_s"] < limits["wall_s"])


def _run_child(child: Child, converse: Callable[[Child], None], limits: dict[str, Any], usage: Usage) -> Ending:
    """Converse with ``child`` to the end, then reap it. The ending matters where answers are missing."""
    ending: Ending | None = None
    closed = False
    try:
        converse(child)
        ending = Ending("violation", "said that it was done before its answers were")
    except Ending as reason:
        ending = reason.with_traceback(None)  # which leads back to this frame, a circle around all that was answered
    except Closed:
        closed = True  # told apart below, by its wait status
    finally:
        reaped = child.finish(closed=closed)
        usage.add(child.used_s, reaped.peak_kib)
    if child.is_rewritten:
        return Forged("violation", "changed an answer after its test was over")
    return ending or ending_of(reaped, limits, child.spent_s + child.used_s)


def _reader(answer: Any) -> Any:
    """An answer as a test's expression reads it: a value, or the exception in its place."""

    def read() -> Any:
        if type(answer) is Result:
            raise Raised(answer)
        return answer

    return read


def _decide(checks: list[Check], readers: list[Any]) -> Result:
    for check in checks:
        try:
            if check.holds(readers):
                continue
        except Raised as raised:
            return Result(raised.result.outcome, f"{check.words()}: {raised.result.detail}")
        except Exception as problem:
            return Result("error", f"{check.words()}: {type(problem).__name__}")
        got = f": got {_short(readers[check.call]())}" if check.call >= 0 else ""
        return Result("failed", check.words() + got)
    return Result("passed", "")


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80


def _short(value: Any) -> str:
    """A few words of a value; the same from run to run."""
    try:
        return _repr.repr(value)
    except Exception:  # an integer of too many digits to print
        return type(value).__name__


def _run_tester(
    zygote: Zygote,
    plan: Plan,
    child: Child,
    limits: dict[str, Any],
    results: dict[int, Result],
    usage: Usage,
) -> None:
    """Carry the tester's requests to the program's child and back; ``results`` gets what the tester says."""
    indices = [i for i, test in enumerate(plan.tests) if test.checks is None]
    nonce = _nonce()
    job = {"mode": "tester", "n": nonce, "setup": plan.tester_setup, "names": plan.names}
    program_ended: list[Closed] = []

    def converse(tester: Child) -> None:
        tester.start(frames.pack_job({**job, "tests": [plan.tests[i].source for i in indices]}), limits)
        child.begin_test()
        while len(results) < len(indices):
            message = tester.receive()
            if message[0] != nonce:
                raise Ending("violation", "a message of another form from the test code")
            if message[1] == "q" and len(message) == 3:
                try:
                    child.send(frames.pack(message[2]))
                    body = child.receive_frame()
                except Closed as closed:
                    program_ended.append(closed)
                    return
                tester.send(frames.HEADER.pack(len(body)) + body)
            else:
                _note_result(message, indices, results)
                child.begin_test()
                tester.begin_test()

    ending = _run_child(zygote.take(), converse, limits, usage)
    if program_ended:
        raise program_ended[0]
    if len(results) < len(indices):
        raise Ending(ending.outcome, ending.detail)


def _note_result(message: list[Any], indices: list[int], results: dict[int, Result]) -> None:
    if message[1] != "t" or len(message) not in (4, 5):
        raise Ending("violation", "a message of another form from the test code")
    result = Result("passed", "") if len(message) == 4 else exception_result(*message[3:])
    if len(message) == 5 and message[3][0] == "Untransportable":
        raise Untransportable
    if message[2] == -1:
        raise Ending(*result)
    results[indices[len(results)]] = result


def _run_inline(zygote: Zygote, plan: Plan, program: dict[str, Any], usage: Usage) -> list[Result]:
    """Everything in one child, which reports by itself: the verdict is marked as not attested."""
    nonce, limits, count = _nonce(), program["limits"], len(plan.tests)
    job = {"mode": "inline", "n": nonce, "code": program["code"], "setup": plan.setup, "bind": {}}
    ends = list(range(1, count + 1)) if _paced(limits) else []

    def converse(child: Child) -> None:
        child.start(frames.pack_job({**job, "tests": [test.source for test in plan.tests], "ends": ends}), limits)
        child.await_done(ends)

    child = zygote.take()
    ending = _run_child(child, converse, limits, usage)
    values, broken = answers.read(child.written, nonce, count, limits)
    results = [value if type(value) is Result else Result("passed", "") for value in values]
    return results + [Result(*(broken or ending).args)] * (count - len(results))
