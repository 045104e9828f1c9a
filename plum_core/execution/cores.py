"""Which processors a pool gets: its share under torchrun, or those that it is given."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


def share_of_cores(cores: Sequence[int] | None = None, env: Mapping[str, str] = os.environ) -> tuple[int, ...]:
    """The part of ``cores`` (default: the processors that this process may use) that falls to this rank.

    torchrun tells LOCAL_RANK and LOCAL_WORLD_SIZE; without them all are ours. The shares of a machine's ranks are
    runs of neighbours, disjoint, cover all cores, and differ in size by one at most; where ranks outnumber cores,
    each gets one and some share theirs. Raises ValueError where the two variables contradict each other.
    """
    held = tuple(sorted(os.sched_getaffinity(0) if cores is None else set(cores)))
    rank, ranks = _whole(env, "LOCAL_RANK", 0), _whole(env, "LOCAL_WORLD_SIZE", 1)
    if not held:
        raise ValueError("cores is empty: give at least one processor, or None for those of this process")
    if not 0 <= rank < ranks:
        raise ValueError(f"LOCAL_RANK={rank} is not below LOCAL_WORLD_SIZE={ranks}: set both as torchrun does")
    if ranks > len(held):
        return (held[rank % len(held)],)
    return held[len(held) * rank // ranks : len(held) * (rank + 1) // ranks]


def _whole(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, str(default))
    if not text.isdecimal():
        raise ValueError(f"{name}={text!r} is no whole number: set it as torchrun does, or unset it")
    return int(text)


def dealt(cores: Sequence[int] | None, workers: int) -> list[tuple[int, ...] | None]:
    """Each worker's own of ``cores``: disjoint sets, their sizes one apart at most; in turns where cores are few.

    A worker is a chain of processes of which one runs at a time. On one core they find each other's data in its caches
    and wake each other without a word to another core. Raises ValueError for no cores.
    """
    if cores is None:
        return [None] * workers
    held = sorted(set(cores))
    if not held:
        raise ValueError("cores is empty: give at least one processor, or None to bind nothing")
    return [tuple(held[k % len(held) :: workers]) for k in range(workers)]


@contextmanager
def on_cores(cores: Sequence[int] | None) -> Iterator[None]:
    """Processes that this thread starts inside inherit ``cores``; None leaves all as it is.

    Setting the thread's own mask for a moment leaves no gap in which a new process could run, or fork, elsewhere.
    Raises ValueError for cores that this process cannot have.
    """
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        _take(set(cores))
        yield
    finally:
        os.sched_setaffinity(0, before)


def _take(cores: set[int]) -> None:
    try:
        os.sched_setaffinity(0, cores)
        missing = cores - os.sched_getaffinity(0)
    except (OSError, ValueError, OverflowError):  # none of them is ours, or one is no processor's number
        missing = cores
    if missing:
        raise ValueError(f"cores {sorted(missing)} are not this machine's to give: os.sched_getaffinity(0) lists some")
