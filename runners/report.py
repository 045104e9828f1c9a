"""The report of a run, again: what the run printed at its end, and report.html with inspector.html in the run folder.

    python runners/report.py runs/tiny
    python runners/report.py runs/tiny --controls runs/random runs/off-policy
    python runners/report.py runs/tiny runs/kto --out runs/compare.html

Controls are drawn beside the run. Several runs are compared with the first: paired differences, tasks won and lost.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from plum_core import settings
from plum_core.reporting import write_comparison, write_report
from plum_core.rounds.folder import RunFolder
from plum_core.rounds.show import show
from plum_core.rounds.single import make_console
from plum_core.rounds.summary import summarise


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig:
    """Which runs."""

    runs: tyro.conf.Positional[tuple[Path, ...]]  # run folders: one for its report, more for a comparison
    controls: tuple[Path, ...] = ()  # runs on the same held-out tasks, drawn beside the one
    out: Path | None = None  # where the comparison goes; a report always goes into its run folder
    quiet: bool = False  # write the file and print only its path

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("runs names no folder: give one for its report, more for a comparison")
        if len(self.runs) == 1 and self.out:
            raise ValueError("--out is for a comparison: a report goes into its run folder")
        if len(self.runs) > 1 and not self.out:
            raise ValueError("several runs are compared in a file: name it with --out")
        if len(self.runs) > 1 and self.controls:
            raise ValueError("--controls is for the report of one run: name them among the runs to compare them")


def run(config: ReportConfig) -> None:
    folders = [RunFolder(path) for path in config.runs]
    if config.out:
        print(write_comparison(folders, config.out))
        return
    if not config.quiet:
        show(summarise(folders[0]), make_console())
    print(write_report(folders[0], [RunFolder(path) for path in config.controls]))


if __name__ == "__main__":
    sys.exit(settings.main(run, ReportConfig, doc=__doc__ or ""))
