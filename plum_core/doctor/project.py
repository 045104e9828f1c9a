"""What the project itself needs: a sandbox that starts, and the embedded policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from plum_core.doctor.finding import Finding
from plum_core.execution import Executor, SandboxUnavailable
from plum_core.execution.compiled import compiled_core


def sandbox_finding(simulate_missing: tuple[str, ...] = ()) -> Finding:
    """What confines the programs here: an executor is started, for only trying tells."""
    try:
        with Executor(workers=1, packages=(), simulate_missing=simulate_missing) as executor:
            value = ", ".join(executor.layers)
    except SandboxUnavailable as refusal:
        what, _, remedy = str(refusal).partition("; ")
        return Finding(name="sandbox", value=what, state="missing", remedy=remedy or what)
    if compiled_core() is None:
        remedy = "apt-get install gcc: programs then take half the CPU"
        return Finding(name="sandbox", value=f"{value}; it forks in Python", state="slow", remedy=remedy)
    return Finding(name="sandbox", value=value)


def look_at_project(root: Path) -> Iterator[Finding]:
    """The sandbox, and the embedded policy below ``root``."""
    yield sandbox_finding()
    weights = sorted((root / "models" / "tiny").rglob("*.safetensors"))
    mib = sum(p.stat().st_size for p in weights) / (1 << 20)
    yield Finding(
        name="models/tiny",
        value=f"{len(weights)} checkpoints, {mib:.1f} MiB" if weights else "no weights",
        state="ok" if weights else "missing",
        remedy="" if weights else "git checkout -- models/tiny, or make it again as models/README.md says",
    )
