"""Grading of the same samples beside EvalPlus: seconds, CPU seconds, and whether the verdicts are equal.

    pip install --no-deps --target peers evalplus termcolor tqdm appdirs wget tempdir multipledispatch fire \\
        tree_sitter tree_sitter_python
    PYTHONPATH=peers python plum_core/evaluation/benchmarks/evalplus_speed.py --benchmark humaneval+ \\
        --data HumanEvalPlus-v0.1.10.jsonl.gz --samples samples.jsonl

Both take turns, each in a fresh process; medians are over rounds. A turn is timed from the files to the last verdict,
the references' answers being at hand (the first turn of each computes them and is not counted), imports left out.

A third kind of turn asks how long the samples' own functions compute, inputs read and answers compared for nothing:
no grader of these samples can be done sooner than in that time, divided by the cores.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
from plum_core.evaluation.evalplus import expected_answers, read_problems, sampled_program
from plum_core.evaluation.grade import grade
from plum_core.evaluation.registry import load_tasks
from plum_core.evaluation.samples import read_solutions
from plum_core.execution import Executor
from plum_core.execution.benchmarks.report import machine, save, table
from plum_core.records import Outcome

THEIRS = {"humaneval+": "humaneval", "mbpp+": "mbpp"}
Right = dict[str, list[bool]]  # sample to right on the base tests, and on all


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is graded."""

    data: Path
    samples: Path
    benchmark: Literal["humaneval+", "mbpp+"] = "humaneval+"
    workers: int = 2
    rounds: int = 3
    save: bool = False  # into results/ beside this file
    turn: Literal["", "plum", "evalplus", "own"] = ""  # what a process of this script runs; the others leave it out
    scratch: Path = Path()


def ours(config: Config) -> tuple[float, float, Right]:
    """Seconds, CPU seconds of the programs (which the kernel adds to no process of ours), verdicts."""
    began = time.perf_counter()
    with Executor(workers=config.workers) as executor:
        tasks = load_tasks(config.benchmark, config.data, executor, config.scratch)
        solutions, _ = read_solutions(config.samples, tasks)
        rows = list(grade(tasks, solutions, executor))
    seconds = time.perf_counter() - began
    right = {f"{row.task}/{row.index}": [row.right["base"], row.right["plus"]] for row in rows}
    return seconds, sum(row.cpu_s for row in rows), right


def own(config: Config) -> float:
    """CPU seconds that the samples' functions compute on the inputs; what stopped is counted until it was stopped."""
    with Executor(workers=config.workers) as executor:
        problems = {p.id: p for p in read_problems(config.data)}
        expected = expected_answers(config.data, list(problems.values()), executor, config.scratch)
        tasks = load_tasks(config.benchmark, config.data, executor, config.scratch)
        solutions, _ = read_solutions(config.samples, tasks)
        told = []
        for n, sample in enumerate(solutions):
            limits = sampled_program(problems[sample.task], expected[sample.task], str(n), sample.code)
            call = {"call": f"_plum_spent({expected[sample.task].mode!r})"}
            told.append(replace(limits, tests=(), calls=(call,)))
        verdicts = list(executor.run(told))
    return sum(float(v.extra["values"][0]) if v.outcome == Outcome.PASSED else v.cpu_s for v in verdicts)


def theirs(config: Config) -> tuple[float, float, Right]:
    """The same of EvalPlus."""
    name = THEIRS[config.benchmark]
    plain = config.scratch / f"{name}.jsonl"
    plain.write_bytes(gzip.decompress(config.data.read_bytes()))
    os.environ[f"{name.upper()}_OVERRIDE_PATH"] = str(plain)
    os.environ["XDG_CACHE_HOME"] = str(config.scratch / "cache")
    from evalplus.evaluate import evaluate

    copy = config.scratch / "samples.jsonl"
    copy.write_bytes(config.samples.read_bytes())
    results = config.scratch / "samples_eval_results.json"
    results.unlink(missing_ok=True)  # or it asks whether to overwrite
    began = time.perf_counter()
    evaluate(name, str(copy), parallel=config.workers, i_just_wanna_run=True)
    seconds = time.perf_counter() - began
    found = json.loads(results.read_text())["eval"]
    passed = {
        f"{task}/{n}": [row[f"{level}_status"] == "pass" for level in ("base", "plus")]
        for task, rows in found.items()
        for n, row in enumerate(rows)
    }
    return seconds, 0.0, {key: [base, base and plus] for key, (base, plus) in passed.items()}


def take_turn(config: Config) -> None:
    """One contender, once; its figures as JSON on the last line."""
    if config.turn == "own":
        print("\n" + json.dumps({"own_s": own(config)}))
        return
    seconds, more, right = (ours if config.turn == "plum" else theirs)(config)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = more + sum(u.ru_utime + u.ru_stime for u in used)
    print("\n" + json.dumps({"seconds": seconds, "cpu_s": cpu, "right": right}))


def run_turn(config: Config, name: str, scratch: Path) -> dict[str, Any]:
    words = ["--turn", name, "--scratch", scratch, "--data", config.data, "--samples", config.samples]
    words += ["--benchmark", config.benchmark, "--workers", config.workers]
    done = subprocess.run([sys.executable, __file__, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(config: Config) -> None:
    if config.turn:
        return take_turn(config)
    turns: dict[str, list[dict[str, Any]]] = {"plum": [], "evalplus": []}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(config.rounds + 1):
            for name, done in turns.items():
                found = run_turn(config, name, Path(scratch))
                if number:
                    done.append(found)
                print(f"{name}: {found['seconds']:.1f} s", file=sys.stderr)
        floor = run_turn(config, "own", Path(scratch))["own_s"]
    a, b = (turns[name][-1]["right"] for name in ("plum", "evalplus"))
    different = {
        key: {"plum": a.get(key), "evalplus": b.get(key)} for key in a.keys() | b.keys() if a.get(key) != b.get(key)
    }
    cpu = {name: statistics.median(t["cpu_s"] for t in done) for name, done in turns.items()}
    middle = {name: statistics.median(t["seconds"] for t in done) for name, done in turns.items()}
    least = floor / config.workers
    rows = [
        {
            "grader": name,
            "samples": len(done[-1]["right"]),
            "seconds, median": round(middle[name], 2),
            "least to most": f"{min(t['seconds'] for t in done):.2f} to {max(t['seconds'] for t in done):.2f}",
            "samples/s": round(len(done[-1]["right"]) / middle[name], 1),
            "CPU seconds, imports included": round(cpu[name], 1),
            "beyond the samples' own": round(cpu[name] - floor, 1),
            "plum is faster by": round(middle[name] / middle["plum"], 2),
        }
        for name, done in turns.items()
    ]
    lines = [f"- {key}: {right}" for key, right in different.items()]
    text = "\n".join(
        [
            f"{config.benchmark}, {config.samples.name}, {config.workers} workers, {config.rounds} rounds. {machine()}",
            "",
            table(rows),
            f"The samples' own functions compute {floor:.1f} CPU seconds: on {config.workers} cores no grader is done "
            f"before {least:.1f} s, {middle['evalplus'] / least:.1f} times sooner than EvalPlus.",
            "",
            f"{len(different)} verdicts differ" + (":\n" if lines else "."),
            *lines,
            "",
        ]
    )
    print(text)
    if config.save:
        seconds = {name: [t["seconds"] for t in done] for name, done in turns.items()}
        data = {"rows": rows, "own_s": floor, "seconds": seconds, "different": different}
        save(f"evalplus-speed-{config.benchmark.rstrip('+')}", text, data, Path(__file__).parent / "results")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
