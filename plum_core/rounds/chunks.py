"""A stage in chunks: what a kill can cost is one chunk, and ranks share chunks out.

A chunk's content depends on the config alone, never on who computes it or when, so an interrupted run ends in the
same bytes as one that was not. Each chunk is two files in ``STAGE.parts``, a tally and then the records; once all are
there they become ``STAGE.jsonl``.
"""

from __future__ import annotations

import functools
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from plum_core.records import read_jsonl, write_atomic, write_jsonl
from plum_core.records.files import atomic_file
from plum_core.training import World

T = TypeVar("T")
Tally = dict[str, Any]  # counts, nested at will; tallies of chunks are added up
POLL_S = 0.1


def run_chunks(
    target: Path,
    items: Sequence[T],
    size: int,
    work: Callable[[list[T]], tuple[Sequence[Any], Tally]],
    *,
    world: World,
    on_chunk: Callable[[int, int, Tally], None],
    on_complete: Callable[[Tally, list[Path]], None],
    on_part: Callable[[int, Sequence[Any]], None] | None = None,
) -> bool:
    """Make ``target`` from ``items``, ``size`` at a time; False where it was there already.

    work: the records and the tally of one chunk. on_chunk: (items done by all ranks, all items, the tally of those
    done), called on every rank before the first chunk and after each; the tally is rank 0's. on_part: (a chunk's
    number, its records), after each that this rank has made in this sitting. on_complete: the sum of all tallies and
    the files of all chunks, on rank 0, before ``target`` gets its name; a kill in between has it called again.
    """
    parts = target.with_suffix(".parts")
    done = target.exists()
    world.barrier()  # nobody asks after rank 0 may have finished
    if done:
        if world.is_main:
            shutil.rmtree(parts, ignore_errors=True)
        return False
    starts = range(0, len(items), size)
    watched = _Watched(parts, starts, len(items), size, tallied=world.is_main)
    on_chunk(watched.look(), len(items), watched.tally)
    for number in range(world.rank, len(starts), world.size):
        if not _part(parts, number).exists():
            chunk = list(items[starts[number] : starts[number] + size])
            records = _make_part(parts, number, functools.partial(work, chunk))
            if on_part is not None:
                on_part(number, records)
            on_chunk(watched.look(), len(items), watched.tally)
    while (ready := watched.look()) < len(items):
        on_chunk(ready, len(items), watched.tally)
        time.sleep(POLL_S)
    world.barrier()
    if world.is_main:
        tallies = [json.loads(_tally(parts, number).read_text()) for number in range(len(starts))]
        files = [_part(parts, number) for number in range(len(starts))]
        on_complete(add_tallies(tallies), files)
        _merge(target, files)
        shutil.rmtree(parts, ignore_errors=True)
    world.barrier()
    return True


def make_part(target: Path, number: int, work: Callable[[], tuple[Sequence[Any], Tally]]) -> Sequence[Any] | None:
    """Chunk ``number`` of the stage that ends in ``target``, ahead of it: its records; None where they are there."""
    parts = target.with_suffix(".parts")
    if target.exists() or _part(parts, number).exists():
        return None
    return _make_part(parts, number, work)


def _make_part(parts: Path, number: int, work: Callable[[], tuple[Sequence[Any], Tally]]) -> Sequence[Any]:
    records, tally = work()
    write_atomic(_tally(parts, number), json.dumps(tally))
    write_jsonl(_part(parts, number), records)
    return records


def read_part(target: Path, number: int, record: type[T]) -> list[T]:
    """The records of a chunk that is there."""
    return list(read_jsonl(_part(target.with_suffix(".parts"), number), record))


def claim_parts(target: Path, settings: Mapping[str, Any], world: World) -> None:
    """For a stage outside a run folder: hold its chunks to the settings that they were begun with.

    Raises ValueError where ``target`` is there already, or half-done under other settings.
    """
    parts = target.with_suffix(".parts")
    mark, text = parts / "settings.json", json.dumps(settings, sort_keys=True)
    world.barrier()
    if target.exists():
        raise ValueError(f"{target} exists: remove it, or name another --out")
    if mark.exists() and mark.read_text(encoding="utf-8") != text:
        raise ValueError(f"{parts} was begun with other settings: remove it, or name another --out")
    world.barrier()
    if world.is_main:
        write_atomic(mark, text)
    world.barrier()


def add_tallies(tallies: Sequence[Mapping[str, Any]]) -> Tally:
    """Key by key; keys in order of appearance."""
    out: Tally = {}
    for tally in tallies:
        for key, value in tally.items():
            if isinstance(value, Mapping):
                out[key] = add_tallies([out.get(key, {}), value])
            else:
                out[key] = out.get(key, 0) + value
    return out


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:05d}.jsonl"


def _tally(parts: Path, number: int) -> Path:
    return parts / f"{number:05d}.json"


class _Watched:
    """Which chunks are done, by whichever rank, and what they add up to; no file is read twice."""

    def __init__(self, parts: Path, starts: range, total: int, size: int, *, tallied: bool) -> None:
        self.parts, self.starts, self.total, self.size, self.tallied = parts, starts, total, size, tallied
        self.waiting = list(range(len(starts)))
        self.done, self.tally = 0, Tally()

    def look(self) -> int:
        """The items that are done by now."""
        ready = [number for number in self.waiting if _part(self.parts, number).exists()]
        self.waiting = [number for number in self.waiting if number not in ready]
        self.done += sum(min(self.size, self.total - self.starts[number]) for number in ready)
        if self.tallied and ready:
            self.tally = add_tallies([self.tally, *(json.loads(_tally(self.parts, n).read_text()) for n in ready)])
        return self.done


def _merge(target: Path, parts: Sequence[Path]) -> None:
    with atomic_file(target) as out:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, out, 1 << 20)
