"""What the loop tells whoever watches. Every method may be left as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Observer:
    """Called on every rank; a display shows rank 0 only."""

    def stage(self, round_: int, stage: str, unit: str) -> None:
        """A stage begins; what it counts in."""

    def progress(self, done: int, total: int, figures: Mapping[str, Any] | None = None) -> None:
        """``done`` of ``total`` units by all ranks; total 0: not known.

        figures: the tally of what is done, or the row of a training step. A stage of chunks speaks before its first.
        """

    def finished(self, round_: int, stage: str, seconds: float, row: Mapping[str, Any]) -> None:
        """A stage ended in this sitting, with its row of metrics."""
