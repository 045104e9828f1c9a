"""Benchmarks by name, and the file of each below a data folder."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from plum_core.evaluation import cruxeval, evalplus, livecodebench, plain
from plum_core.evaluation.benchmark import Task
from plum_core.evaluation.samples import Layout
from plum_core.execution import Executor

FILES = {
    "humaneval": "humaneval/HumanEval.jsonl.gz",
    "humaneval+": "evalplus/HumanEvalPlus-v0.1.10.jsonl.gz",
    "mbpp": "mbpp/mbpp.jsonl",
    "mbpp-sanitized": "mbpp/sanitized-mbpp.json",
    "mbpp+": "evalplus/MbppPlus-v0.2.0.jsonl.gz",
    "livecodebench": "livecodebench/test.jsonl",
    "leetcode": "leetcodedataset/LeetCodeDataset-v0.3.1-test.jsonl.gz",
    "cruxeval-input": "cruxeval/cruxeval.jsonl",
    "cruxeval-output": "cruxeval/cruxeval.jsonl",
}


def layout_of(name: str) -> Layout:
    """The layout in which the benchmark's own tool reads samples."""
    if name == "livecodebench":
        return "livecodebench"
    return "cruxeval" if name.startswith("cruxeval") else "evalplus"


def load_tasks(
    name: str,
    path: Path,
    executor: Executor,
    cache: Path,
    since: date | None = None,
    until: date | None = None,
    *,
    exact_floats: bool = False,
) -> list[Task]:
    """The tasks of one benchmark; ``since`` and ``until`` are of LiveCodeBench and LeetCodeDataset, which have dates.

    exact_floats: of EvalPlus's two, answers without a tolerance, as its releases of early 2024 compared them.

    Raises ValueError for an unknown name, a file of another layout, or a window that holds no task.
    """
    if name not in FILES:
        raise ValueError(f"no benchmark {name!r}; there are {', '.join(FILES)}")
    if (since or until) and name not in ("livecodebench", "leetcode"):
        raise ValueError(f"{name} has no dates: leave out --since and --until")
    if exact_floats and name not in ("humaneval+", "mbpp+"):
        raise ValueError(f"{name} has no tolerance for floats: leave out --exact-floats")
    if name in ("humaneval+", "mbpp+"):
        tasks = evalplus.load(path, executor, cache, exact_floats=exact_floats)
    elif name == "livecodebench":
        tasks = livecodebench.load(path, since, until)
    elif name.startswith("cruxeval"):
        tasks = cruxeval.load(path, "input" if name.endswith("input") else "output")
    elif name == "humaneval":
        tasks = plain.load_humaneval(path)
    else:
        tasks = plain.load_leetcode(path) if name == "leetcode" else plain.load_mbpp(path)
    if name == "leetcode":
        tasks = [task for task in tasks if _within(task.meta.get("date", ""), since, until)]
    if not tasks:
        raise ValueError(f"{path} holds no task of {name} in that window of dates")
    return tasks


def _within(day: str, since: date | None, until: date | None) -> bool:
    if since is None and until is None:
        return True
    if not day:
        return False
    found = date.fromisoformat(day[:10])
    return (since is None or found >= since) and (until is None or found <= until)
