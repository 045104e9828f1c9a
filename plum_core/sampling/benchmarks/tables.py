"""What was measured, as JSON and as a table."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers

from plum_core.sampling.benchmarks.peers import SAMPLES, THEIRS


def about(vllm_python: Path | None) -> dict[str, object]:
    """Machine and versions."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    place: dict[str, object] = {
        "date": date.today().isoformat(),
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    if vllm_python is not None:
        asked = "from importlib.metadata import packages_distributions as p, version as v; print(v(p()['vllm'][0]))"
        found = subprocess.run([vllm_python, "-c", asked], capture_output=True, text=True, check=True)
        place["vllm"] = found.stdout.strip()
    return place


def table(place: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    """Of all runs of a day: settings, load before and command of each, then the rows."""
    lines = [", ".join(f"{k} {v}" for k, v in place.items()), ""]
    for run in runs:
        c = run["config"]
        lines.append(
            f"- {c['passes']} passes, interleaved; {c['prompt_tokens']} + {c['new_tokens']} tokens, {SAMPLES} samples "
            f"a prompt; load before {run['load']:.1f}: `{run['command']}`"
        )
    lines += [
        "",
        "| shape | dtype | threads | engine | tokens a CPU-second, median (all) | a second | x generate |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [row for run in runs for row in run["rows"]]
    for r in rows:
        same = [x for x in rows if all(x[k] == r[k] for k in ("shape", "dtype", "threads"))]
        base = next(x["tokens_per_cpu_s"] for x in same if x["engine"] == THEIRS)
        lines.append(
            f"| {r['shape']} | {r['dtype']} | {r['threads']} | {r['engine']} | {r['tokens_per_cpu_s']:,.0f} "
            f"({r['lowest']:,.0f} to {r['highest']:,.0f}) | {r['tokens_per_s']:,.0f} "
            f"| {r['tokens_per_cpu_s'] / base:.2f} |"
        )
    return "\n".join(lines)


def keep(path: Path, place: dict[str, object], run: dict[str, Any]) -> None:
    """Into JSON and Markdown: beside the runs that stand there, in place of those that measured the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    measured = {(r["dtype"], r["threads"]) for r in run["rows"]}
    before = json.loads(path.read_text())["runs"] if path.exists() else []
    runs = [old for old in before if {(r["dtype"], r["threads"]) for r in old["rows"]} != measured] + [run]
    path.write_text(json.dumps({**place, "runs": runs}, indent=1))
    path.with_suffix(".md").write_text(table(place, runs) + "\n")
