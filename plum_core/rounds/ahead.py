"""Work on chunks beside what this process does otherwise: verdicts while more is sampled, samples while it trains.

What is done here is what the stage itself would do: a chunk's files, which depend on the config alone. The stage, when
its turn comes, finds them and does the rest. So it makes no difference to a run's bytes how far this came, and nothing
here waits for another rank.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import TracebackType

Job = Callable[[], None]


class Beside:
    """One thread that does jobs in turn. At the end of the block the job in hand is finished and the rest is dropped.

    What a job raises is raised at the end of the block, unless the block itself raises.
    """

    def __init__(self, jobs: Iterator[Job] | None = None) -> None:
        """``jobs``: done one after the other; more may be given to ``put``, where there are none."""
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._jobs = jobs if jobs is not None else iter(self._queue.get, None)
        self._waits = jobs is None
        self._leaving = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="plum-beside", daemon=True)

    def put(self, job: Job) -> None:
        """To be done after those that were put before."""
        self._queue.put(job)

    def _work(self) -> None:
        try:
            for job in self._jobs:
                if self._leaving.is_set():
                    return
                job()
                if self._leaving.is_set():
                    return
        except BaseException as problem:
            self._problem = problem

    def __enter__(self) -> Beside:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        if self._waits:
            self._queue.put(None)
        self._thread.join()
        if self._problem is not None and kind is None:
            raise self._problem
