"""What a step reports: means over sequences and plain totals, exact over micro-batches and ranks."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

# figures that differ between two runs of the same bits
TIMED = ("step_s", "tokens_per_s", "mfu", "peak_tflops/measured", "peak_memory_mib")


def peak_memory_mib(device: torch.device) -> float:
    """The most memory so far, in MiB: of tensors on a GPU, of this whole process (its resident set) on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "linux":  # getrusage's maximum would be that of whoever started this process, if it was larger
        told = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        if told:
            return int(told[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


class StepMetrics:
    """Sums and counts of one step on one rank, in an order of names that every rank shares.

    A rank whose share of a step is empty, or holds no chosen completion, still adds its zeros, so no other
    rank waits for it. fp64, because counts of tokens pass 2**24.
    """

    def __init__(self, *, means: Sequence[str], totals: Sequence[str]) -> None:
        self.means, self.totals = tuple(means), tuple(totals)
        self._sums = {name: torch.zeros((), dtype=torch.float64) for name in (*self.means, *self.totals)}
        self._counts = dict.fromkeys(self.means, 0)

    def mean(self, name: str, values: Tensor) -> None:
        """Values (n,) whose mean over all that is added will be reported."""
        self._sums[name] += values.detach().sum().double().cpu()
        self._counts[name] += values.numel()

    def total(self, name: str, value: Tensor | float) -> None:
        self._sums[name] += float(value)

    def vector(self) -> Tensor:
        """Everything in one fp64 vector, to be summed over ranks."""
        sums = torch.stack([self._sums[name] for name in (*self.means, *self.totals)])
        return torch.cat((sums, sums.new_tensor([self._counts[name] for name in self.means])))

    def report(self, vector: Tensor) -> dict[str, float]:
        """Names and figures from a ``vector`` summed over ranks. A mean over nothing is left out."""
        values = vector.tolist()
        named = dict(zip((*self.means, *self.totals), values, strict=False))
        counts = dict(zip(self.means, values[len(named) :], strict=True))
        row = {name: named[name] / counts[name] for name in self.means if counts[name]}
        row |= {name: named[name] for name in self.totals}
        if "rewards/chosen" in row and "rewards/rejected" in row:
            row.setdefault("rewards/margins", row["rewards/chosen"] - row["rewards/rejected"])
        return row
