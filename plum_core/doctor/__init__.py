"""What does this machine offer, what will be slow on it, and what is the one thing to do?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from plum_core.doctor.accelerator import look_at_torch
from plum_core.doctor.finding import Finding, verdict
from plum_core.doctor.machine import look_at_machine
from plum_core.doctor.project import look_at_project
from plum_core.doctor.sandbox import look_at_sandbox

__all__ = ["Finding", "examine", "verdict"]


def examine(root: Path) -> Iterator[Finding]:
    """Everything, of the machine and of the checkout at ``root``."""
    yield from look_at_machine(root)
    yield from look_at_torch()
    yield from look_at_sandbox()
    yield from look_at_project(root)
