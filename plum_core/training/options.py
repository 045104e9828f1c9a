"""What rounds and supervised runs both let a user choose about their steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """Options of a run that no objective knows of."""

    keep_best: str = ""
    """max:rewards/accuracies or min:loss: the best checkpoint by that figure stays beside the last ones."""

    shard: Literal["none", "fsdp", "hsdp"] = "none"
    """fsdp: weights, gradients and moments in parts over all ranks; hsdp: over a node's ranks, a copy a node."""

    tensor_parallel: int = 1
    """Ranks that share each matrix of the dense MLPs and of the head, and the same items; beside ``shard``."""

    compile: bool = False
    """Layers through torch.compile: minutes at the start for less time a step."""

    peak_tflops: float = 0.0
    """What mfu is measured against: of one device, in 10**12 operations a second. 0: a product of matrices is timed
    once, and the first step's row tells what it reached."""

    def __post_init__(self) -> None:
        if self.shard not in ("none", "fsdp", "hsdp"):
            raise ValueError(f"shard must be none, fsdp or hsdp, got {self.shard!r}")
        if self.tensor_parallel < 1:
            raise ValueError(f"tensor_parallel must be at least 1, got {self.tensor_parallel}")
        if self.tensor_parallel > 1 and self.shard == "none":
            raise ValueError(f"tensor_parallel = {self.tensor_parallel} goes with a shard of fsdp or hsdp: set one")
        if self.compile and self.tensor_parallel > 1:
            raise ValueError("compile takes whole matrices: set it to false, or tensor_parallel to 1")
        if self.peak_tflops < 0:
            raise ValueError(f"peak_tflops must be > 0, or 0 to have it measured, got {self.peak_tflops}")
        way, _, name = self.keep_best.partition(":")
        if self.keep_best and (way not in ("max", "min") or not name):
            raise ValueError(f"keep_best must be max:FIGURE or min:FIGURE, such as min:loss, got {self.keep_best!r}")

    def options_of_the_step(self) -> dict[str, Any]:
        """These fields by name, as another config of the same step takes them."""
        return {name: getattr(self, name) for name in StepOptions.__dataclass_fields__}


def best_score(rule: str, rows: Sequence[dict[str, float]]) -> float | None:
    """The mean of the figure that ``rule`` names over ``rows``, higher for better; None without a rule.

    Raises ValueError where no row has the figure.
    """
    way, _, name = rule.partition(":")
    if not rule:
        return None
    values = [row[name] for row in rows if name in row]
    if not values:
        known = ", ".join(sorted({key for row in rows for key in row}))
        raise ValueError(f"keep_best: no step has the figure {name!r}; name one of {known}")
    return (1 if way == "max" else -1) * sum(values) / len(values)
