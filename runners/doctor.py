"""What this machine offers, what will be slow on it, and the one thing to do.

python runners/doctor.py          # a table and a verdict; exit status 1 when the main job cannot run here
python runners/doctor.py --json   # the same as one JSON object
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from plum_core.doctor import Finding, examine, verdict

ROOT = Path(__file__).resolve().parent.parent
STATES = {"ok": "green", "slow": "yellow", "missing": "bold red", "absent": "dim"}


def show(findings: list[Finding]) -> None:
    """The table for a person."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        table.add_row(finding.name, f"[{STATES[finding.state]}]{finding.state}[/]", escape(finding.value))
        if finding.remedy:
            table.add_row("", "", f"[dim]-> {escape(finding.remedy)}[/]")
    console = Console()
    console.print(table)
    console.print(f"\n{escape(verdict(findings))}")


def main(argv: list[str] | None = None) -> int:
    """Exit status 0 when the main job can run here, 1 when something it needs is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args(argv)
    findings = list(examine(ROOT))
    if options.json:
        print(json.dumps({"findings": [asdict(f) for f in findings], "verdict": verdict(findings)}, indent=2))
    else:
        show(findings)
    return int(any(f.state == "missing" for f in findings))


if __name__ == "__main__":
    sys.exit(main())
