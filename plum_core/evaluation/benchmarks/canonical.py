"""Every benchmark's reference solutions, and published verdicts on model samples, through the graders.

    python plum_core/evaluation/benchmarks/canonical.py --data ../shared/data
    python plum_core/evaluation/benchmarks/canonical.py --data ../shared/data --workers 8 --load 2

Ends with status 1 where a reference is judged wrong or a published verdict differs, EXPLAINED aside. The published
ones are of April 2024, when EvalPlus compared floats exactly (``--exact-floats`` of the runner); by today's rules four
of 542 differ, in the last bit of a float. Each verdict goes into a JSON file; ``--against`` compares with such a file
of another call (other workers, other load).
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
from plum_core.evaluation.benchmark import Task
from plum_core.evaluation.grade import grade
from plum_core.evaluation.registry import FILES, load_tasks
from plum_core.evaluation.samples import Solution, read_solutions
from plum_core.execution import Executor
from plum_core.execution.benchmarks.report import machine, save, table

COUNTS = {"humaneval": 164, "humaneval+": 164, "mbpp-sanitized": 427, "mbpp+": 378, "leetcode": 228}
PUBLISHED = {"humaneval+": "humaneval", "mbpp+": "mbpp"}
EXPLAINED = {
    "published mbpp+: Mbpp/255": "the program is the reference's own line; the publisher's grader had no room for an "
    "answer of 3 GiB",
}
SAMPLES = "verdicts_starcoder2_instruct/evalplus-starcoder2-15b-instruct-v0.1-{}{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is graded, and how busy the machine is made."""

    data: Path
    out: Path = Path("canonical-verdicts.json")
    cache: Path = Path.home() / ".cache" / "plum"
    benchmarks: tuple[str, ...] = ("humaneval", "humaneval+", "mbpp-sanitized", "mbpp+", "leetcode")
    workers: int = 2
    load: int = 0  # processes that do nothing but use a core
    against: Path | None = None
    save: bool = False  # into results/ beside this file


def spin() -> None:
    while True:
        pass


@contextmanager
def loaded(count: int) -> Iterator[None]:
    """``count`` busy processes beside us."""
    busy = [multiprocessing.get_context("spawn").Process(target=spin, daemon=True) for _ in range(count)]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        for process in busy:
            process.kill()


def canonical(tasks: list[Task], executor: Executor) -> dict[str, dict[str, bool]]:
    """Verdicts on the references, by task."""
    solutions = [Solution(task=task.id, index="0", code=task.canonical or "") for task in tasks]
    return {row.task: row.right for row in grade(tasks, solutions, executor)}


def published(name: str, tasks: list[Task], data: Path, executor: Executor) -> tuple[dict[str, Any], dict[str, Any]]:
    """(ours, published) verdicts on StarCoder2's samples."""
    told = json.loads((data / SAMPLES.format(PUBLISHED[name], "_eval_results.json")).read_text())["eval"]
    solutions, _ = read_solutions(data / SAMPLES.format(PUBLISHED[name], ".jsonl"), tasks)
    ours = {row.task: row.right for row in grade(tasks, solutions, executor)}
    theirs = {}
    for task, ((row, *_),) in ((task, (rows,)) for task, rows in told.items()):
        base, plus = (row[f"{level}_status"] == "pass" for level in ("base", "plus"))
        theirs[task] = {"base": base, "plus": base and plus}
    return ours, {task: theirs[task] for task in ours}


def main(config: Config) -> int:
    rows: list[dict[str, Any]] = []
    verdicts: dict[str, dict[str, Any]] = {}
    wrong: list[str] = []
    packages = ("numpy", "sortedcontainers")
    with loaded(config.load), Executor(workers=config.workers, packages=packages) as executor:
        for name in config.benchmarks:
            began = time.perf_counter()
            tasks = load_tasks(name, config.data / FILES[name], executor, config.cache)
            read = time.perf_counter() - began
            found = verdicts[f"canonical {name}"] = canonical(tasks, executor)
            bad = [task for task, right in found.items() if not (right and all(right.values()))]
            bad += ["a task is missing"] * (len(found) != COUNTS.get(name, len(found)))
            wrong += [f"canonical {name}: {task}" for task in bad]
            row: dict[str, Any] = {"benchmark": name, "references right": f"{len(found) - len(bad)} of {len(found)}"}
            row |= {"seconds to read": round(read, 1), "to grade": round(time.perf_counter() - began - read, 1)}
            for level in ("base", "plus"):
                row[f"published {level}"] = ""
            if name in PUBLISHED:
                tasks = load_tasks(name, config.data / FILES[name], executor, config.cache, exact_floats=True)
                ours, theirs = published(name, tasks, config.data, executor)
                verdicts[f"published {name}"] = ours
                for level in ("base", "plus"):
                    same = sum(ours[task][level] == theirs[task][level] for task in ours)
                    row[f"published {level}"] = f"{same} of {len(ours)} equal"
                wrong += [f"published {name}: {task}" for task in ours if ours[task] != theirs[task]]
            rows.append(row)
            print(row, file=sys.stderr)
    config.out.write_text(json.dumps(verdicts, indent=1) + "\n")
    lines = [f"- wrong: {name}: {EXPLAINED.get(name, 'NOT EXPLAINED')}" for name in wrong]
    changed = []
    if config.against:
        before = json.loads(config.against.read_text())
        changed = [f"{k}: {t}" for k in verdicts for t in verdicts[k] if before.get(k, {}).get(t) != verdicts[k][t]]
        lines.append(f"- verdicts that differ from {config.against.name}: {', '.join(changed) or 'none'}")
    how = f"{config.workers} workers, {config.load} busy processes beside them. {machine()}"
    text = "\n".join([how, "", table(rows), *lines, ""])
    print(text)
    if config.save:
        save("canonical", text, {"rows": rows, "wrong": wrong}, Path(__file__).parent / "results")
    return int(bool(changed) or any(name not in EXPLAINED for name in wrong))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
