"""Runs beside each other on the same held-out tasks: paired differences, tasks won and lost, settings that differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from plum_core import settings
from plum_core.evaluation import TaskResult, greedy_gain, sampled_gain
from plum_core.evaluation.intervals import Interval
from plum_core.records import Instruction, read_jsonl, write_atomic
from plum_core.reporting.detail import RoundDetail, heldout_results, read_details
from plum_core.reporting.heldout import Figure, beside
from plum_core.reporting.page import render
from plum_core.rounds import show
from plum_core.rounds.folder import RunFolder

LISTED = 50  # tasks won, and lost, that the page names


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One of the runs that are compared; ``last``: its latest round that was evaluated, ``results`` of that one."""

    name: str
    folder: RunFolder
    details: list[RoundDetail]
    last: int
    results: list[TaskResult]

    @property
    def final(self) -> dict[str, Interval]:
        return next(d.pass_at for d in self.details if d.number == self.last)


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """A run less the first one, each at its last round, task by task. Greedy answers: ``won`` only this run solves."""

    run: Run
    sampled: Interval | None
    greedy: Interval | None
    won: list[str]
    lost: list[str]
    better: int  # tasks of which more of its samples pass, and fewer
    worse: int


def read_runs(folders: Sequence[RunFolder]) -> list[Run]:
    """Each run under a name of its own.

    Raises ValueError where there is nothing to compare: other held-out tasks, or a run that was never evaluated.
    """
    if len(folders) < 2:
        raise ValueError(f"a comparison needs two runs or more, got {len(folders)}")
    names = unique_names([f.path for f in folders])
    runs = [_read(folder, name) for folder, name in zip(folders, names, strict=True)]
    first = (folders[0].heldout / "tests.jsonl").read_bytes()
    for run in runs[1:]:
        if (run.folder.heldout / "tests.jsonl").read_bytes() != first:
            raise ValueError(
                f"{run.folder.path} was evaluated on other tasks than {folders[0].path}: compare runs of one "
                "evaluation set"
            )
    return runs


def unique_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, or as many parts as tell them apart."""
    whole = [p.resolve().parts for p in paths]
    if len(set(whole)) < len(whole):
        raise ValueError("one run was given twice: name different run folders")
    size = next(n for n in range(1, 1 + max(map(len, whole))) if len({parts[-n:] for parts in whole}) == len(whole))
    return [show.visible("/".join(parts[-size:])) for parts in whole]


def _read(folder: RunFolder, name: str) -> Run:
    details = read_details(folder)
    last = max((d.number for d in details if d.pass_at), default=None)
    if last is None:
        raise ValueError(f"{folder.path} has no evaluation yet: let it run on, the same command does")
    return Run(name=name, folder=folder, details=details, last=last, results=heldout_results(folder, last))


def against(first: Run, other: Run) -> Against:
    """``other`` less ``first``."""
    pairs = list(zip(first.results, other.results, strict=True))
    rates = [(a.passed / a.n, b.passed / b.n) for a, b in pairs if a.n and b.n]
    return Against(
        run=other,
        sampled=sampled_gain(first.results, other.results),
        greedy=greedy_gain(first.results, other.results),
        won=[b.id for a, b in pairs if a.greedy is False and b.greedy],
        lost=[b.id for a, b in pairs if a.greedy and b.greedy is False],
        better=sum(b > a for a, b in rates),
        worse=sum(b < a for a, b in rates),
    )


def differing(runs: Sequence[Run]) -> Iterator[tuple[str, list[str]]]:
    """Every setting, and hash of data, in which the runs differ; ``out`` aside."""
    for part in ("config", "data"):
        flat = [dict(settings.flatten(run.folder.info()[part])) for run in runs]
        for key in dict.fromkeys(k for one in flat for k in one):
            values = [str(one.get(key, "not set")) for one in flat]
            if key != "out" and len(set(values)) > 1:
                yield (key if part == "config" else f"data of {key}"), values


def write_comparison(folders: Sequence[RunFolder], target: Path) -> Path:
    """Write the comparison of all runs with the first one to ``target``; ValueError as ``read_runs``."""
    runs = read_runs(folders)
    found = [against(runs[0], run) for run in runs[1:]]
    tasks = {i.id: i for i in read_jsonl(runs[0].folder.heldout / "instructions.jsonl", Instruction)}
    page = render(
        "compare.html",
        title=f"{', '.join(run.name for run in runs[1:])} against {runs[0].name}",
        runs=runs,
        found=found,
        ks=[name for name in runs[0].final if name.startswith("pass@")],
        charts=list(_charts(runs)),
        prompts={name: task.prompt for name, task in tasks.items()},
        listed=LISTED,
        differing=list(differing(runs)),
    )
    write_atomic(target, page)
    return target


def _charts(runs: Sequence[Run]) -> Iterator[Figure]:
    for kind in runs[0].final:
        yield from beside(kind, {run.name: run.details for run in runs}, f"After each round: {kind}")
