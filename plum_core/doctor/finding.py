"""One thing that was looked at, and what all findings come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at: ``slow`` costs time, ``missing`` stops the main job, ``absent`` is optional."""

    name: str
    value: str
    state: str = "ok"
    remedy: str = ""


def verdict(findings: Sequence[Finding]) -> str:
    """One sentence: what stops the main job, else what slows it down, else that nothing does."""
    for state, opening in (
        ("missing", "make run cannot work here yet"),
        ("slow", "make run works here; to be faster"),
    ):
        for finding in findings:
            if finding.state == state and finding.remedy:
                return f"{opening}: {finding.remedy} ({finding.name}: {finding.value})."
    return "make run works here, and nothing that can be changed slows it down."
