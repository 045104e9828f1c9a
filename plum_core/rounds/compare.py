"""Whether two run folders hold the same, timings aside: what ``kill -9`` and a second sitting must not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plum_core.training.metrics import TIMED

TIMED_FILES = frozenset({"timings.jsonl", "report.html", "inspector.html", ".lock"})
TIMED_KEYS = frozenset({"wall_s", "cpu_s", "peak_mib", *TIMED})
MAKER_KEYS = frozenset({"argv", "git", "out"})  # of run.json: who made it and where it lies, not what came out


def differences(a: str | Path, b: str | Path) -> list[str]:
    """One line for each file that is in one folder only or holds something else; empty for equal runs."""
    a, b = Path(a), Path(b)
    names = {side: {str(p.relative_to(side)) for p in side.rglob("*") if p.is_file()} for side in (a, b)}
    found = [
        f"{name}: only in {side}" for side in (a, b) for name in sorted(names[side] - names[a if side == b else b])
    ]
    for name in sorted(names[a] & names[b]):
        if Path(name).name not in TIMED_FILES and timeless(a / name) != timeless(b / name):
            found.append(f"{name}: differs")
    return found


def timeless(path: Path) -> bytes:
    """A file's bytes, timings taken out of JSON and JSONL."""
    content = path.read_bytes()
    if path.suffix == ".json":
        return _dump(json.loads(content), TIMED_KEYS | MAKER_KEYS)
    if path.suffix == ".jsonl":
        return b"\n".join(_dump(json.loads(line), TIMED_KEYS) for line in content.splitlines())
    return content


def _dump(value: Any, left_out: frozenset[str]) -> bytes:
    return json.dumps(_without(value, left_out)).encode()


def _without(value: Any, keys: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {k: _without(v, keys) for k, v in value.items() if k not in keys}
    return [_without(v, keys) for v in value] if isinstance(value, list) else value
