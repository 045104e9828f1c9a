"""Verdicts that outlive their run: what is kept, under which key, and what a torn or shared file does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plum_core.execution import Executor, Limits, MemoryCache
from plum_core.execution.cache import MAX_LINE, DiskCache, is_lasting
from plum_core.execution.identity import identity
from plum_core.execution.workers import Worker
from plum_core.records.types import Outcome, Program, Verdict
from tests.conftest import ROOT

ADD = "def f(a, b):\n    return a + b\n"
TESTS = ("assert f(1, 2) == 3",)
LIMITS = Limits(cpu_s=0.5, wall_s=0.5)
VERDICT = Verdict(id="x", outcome=Outcome.PASSED, passed=(True,), detail="", wall_s=0.01, cpu_s=0.01, peak_mib=9.0)


def program(name: object, code: str = ADD, **fields: Any) -> Program:
    return Program(**{"id": str(name), "code": code, "tests": TESTS, **fields})


def judged(program: Program, cache: Path | MemoryCache, **fields: Any) -> tuple[int, Verdict]:
    """How many programs ran, and the verdict."""
    with Executor(**{"workers": 1, "limits": LIMITS, "packages": (), "cache": cache, **fields}) as executor:
        (verdict,) = executor.run([program])
        return executor.counts.ran, verdict


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.jsonl"


@pytest.fixture
def disk(path: Path) -> Iterator[DiskCache]:
    made = DiskCache(path)
    yield made
    made.close()


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_a_verdict_outlives_its_executor(path: Path) -> None:
    ran, first = judged(program("a"), path)
    again, second = judged(program("b"), path)
    assert (ran, again) == (1, 0)
    assert second == replace(first, id="b")


def test_a_memory_cache_is_shared_by_executors() -> None:
    kept = MemoryCache()
    asking = program("a", calls=({"call": "f(1, 2)"},))
    assert judged(asking, kept)[0] == 1
    with Executor(workers=1, limits=LIMITS, packages=(), cache=kept) as executor:
        for _ in range(2):
            (verdict,) = executor.run([asking])
            assert verdict.extra["values"] == ["3"]
            verdict.extra["values"].append("spoilt")
        assert (executor.counts.ran, executor.counts.cached) == (0, 2)


def test_what_changes_a_verdict_changes_the_key(path: Path) -> None:
    assert judged(program("a"), path)[0] == 1
    assert judged(program("a"), path, limits=Limits(cpu_s=0.6, wall_s=0.5))[0] == 1
    assert judged(program("a"), path, packages=("numpy",))[0] == 1
    assert judged(program("a", tests=("assert f(1, 2) == 4",)), path)[1].outcome is Outcome.FAILED
    assert judged(program("a"), path)[0] == 0


@pytest.mark.parametrize(
    ("code", "tests", "outcome", "kept"),
    [
        ("def f(a, b): return 0", TESTS, Outcome.FAILED, True),
        ("1 / 0", TESTS, Outcome.ERROR, True),
        ("import os\nos._exit(0)", TESTS, Outcome.EXIT, True),
        ("while True: pass", TESTS, Outcome.TIMEOUT, False),
        ("import time\ntime.sleep(9)", TESTS, Outcome.TIMEOUT, False),
        ("x = [0] * 10 ** 10", TESTS, Outcome.MEMORY, False),
        ("import os\nos.abort()", TESTS, Outcome.CRASH, False),
        # the test that fails first hides a timeout, which stands in `passed` all the same
        ("def f(a, b):\n    while b > 2: pass", (*TESTS, "assert f(1, 9) == 10"), Outcome.FAILED, False),
    ],
)
def test_only_what_lasts_is_kept(path: Path, code: str, tests: tuple[str, ...], outcome: Outcome, kept: bool) -> None:
    asked = program("a", code, tests=tests)
    ran, first = judged(asked, path)
    assert (ran, first.outcome) == (1, outcome)
    ran, second = judged(asked, path)
    assert (ran, second.outcome, second.passed) == (0 if kept else 1, outcome, first.passed)


def test_time_that_was_used_up_is_no_lasting_fact() -> None:
    limits = Limits(cpu_s=2, wall_s=10)
    assert is_lasting(replace(VERDICT, cpu_s=1.9), limits)
    failed = replace(VERDICT, outcome=Outcome.FAILED)
    assert is_lasting(failed, limits)
    assert not is_lasting(replace(failed, cpu_s=1.0), limits)
    assert not is_lasting(replace(failed, wall_s=5.0), limits)
    assert not is_lasting(replace(failed, outcome=Outcome.SANDBOX_ERROR), limits)


def test_our_failure_is_never_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Worker, "send", lambda worker, frame: os.kill(worker._process.pid, signal.SIGKILL))
        assert judged(program("a"), path)[1].outcome is Outcome.SANDBOX_ERROR
    assert path.read_bytes() == b""
    assert judged(program("a"), path)[1].outcome is Outcome.PASSED


def test_an_unattested_verdict_stays_unattested(path: Path) -> None:
    asked = program("a", tests=("eval('f(1, 2)')",))
    for expected in (1, 0):
        ran, verdict = judged(asked, path)
        assert (ran, verdict.outcome, verdict.attested) == (expected, Outcome.PASSED, False)


@pytest.mark.parametrize("cut", [1, 2, 40, 120])
def test_a_torn_last_line_is_ignored_and_closed(path: Path, disk: DiskCache, cut: int) -> None:
    disk.put(key(1), VERDICT)
    disk.put(key(2), VERDICT)
    os.truncate(path, path.stat().st_size - cut)
    other = DiskCache(path)
    assert (other.get(key(1)), other.get(key(2))) == (VERDICT, None)
    other.put(key(3), VERDICT)
    for cache in (other, disk):
        assert (cache.get(key(1)), cache.get(key(3))) == (VERDICT, VERDICT)
        assert cache.get(key(2)) == (VERDICT if cut == 1 else None)  # cut 1 takes the newline: the line itself is whole
    other.put(key(2), VERDICT)
    assert disk.get(key(2)) == VERDICT
    other.close()


@pytest.mark.parametrize(
    "line",
    [
        b'{"key":"' + key(1).hex().encode() + b'",' + b"\n",
        b'{"key":"' + key(1).hex().encode() + b'","verdict":{"id":"x"}}\n',
        b'{"key":"' + key(1).hex().encode() + b'","verdict":7}\n',
        b'{"key":"' + b"\xff" * 90 + b"\n",
        b'{"key":"\n\n\n',
        b'{"key":"' + b"0" * (17 * MAX_LINE) + b"\n",
    ],
)
def test_a_damaged_line_is_no_verdict(path: Path, line: bytes) -> None:
    path.write_bytes(line)
    cache = DiskCache(path)
    assert cache.get(key(1)) is None
    cache.put(key(2), VERDICT)
    cache.put(key(1), VERDICT)
    assert (cache.get(key(1)), cache.get(key(2))) == (VERDICT, VERDICT)
    cache.close()


@pytest.mark.parametrize("outcome", ["sandbox_error", "timeout"])
def test_a_file_cannot_bring_in_what_is_never_kept(path: Path, disk: DiskCache, outcome: str) -> None:
    disk.put(key(1), VERDICT)
    path.write_text(path.read_text().replace('"passed"', f'"{outcome}"', 1))
    assert disk.get(key(1)) is None


def test_large_values_are_not_kept(path: Path, disk: DiskCache) -> None:
    large = replace(VERDICT, extra={"values": ["x" * (MAX_LINE + 1)]})
    memory = MemoryCache(entries=2)
    for cache in (disk, memory):
        cache.put(key(1), large)
        assert cache.get(key(1)) is None
    for number in (1, 2, 1, 3):
        memory.get(key(number)) or memory.put(key(number), VERDICT)
    assert [memory.get(key(number)) is not None for number in (1, 2, 3)] == [True, False, True]


WRITER = """
import sys
from pathlib import Path
from plum_core.execution.cache import DiskCache
from plum_core.records.types import Outcome, Verdict
first, last = int(sys.argv[2]), int(sys.argv[3])
cache = DiskCache(Path(sys.argv[1]))
for n in range(first, last):
    size = n % 50 * 100
    cache.put(n.to_bytes(32, "big"), Verdict(id=str(n), outcome=Outcome.FAILED, passed=(False,), detail="d" * size,
              wall_s=0.0, cpu_s=0.0, peak_mib=0.0))
"""


def writer(path: Path, first: int, last: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, path, str(first), str(last)], cwd=ROOT)


def test_processes_append_to_one_file_and_one_is_killed(path: Path, disk: DiskCache) -> None:
    """Three writers, the third killed: all lines of the others are whole, and each process sees the others'."""
    writers = [writer(path, 0, 2000), writer(path, 2000, 4000), writer(path, 4000, 10**9)]
    while disk.get(key(4100)) is None:
        time.sleep(0.01)
    writers[2].kill()
    assert [process.wait(timeout=60) for process in writers] == [0, 0, -signal.SIGKILL]
    os.write(disk._fd, b'{"key":"00')  # a kill within a write, as no test can time it
    disk.put(key(1 << 80), VERDICT)
    for number in (*range(4000), 4050):
        verdict = disk.get(key(number))
        assert verdict is not None
        assert (verdict.id, len(verdict.detail)) == (str(number), number % 50 * 100)
    assert disk.get(key(1 << 80)) == VERDICT
    bad = 0
    for line in path.read_bytes().splitlines():
        try:
            json.loads(line)
        except ValueError:
            bad += 1
    assert bad <= 2  # what was torn on purpose, and what the kill may have torn


@pytest.mark.parametrize("content", ['{"id": "0", "outcome": "passed"}\n', "hello", "\n"])
def test_another_kind_of_file_is_refused_untouched(path: Path, content: str) -> None:
    path.write_text(content)
    if content == "\n":  # what closes a line of which not a byte was written
        DiskCache(path).close()
    else:
        with pytest.raises(ValueError, match="is no cache of verdicts"):
            Executor(workers=1, cache=path)
    assert path.read_text() == content


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot keep verdicts in .*Is a directory"):
        DiskCache(tmp_path)
    with pytest.raises(ValueError, match="entries must be at least 1"):
        MemoryCache(0)


def test_identity_sees_the_packages_files(tmp_path: Path) -> None:
    """An interpreter of a venv, whose package is edited in place without a change of its size."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    package = tmp_path / "lib" / version / "site-packages" / "mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1\n")

    def seen(**change: Any) -> bytes:
        return identity(**{"python": str(python), "packages": ["mine"], "layers": ["seccomp"], **change})

    first = seen()
    assert seen() == first
    assert seen(packages=[]) != first
    assert seen(layers=["seccomp", "user"]) != first
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.pyc").write_text("")
    assert seen() == first
    (package / "__init__.py").write_text("x = 2\n")
    assert seen() != first
    with pytest.raises(ValueError, match="cannot run the interpreter"):
        seen(python=str(tmp_path / "nothing"))


def test_identity_sees_how_we_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[identity.__module__]

    def seen() -> bytes:
        return identity(sys.executable, [], [])

    first = seen()
    with monkeypatch.context() as patch:
        patch.setattr(module, "SEMANTICS", module.SEMANTICS + 1)  # type: ignore[attr-defined]
        assert seen() != first
    monkeypatch.setattr(module, "_sources", lambda: "another")
    assert seen() != first
