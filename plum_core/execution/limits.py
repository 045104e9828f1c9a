"""Limits of one program, and the refusal to run without confinement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any


class SandboxUnavailable(RuntimeError):
    """This machine lacks a mandatory layer of confinement. One sentence: which, why, and what helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Per program; a program's own ``limits`` override single fields. Raises ValueError on a value out of range."""

    cpu_s: float = 2.0  # processor seconds over all its calls (for stdin tests: per test)
    wall_s: float = 10.0  # seconds asleep, waiting for nothing of ours
    test_cpu_s: float = 3600.0  # processor seconds in one test; what is not below cpu_s says nothing
    test_wall_s: float = 3600.0  # seconds asleep in one test; what is not below wall_s says nothing
    memory_mib: float = 1024.0  # address space
    output_kib: float = 4096.0  # one answer, or all of stdout
    source_kib: float = 1024.0  # the program's own text

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise ValueError(f"limits.{name} must be a number from {low:g} to {high:g}, got {value!r}")

    def overridden(self, changes: Mapping[str, Any]) -> Limits:
        """With single fields changed. Raises ValueError on an unknown field."""
        known = {field.name for field in fields(self)}
        unknown = sorted(set(changes) - known)
        if unknown:
            raise ValueError(f"unknown limit {unknown[0]!r}; the limits are {', '.join(sorted(known))}")
        return replace(self, **changes)

    def as_dict(self) -> dict[str, float]:
        """Field by field, as a worker reads them."""
        return asdict(self)


_RANGES = (
    ("cpu_s", 0.01, 3600.0),
    ("wall_s", 0.1, 3600.0),
    ("test_cpu_s", 0.01, 3600.0),
    ("test_wall_s", 0.1, 3600.0),
    ("memory_mib", 64.0, 1 << 20),
    ("output_kib", 1.0, 1 << 18),
    ("source_kib", 1.0, 1 << 14),
)
