"""The summary as one HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from plum_core.records import write_atomic
from plum_core.rounds import show
from plum_core.rounds.display import round_name
from plum_core.rounds.folder import RunFolder
from plum_core.rounds.summary import interval, percent, summarise, visible


def write_report(folder: RunFolder) -> Path:
    """Write ``report.html`` into the run folder; its path. Model text is escaped: it is shown and never obeyed."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": interval, "percent": percent, "visible": visible, "round_name": round_name}
    summary = summarise(folder)
    page = environment.get_template("report.html").render(
        summary=summary,
        title=show.title(summary),
        lines=show.LINES,
        ks=list(summary.rounds[0].evaluation.get("pass_at", {}))[1:] if summary.rounds else [],
        files=" ".join(show.files(summary)),
    )
    target = folder.path / "report.html"
    write_atomic(target, page)
    return target
