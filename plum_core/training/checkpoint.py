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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor

from plum_core.training.sharding import like
from plum_core.training.world import World

COMPLETE = "COMPLETE"
PARTIAL = ".partial-"
PARTS = "parts"  # what torch.distributed.checkpoint wrote, where weights are sharded
# (file, name) -> a tensor as which one of a checkpoint is to lie; None for one that lies whole on the host
Placed = Callable[[str, str], Tensor | None]
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


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep_last: int, world: World | None = None) -> Path:
    """Write ``checkpoint`` and drop all but the newest ``keep_last`` and the best that has a score.

    Every rank calls it. Rank 0 writes; of sharded tensors every rank writes its parts, into a folder that all of them
    must see. Returns the checkpoint's folder.
    """
    world = world or World()
    sharded = any(isinstance(t, DTensor) for tensors in checkpoint.tensors.values() for t in tensors.values())
    target = _target(folder, checkpoint.step)
    if world.is_main:
        _begin(folder, checkpoint)
    if sharded:
        world.barrier()
        flat = {f"{file}/{name}": t for file, tensors in checkpoint.tensors.items() for name, t in tensors.items()}
        dcp.save(flat, checkpoint_id=_temporary(target) / PARTS)
        checkpoint = replace(checkpoint, tensors={})
        world.barrier()
    if world.is_main:
        _finish(folder, checkpoint, keep_last)
    if sharded:
        world.barrier()
    return target


def _target(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:06d}"


def _temporary(target: Path) -> Path:
    return target.with_name(f"{PARTIAL}{target.name}")


def _begin(folder: Path, checkpoint: Checkpoint) -> None:
    """An empty folder under a temporary name; what a kill left is swept."""
    target = _target(folder, checkpoint.step)
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f"{PARTIAL}*"):
        shutil.rmtree(leftover)
    _temporary(target).mkdir()


def _finish(folder: Path, checkpoint: Checkpoint, keep_last: int) -> Path:
    """Files, marker, rename; then older folders go."""
    target = _target(folder, checkpoint.step)
    home, temporary = target.parent, _temporary(target)
    for name, tensors in checkpoint.tensors.items():
        save_file({k: t.detach().contiguous() for k, t in tensors.items()}, temporary / f"{name}.safetensors")
    about = {"step": checkpoint.step, "score": checkpoint.score, **checkpoint.meta}
    (temporary / "state.json").write_text(json.dumps(about))
    (temporary / COMPLETE).touch()
    for file in (*temporary.rglob("*"), temporary):
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


def load_checkpoint(folder: Path, placed: Placed = lambda file, name: None) -> Checkpoint | None:
    """The newest complete checkpoint under ``folder``, or None; its tensors lie as those that ``placed`` gives.

    It may have been written by another number of ranks, sharded or not.
    """
    found = complete_checkpoints(folder)
    if not found:
        return None
    meta = json.loads((found[-1] / "state.json").read_text())
    if (found[-1] / PARTS).exists():
        tensors = _load_parts(found[-1] / PARTS, placed)
    else:
        tensors = {file.stem: load_file(file) for file in sorted(found[-1].glob("*.safetensors"))}
        for file, named in tensors.items():
            tensors[file] = {name: _as(tensor, placed(file, name)) for name, tensor in named.items()}
    return Checkpoint(step=meta.pop("step"), score=meta.pop("score", None), tensors=tensors, meta=meta)


def _as(tensor: Tensor, place: Tensor | None) -> Tensor:
    return tensor if place is None else like(tensor, place)


def _load_parts(path: Path, placed: Placed) -> dict[str, dict[str, Tensor]]:
    """Each rank reads what its own parts overlap."""
    flat: dict[str, Tensor] = {}
    for key, stored in dcp.FileSystemReader(path).read_metadata().state_dict_metadata.items():
        assert isinstance(stored, TensorStorageMetadata)  # nothing else was written
        place = placed(*key.split("/", 1))
        dtype = stored.properties.dtype
        empty = torch.empty(stored.size, dtype=dtype) if place is None else torch.empty_like(place, dtype=dtype)
        flat[key] = empty.detach()
    dcp.load(flat, checkpoint_id=path, no_dist=not torch.distributed.is_initialized())
    out: dict[str, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        file, name = key.split("/", 1)
        out.setdefault(file, {})[name] = tensor
    return out
