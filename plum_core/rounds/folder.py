"""The run folder: who holds it, what it was made with, and where everything lies.

    run.json          resolved config, argv, versions, git state, data hashes, of the first sitting
    metrics.jsonl     one row a stage and a training step, in order
    timings.jsonl     seconds a stage; the only figures that two equal runs differ in
    heldout/          {instructions,tests}.jsonl of the evaluation
    round-000/        evaluation.jsonl of the policy as it came
    round-NNN/        {instructions,tests,samples,verdicts,preferences,evaluation}.jsonl, policy.json
    checkpoints/      step-NNNNNN: the policy after a round, by the optimizer steps behind it
    report.html       what the run showed; inspector.html beside it: every program with its tests and verdict

A file that has its name is complete. ``*.parts`` and hidden files are work in hand; the next sitting uses or removes
them.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plum_core import settings
from plum_core.records import JsonlWriter, write_atomic, write_jsonl
from plum_core.records.files import decode_line

MAX_DIFF_CHARS = 200_000
ROOT = Path(__file__).resolve().parent.parent.parent


class RunFolder:
    """Paths of a run, its metrics and its lock."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: int | None = None

    def round(self, number: int) -> Path:
        return self.path / f"round-{number:03d}"

    @property
    def heldout(self) -> Path:
        return self.path / "heldout"

    def checkpoint(self, steps: int) -> Path:
        return self.path / "checkpoints" / f"step-{steps:06d}"

    def hold(self) -> None:
        """Lock the folder for this process; ValueError where another one works in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode(errors="replace").strip()
            os.close(handle)
            raise ValueError(
                f"{self.path} is in use by process {holder or 'unknown'}: wait for it, stop it, or name another --out"
            ) from None
        os.truncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        self._lock = handle

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def sweep(self) -> None:
        """Remove what a killed process had half-written."""
        for pattern in (".*.tmp", ".*.partial"):
            for path in self.path.rglob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def begin(
        self, config: Any, identity: Mapping[str, str], incidental: frozenset[str], about: Mapping[str, Any]
    ) -> None:
        """Write run.json with ``about`` beside config and data, or hold this sitting to the one that is there.

        Raises ValueError naming the first setting or data file that differs and is not ``incidental``.
        """
        path = self.path / "run.json"
        now = {"config": settings.plain(config), "data": dict(identity)}
        if not path.exists():
            more = {**about, "versions": versions(), "git": git_state()}
            write_atomic(path, json.dumps(now | more, indent=2, ensure_ascii=False) + "\n")
            return
        before = self.info()
        for part in ("config", "data"):
            self._same(part, dict(settings.flatten(before[part])), dict(settings.flatten(now[part])), incidental)

    def _same(self, part: str, before: dict[str, Any], now: dict[str, Any], incidental: frozenset[str]) -> None:
        for key in [*before, *(k for k in now if k not in before)]:
            if key not in incidental and before.get(key) != now.get(key):
                what = f"--{key}" if part == "config" else f"the data of {key}"
                raise ValueError(
                    f"{self.path} was begun with {what} {before.get(key)!r}, now it is {now.get(key)!r}: "
                    "undo the change, or name another --out"
                )

    def info(self) -> dict[str, Any]:
        """run.json; FileNotFoundError or ValueError where the folder is no run."""
        path = self.path / "run.json"
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: name the folder of a run of runners/plum.py")
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg}): restore it or begin anew") from None
        return found

    def metrics(self) -> list[dict[str, Any]]:
        return read_rows(self.path / "metrics.jsonl")

    def timings(self) -> list[dict[str, Any]]:
        return read_rows(self.path / "timings.jsonl")

    def replace_metrics(self, round_: int, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put ``rows`` where the stage had others: what an interrupted sitting wrote of it is not kept."""
        head = {"round": round_, "stage": stage}
        others = [r for r in self.metrics() if (r["round"], r["stage"]) != (round_, stage)]
        write_jsonl(self.path / "metrics.jsonl", [*others, *(head | dict(row) for row in rows)])

    def append_row(self, name: str, row: Mapping[str, Any]) -> None:
        """One row more in ``metrics.jsonl`` or ``timings.jsonl``."""
        with JsonlWriter(self.path / name) as writer:
            writer.write(row)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file, a half-written last line aside; none where there is no file."""
    if not path.exists():
        return []
    return [decode_line(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def versions() -> dict[str, str]:
    """Of Python, this package and what computes."""
    found = {"python": platform.python_version()}
    for name in ("plum", "torch", "triton", "numpy", "tokenizers", "safetensors"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Commit and uncommitted diff of this checkout; None outside one."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    diff = _git("diff", "HEAD") or ""
    cut = len(diff) > MAX_DIFF_CHARS
    return {"commit": commit.strip(), "dirty": bool(diff), "diff": diff[:MAX_DIFF_CHARS], "diff_cut": cut}


def _git(*words: str) -> str | None:
    if shutil.which("git") is None:
        return None
    done = subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, errors="replace", check=False
    )
    return done.stdout if done.returncode == 0 else None
