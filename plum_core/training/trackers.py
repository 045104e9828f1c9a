"""Metrics to TensorBoard and Weights & Biases, beside the JSONL that is always written.

Both are extras (``pip install plum[tensorboard]``, ``plum[wandb]``) and are imported where they are asked for. Names
stay as they are in metrics.jsonl under ``train/`` and ``eval/``; the step is the optimizer step since the run began.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

TrackerName = Literal["tensorboard", "wandb"]


class Tracker(Protocol):
    """Somebody who draws curves."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Figures by name, after optimizer step ``step`` of the run."""

    def close(self) -> None:
        """Everything is on its way before this returns."""


def flat_figures(row: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """The numbers of a row of metrics, nested ones as ``outer/inner``; what is no number is passed over."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from flat_figures(value, f"{prefix}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}/{name}", float(value)


class TensorBoard:
    """Event files in ``folder``/tensorboard. Steps that an interrupted sitting wrote again are shown once."""

    def __init__(self, folder: Path) -> None:
        _need("tensorboard")
        self._place = folder / "tensorboard"
        self._writer: Any = None

    def log(self, figures: Mapping[str, float], step: int) -> None:
        if self._writer is None:  # now it is known from which step on the file of an earlier sitting is overruled
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._place), purge_step=step)
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class WandB:
    """One W&B run for one folder, however many sittings it takes. WANDB_MODE=offline keeps it on this machine.

    Project and entity are W&B's own settings (WANDB_PROJECT, WANDB_ENTITY); the project is plum where none is set.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        _need("wandb")
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        place = f"{platform.node()}:{folder.resolve()}"
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "plum"),
            name=folder.name,
            id=hashlib.sha256(place.encode()).hexdigest()[:16],
            resume="allow",
            dir=str(folder),
            config=dict(config),
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()


def check_trackers(names: Sequence[str]) -> None:
    """Raise ValueError for a name that is none of them, or whose package is not installed."""
    for name in names:
        if name not in ("tensorboard", "wandb"):
            raise ValueError(f"trackers must be tensorboard or wandb, got {name!r}")
        _need(name)


def make_trackers(names: Sequence[TrackerName], folder: Path, config: Mapping[str, Any]) -> list[Tracker]:
    """Those of ``names``, writing into ``folder``; close them at the end."""
    check_trackers(names)
    return [TensorBoard(folder) if name == "tensorboard" else WandB(folder, config) for name in names]


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"trackers names {package}, which is not installed: pip install {package}, or leave it out")
