"""What people see of a run: the report, the inspector and the comparison of runs, each one HTML file."""

from __future__ import annotations

from plum_core.reporting.compare import write_comparison
from plum_core.reporting.inspector import write_inspector
from plum_core.reporting.report import write_report

__all__ = ["write_comparison", "write_inspector", "write_report"]
