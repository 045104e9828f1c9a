"""What this machine offers, what will be slow on it, and the one thing to do.

python runners/doctor.py          # a table and a verdict; exit status 1 when the main job cannot run here
python runners/doctor.py --json   # the same as one JSON object
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from plum_core.execution import Executor, SandboxUnavailable

ROOT = Path(__file__).resolve().parent.parent
GIB = 1 << 30
NEEDED_MEMORY_GIB = 4.0  # policy, author, optimizer and 32 judged programs of the embedded default, with room
NEEDED_DISK_GIB = 1.0  # a run folder of the embedded default stays far below
STATES = {"ok": "green", "slow": "yellow", "missing": "bold red", "absent": "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at: ``slow`` costs time, ``missing`` stops the main job, ``absent`` is optional."""

    name: str
    value: str
    state: str = "ok"
    remedy: str = ""


def version_of(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def cores() -> int:
    """Cores this process may use: fewer than the machine's under taskset or in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float:
    """Memory not in use, or what the container may still take, whichever is less."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    cap, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if cap.exists() and (text := cap.read_text().strip()) != "max":
        free = min(free, int(text) - int(used.read_text()))
    return free / GIB


def cores_finding() -> Finding:
    """Cores and who else is on them."""
    n, load = cores(), os.getloadavg()[0]
    remedy = ""
    if load > n / 2:
        remedy = "wait for the other work on this machine: it takes its share of every phase"
    elif n < 2:
        remedy = "one core takes twice as long: begin with make run ARGS=--smoke"
    return Finding(name="cores", value=f"{n}, load {load:.1f}", state="slow" if remedy else "ok", remedy=remedy)


def look_at_machine() -> Iterator[Finding]:
    """Python, cores, memory, disk."""
    old = sys.version_info < (3, 11)
    yield Finding(
        name="Python",
        value=f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        state="missing" if old else "ok",
        remedy="make a .venv with Python 3.11 or later: make run PYTHON=/path/to/python3" if old else "",
    )
    yield cores_finding()
    free = memory_gib()
    yield Finding(
        name="memory",
        value=f"{free:.1f} GiB available",
        state="ok" if free >= NEEDED_MEMORY_GIB else "slow",
        remedy="" if free >= NEEDED_MEMORY_GIB else f"free some: below {NEEDED_MEMORY_GIB:.0f} GiB it may swap",
    )
    disk = shutil.disk_usage(ROOT).free / GIB
    yield Finding(
        name="disk",
        value=f"{disk:.1f} GiB free at {ROOT}",
        state="ok" if disk >= NEEDED_DISK_GIB else "missing",
        remedy="" if disk >= NEEDED_DISK_GIB else f"free {NEEDED_DISK_GIB:.0f} GiB: a run folder goes there",
    )


def look_at_torch() -> Iterator[Finding]:
    """torch, its vector instructions, the GPU, Triton, flash-attn, and how processes talk."""
    vectors = torch.backends.cpu.get_cpu_capability()
    plain = vectors == "DEFAULT"
    yield Finding(
        name="torch",
        value=f"{torch.__version__}, {vectors} on the CPU",
        state="slow" if plain else "ok",
        remedy="this CPU (or its virtual machine) offers no AVX2: move to one that does" if plain else "",
    )
    gpu = torch.cuda.is_available()
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) if gpu else ""
    yield Finding(
        name="GPU",
        value=names
        or ("none that torch sees" if torch.version.cuda or torch.version.hip else "none: a CPU build of torch"),
        state="ok" if gpu else "slow",
        remedy=""
        if gpu
        else "models past a few million parameters want a GPU and its build of torch; models/tiny does not",
    )
    yield triton_finding(gpu)
    flash = version_of("flash-attn")
    yield Finding(
        name="flash-attn",
        value=flash or "not installed",
        state="ok" if flash else "absent",
        remedy="" if flash or not gpu else "pip install 'plum[flash]': long sequences attend faster",
    )
    backends = [n for n in ("gloo", "nccl") if getattr(torch.distributed, f"is_{n}_available")()]
    yield Finding(name="processes", value=f"torch.distributed with {', '.join(backends) or 'no back end'}")


def triton_finding(gpu: bool) -> Finding:
    """Triton compiles for a GPU with a C compiler at hand; without a GPU its kernels are only interpreted."""
    triton = version_of("triton")
    if triton is None:
        remedy = "pip install triton: without it plain torch computes what the kernels would" if gpu else ""
        return Finding(name="triton", value="not installed", state="slow" if gpu else "absent", remedy=remedy)
    if not gpu:
        return Finding(name="triton", value=f"{triton}; no GPU, so plain torch computes", state="absent")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    return Finding(
        name="triton",
        value=f"{triton}, C compiler {compiler or 'not found'}",
        state="ok" if compiler else "missing",
        remedy="" if compiler else "apt-get install gcc: Triton builds its launcher with it",
    )


def sandbox_finding(simulate_missing: tuple[str, ...] = ()) -> Finding:
    """What confines the programs here: an executor is started, for only trying tells."""
    try:
        with Executor(workers=1, packages=(), simulate_missing=simulate_missing) as executor:
            return Finding(name="sandbox", value=", ".join(executor.layers))
    except SandboxUnavailable as refusal:
        what, _, remedy = str(refusal).partition("; ")
        return Finding(name="sandbox", value=what, state="missing", remedy=remedy or what)


def look_at_project() -> Iterator[Finding]:
    """The sandbox and the embedded policy."""
    yield sandbox_finding()
    weights = sorted((ROOT / "models" / "tiny").rglob("*.safetensors"))
    mib = sum(p.stat().st_size for p in weights) / (1 << 20)
    yield Finding(
        name="models/tiny",
        value=f"{len(weights)} checkpoints, {mib:.1f} MiB" if weights else "no weights",
        state="ok" if weights else "missing",
        remedy="" if weights else "git checkout -- models/tiny, or make it again as models/README.md says",
    )


def verdict(findings: list[Finding]) -> str:
    """One sentence: what stops the main job, else what slows it down, else that nothing does."""
    for state, opening in (
        ("missing", "make run cannot work here yet"),
        ("slow", "make run works here; to be faster"),
    ):
        for finding in findings:
            if finding.state == state and finding.remedy:
                return f"{opening}: {finding.remedy} ({finding.name}: {finding.value})."
    return "make run works here, and nothing that can be changed slows it down."


def show(findings: list[Finding]) -> None:
    """The table for a person."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        table.add_row(finding.name, f"[{STATES[finding.state]}]{finding.state}[/]", escape(finding.value))
        if finding.remedy:
            table.add_row("", "", f"[dim]-> {escape(finding.remedy)}[/]")
    console = Console()
    console.print(table)
    console.print(f"\n{escape(verdict(findings))}")


def main(argv: list[str] | None = None) -> int:
    """Exit status 0 when the main job can run here, 1 when something it needs is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args(argv)
    findings = [*look_at_machine(), *look_at_torch(), *look_at_project()]
    if options.json:
        print(json.dumps({"findings": [asdict(f) for f in findings], "verdict": verdict(findings)}, indent=2))
    else:
        show(findings)
    return int(any(f.state == "missing" for f in findings))


if __name__ == "__main__":
    sys.exit(main())
