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
    """Write ``checkpoint`` and drop all but the newest ``keep_last``. Returns the checkpoint's folder."""
    home = folder / "checkpoints"
    target = home / f"step-{checkpoint.step:06d}"
    home.mkdir(parents=True, exist_ok=True)
    for leftover in home.glob(f"{PARTIAL}*"):
        shutil.rmtree(leftover)
    temporary = home / f"{PARTIAL}{target.name}"
    temporary.mkdir()
    for name, tensors in checkpoint.tensors.items():
        save_file({k: t.detach().contiguous() for k, t in tensors.items()}, temporary / f"{name}.safetensors")
    (temporary / "state.json").write_text(json.dumps({"step": checkpoint.step, **checkpoint.meta}))
    (temporary / COMPLETE).touch()
    for file in (*temporary.iterdir(), temporary):
        _sync(file)
    if target.exists():  # incomplete, or it would have been resumed from
        shutil.rmtree(target)
    temporary.rename(target)
    _sync(home)
    for old in complete_checkpoints(folder)[:-keep_last]:
        doomed = old.rename(home / f"{PARTIAL}{old.name}-dropped")  # half a folder must not look complete
        shutil.rmtree(doomed)
    return target


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest complete checkpoint under ``folder``, or None."""
    found = complete_checkpoints(folder)
    if not found:
        return None
    meta = json.loads((found[-1] / "state.json").read_text())
    tensors = {file.stem: load_file(file) for file in sorted(found[-1].glob("*.safetensors"))}
    return Checkpoint(step=meta.pop("step"), tensors=tensors, meta=meta)
