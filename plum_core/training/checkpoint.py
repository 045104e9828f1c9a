"""Checkpoints that are complete or absent: ``checkpoints/step-000120/`` appears by one rename.

A folder is written under a temporary name, its files are synced, a COMPLETE file closes it, and the rename
makes it a checkpoint. A reader takes the newest folder that has the marker; whatever a kill left is swept by
the next save.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

COMPLETE = "COMPLETE"
PARTIAL = ".partial-"
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """``step`` steps are done. ``tensors``: by file (weights, optimizer, average), then by name."""

    step: int
    tensors: Mapping[str, dict[str, Tensor]]
    meta: dict[str, Any]  # JSON
    score: float | None = None  # higher is better; the best of all kept folders is not dropped


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def complete_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints under ``folder``/checkpoints, oldest first."""
    found = [p for p in (folder / "checkpoints").glob("step-*") if _NAME.fullmatch(p.name)]
    return sorted((p for p in found if (p / COMPLETE).exists()), key=lambda p: int(p.name[5:]))


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep_last: int) -> Path:
    """Write ``checkpoint`` and drop all but the newest ``keep_last`` and the best that has a score.

    Returns the checkpoint's folder.
    """
    home = folder / "checkpoints"
    target = home / f"step-{checkpoint.step:06d}"
    home.mkdir(parents=True, exist_ok=True)
    for leftover in home.glob(f"{PARTIAL}*"):
        shutil.rmtree(leftover)
    temporary = home / f"{PARTIAL}{target.name}"
    temporary.mkdir()
    for name, tensors in checkpoint.tensors.items():
        save_file({k: t.detach().contiguous() for k, t in tensors.items()}, temporary / f"{name}.safetensors")
    about = {"step": checkpoint.step, "score": checkpoint.score, **checkpoint.meta}
    (temporary / "state.json").write_text(json.dumps(about))
    (temporary / COMPLETE).touch()
    for file in (*temporary.iterdir(), temporary):
        _sync(file)
    if target.exists():  # incomplete, or it would have been resumed from
        shutil.rmtree(target)
    temporary.rename(target)
    _sync(home)
    best = best_checkpoint(folder)
    for old in complete_checkpoints(folder)[:-keep_last]:
        if old == best:
            continue
        doomed = old.rename(home / f"{PARTIAL}{old.name}-dropped")  # half a folder must not look complete
        shutil.rmtree(doomed)
    return target


def best_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the highest score, the newest of equals; None where none has one."""
    scores = {path: json.loads((path / "state.json").read_text()).get("score") for path in complete_checkpoints(folder)}
    scored = {path: score for path, score in scores.items() if score is not None}
    return max(scored, key=lambda path: (scored[path], path.name), default=None)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest complete checkpoint under ``folder``, or None."""
    found = complete_checkpoints(folder)
    if not found:
        return None
    meta = json.loads((found[-1] / "state.json").read_text())
    tensors = {file.stem: load_file(file) for file in sorted(found[-1].glob("*.safetensors"))}
    return Checkpoint(step=meta.pop("step"), score=meta.pop("score", None), tensors=tensors, meta=meta)
