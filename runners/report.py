"""The report of a run, again: what the run printed at its end, and report.html in the run folder.

python runners/report.py runs/tiny
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from plum_core import settings
from plum_core.reporting import write_report
from plum_core.rounds.folder import RunFolder
from plum_core.rounds.show import show
from plum_core.rounds.single import make_console
from plum_core.rounds.summary import summarise


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig:
    """Which run."""

    run: tyro.conf.Positional[Path]  # the run folder
    quiet: bool = False  # write the file and print only its path


def run(config: ReportConfig) -> None:
    folder = RunFolder(config.run)
    if not config.quiet:
        show(summarise(folder), make_console())
    print(write_report(folder))


if __name__ == "__main__":
    sys.exit(settings.main(run, ReportConfig, doc=__doc__ or ""))
