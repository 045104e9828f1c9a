"""What the sections share: the clock of the whole run, measuring, and the rows that are reported."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from triton.errors import TritonError

Row = dict[str, Any]
ERRORS = (RuntimeError, ValueError, AssertionError, TypeError, ImportError, AttributeError, TritonError)


@dataclass(kw_only=True)
class Bench:
    """``dry``: tiny shapes on the CPU, the reference in place of the kernels: walks the code, measures nothing."""

    dry: bool
    rows: list[Row] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    choices: dict[str, Any] = field(default_factory=dict)  # the fastest back ends and tiles, by ``tuning``
    ceiling: float | None = None  # FLOP/s of the device's own bf16 product
    deadline: float = float("inf")
    section: str = ""

    @property
    def device(self) -> str:
        return "cpu" if self.dry else "cuda"

    @property
    def triton(self) -> str:
        """The back end under test."""
        return "reference" if self.dry else "triton"

    def begin(self, section: str, seconds: float) -> None:
        self.section, self.deadline = section, time.monotonic() + seconds
        print(f"== {section}: at most {seconds:.0f} s", flush=True)

    def item(self, name: str, work: Callable[[], Row | None], ours: bool = True) -> None:
        """One row; past the section's time it is cut and said so.

        What it raises becomes the row's text, and a failure of the run unless it is not ``ours``: a peer, or a tile
        that the device refuses.
        """
        label = f"{self.section}: {name}"
        if time.monotonic() > self.deadline:
            self.cut.append(label)
            print(f"   cut for time: {name}", flush=True)
            return
        start = time.monotonic()
        try:
            row = work() or {}
        except ERRORS as error:
            row = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
            if ours:
                self.failures.append(f"{label}: {row['error']}")
        if not self.dry:
            torch.cuda.empty_cache()
        row = {"section": self.section, "name": name, **row}
        self.rows.append(row)
        shown = ", ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items() if k != "section"
        )
        print(f"   {shown} ({time.monotonic() - start:.1f} s)", flush=True)

    def measure(self, work: Callable[[], Any], flops: float | None = None, seconds: float = 4.0) -> Row:
        """Median, spread and peak memory of ``work`` beyond what is allocated before; nothing in a dry run."""
        if self.dry:
            work()
            return {"ms": None}
        for _ in range(2):
            work()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        times: list[float] = []
        end = time.monotonic() + seconds
        while len(times) < 20 and (len(times) < 5 or time.monotonic() < end):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            stop.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(stop))
        median = statistics.median(times)
        row: Row = {
            "ms": median,
            "spread_percent": 100 * (max(times) - min(times)) / median,
            "runs": len(times),
            "peak_mib": peak / 2**20,
        }
        if flops is not None and self.ceiling:
            row["share_of_ceiling"] = flops / (median * 1e-3) / self.ceiling
        return row


def within_budget(got: torch.Tensor, plain: torch.Tensor, exact: torch.Tensor, hair: float) -> float:
    """How much of its error budget ``got`` used, at most 1; AssertionError past it.

    The budget: as wrong as the plain low-precision result at its worst, plus a hair of the exact one's size.
    """
    if exact.numel() == 0:
        return 0.0
    exact = exact.double()
    allowed = float((plain.double() - exact).abs().max() + hair * (1 + exact.abs().max()))
    error = float((got.double() - exact).abs().max())
    if not error <= allowed:  # NaN too
        raise AssertionError(f"error {error:.3g} past the budget of {allowed:.3g}")
    return error / allowed
