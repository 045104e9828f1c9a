"""The executor: programs in, verdicts out as they finish."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from plum_core.execution.cache import Cache, DiskCache
from plum_core.execution.compiled import compiled_core
from plum_core.execution.cores import dealt, share_of_cores
from plum_core.execution.identity import identity
from plum_core.execution.jobs import JobMaker, Ticket
from plum_core.execution.limits import Limits
from plum_core.execution.pool import CHECK_S, Pool
from plum_core.execution.rollouts import Programs, Rollouts
from plum_core.execution.sharing import CLOSED, Counts, Desk, Line
from plum_core.execution.workers import Worker, default_python
from plum_core.records.types import Program, Verdict


class Executor:
    """Runs untrusted programs under confinement and judges them; see the package's README for how and against whom.

    ``workers`` is the number of programs at a time (default: one for each processor that this process may use, of
    which a rank under torchrun takes its share), ``cores`` the processors that are dealt out to them, ``python`` the
    interpreter of the programs, ``packages`` the third-party packages that they may import. Each worker may hold
    ``limits.memory_mib`` at its peak. ``threads`` is how many threads a program may have beside its first,
    ``hash_seed`` the PYTHONHASHSEED of all programs. ``cache`` keeps verdicts beyond a run: in the file of a path, or
    in a MemoryCache. ``share`` lets equal programs of a run have one run in common. Use it as a context manager, or
    call ``close``. Not thread-safe.

    Raises SandboxUnavailable when this machine lacks a mandatory layer, ValueError for arguments that cannot be
    met. ``simulate_missing`` takes layers as missing: it can only make the executor refuse.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        limits: Limits | None = None,
        python: str | None = None,
        packages: Sequence[str] = ("numpy",),
        cores: Sequence[int] | None = None,
        threads: int = 0,
        hash_seed: int = 0,
        cache: Path | Cache | None = None,
        share: bool = True,
        simulate_missing: Sequence[str] = (),
    ) -> None:
        if not 0 <= hash_seed < 2**32:
            raise ValueError(f"hash_seed must be in [0, 2**32), got {hash_seed}")
        bound = None if cores is None else tuple(sorted(set(cores)))
        count = workers if workers is not None else len(share_of_cores() if bound is None else bound)
        if count < 1:
            raise ValueError(f"workers must be at least 1, got {count}")
        if threads < 0:
            raise ValueError(f"threads must be 0 (none) or more, got {threads}")
        self.limits = limits or Limits()
        interpreter, names, missing = python or default_python(), tuple(packages), tuple(simulate_missing)
        self._file = DiskCache(cache) if isinstance(cache, Path) else None
        try:
            places = dealt(bound, count)
            self._pool = Pool(count, lambda k: Worker(interpreter, names, missing, places[k], threads, hash_seed))
            self._slots = self._pool.slots
            kept = cache if not isinstance(cache, Path) else self._file
            also = [f"threads {threads}", *([f"hash seed {hash_seed}"] if hash_seed else [])]
            also += ["forks in Python"] if compiled_core() is None else []  # five frames less for a recursion
            salt = identity(interpreter, names, [*self.layers, *also]) if kept is not None else b""
        except BaseException:
            self.close()
            raise
        self._desk = Desk(self._pool, JobMaker(self.limits, salt), kept, share)
        self._rollouts = Rollouts(self._desk)

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """End all workers and what they run; who waits for a verdict gets a ValueError. May be called twice."""
        if hasattr(self, "_rollouts"):
            self._rollouts.fail(ValueError("this executor was closed before the verdict; close it when all are in"))
        if hasattr(self, "_pool"):
            self._pool.close()
        file, self._file = getattr(self, "_file", None), None
        if file is not None:
            file.close()

    @property
    def layers(self) -> list[str]:
        """The layers of confinement in force: the mandatory ones, and what this kernel offers beyond."""
        optional = self._slots[0].worker.layers if self._slots else []
        return ["no_new_privs", "seccomp", "rlimits", "landlock", *optional]

    @property
    def counts(self) -> Counts:
        """How many programs ran so far, and how many shared a verdict or had one in the cache."""
        return self._desk.counts

    def run(self, programs: Iterable[Program], *, ordered: bool = False) -> Iterator[Verdict]:
        """One verdict a program, as they finish, or with ``ordered`` in the order of the programs.

        ``programs`` is read only as fast as workers become free, and at most 32 programs a worker ahead of the
        verdicts that were handed out. Leaving the iterator early cancels what is running. Raises ValueError on a
        program with a bad limit, and where the executor is in use already.
        """
        self._begin()
        try:
            yield from self._verdicts(iter(programs), Line(ordered))
        finally:
            self._desk.is_iterated = False
            self._desk.cancel()

    def _begin(self) -> None:
        if self._desk.is_closed:
            raise ValueError(CLOSED)
        if self._desk.is_iterated:
            raise ValueError("this executor is already iterating over run(); finish that, or make another one")
        if not self._rollouts.release():
            raise ValueError("this executor serves an event loop; wait until that is done, or make another one")
        self._pool.revive()
        self._desk.is_iterated = True

    def _verdicts(self, source: Iterator[Program], line: Line) -> Iterator[Verdict]:
        desk, recent, window = self._desk, self._desk.memory(), self._desk.window
        reading, taken = True, 0

        def deliver(ticket: Ticket, result: Verdict | Exception) -> None:
            assert isinstance(result, Verdict)  # exceptions are raised by the step that meets them
            line.add(ticket, result)

        while reading or taken > line.handed_out:
            while reading and self._pool.has_room and taken - line.handed_out < window:
                program = next(source, None)
                if program is None:
                    reading = False
                    break
                desk.submit(Ticket(program, taken, deliver, recent))
                taken += 1
            desk.step(0 if line.is_ready else CHECK_S)
            yield from line.take()

    async def check(self, program: Program) -> Verdict:
        """The verdict of one program; for any number of tasks of one event loop at a time.

        Cancelling the task abandons the program, unless others wait for an equal one. Raises ValueError as ``run``
        does, and when the executor is closed meanwhile; SandboxUnavailable when workers cannot be had any more.
        """
        return await self._rollouts.check(program)

    def arun(self, programs: Programs, *, ordered: bool = False) -> AsyncGenerator[Verdict, None]:
        """``run`` for ``async for``, of programs that may themselves come asynchronously. Others may run beside it."""
        return self._rollouts.run(programs, ordered)
