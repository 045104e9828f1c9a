"""A run as one HTML file that needs nothing else: its figures, what was thrown out, its settings and fingerprints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from plum_core.records import write_atomic
from plum_core.reporting.detail import read_details
from plum_core.reporting.figures import figures
from plum_core.reporting.inspector import write_inspector
from plum_core.reporting.page import render
from plum_core.rounds import show
from plum_core.rounds.folder import RunFolder
from plum_core.rounds.summary import Summary, summarise


def write_report(folder: RunFolder, controls: Sequence[RunFolder] = ()) -> Path:
    """Write ``report.html`` and ``inspector.html`` into the run folder; the report's path.

    ``controls``: other runs on the same held-out tasks, drawn beside this one. Model text is escaped: it is shown and
    never obeyed. Raises ValueError for a control with other held-out tasks.
    """
    summary = summarise(folder)
    own = folder.heldout / "tests.jsonl"
    for control in controls:
        theirs = control.heldout / "tests.jsonl"
        if not own.exists() or not theirs.exists() or own.read_bytes() != theirs.read_bytes():
            raise ValueError(
                f"{control.path} is no control of {folder.path}: their held-out tasks differ; give runs of one "
                "evaluation set"
            )
    inspector = write_inspector(folder)
    page = render(
        "report.html",
        summary=summary,
        title=show.title(summary),
        lines=show.LINES,
        ks=list(summary.rounds[0].evaluation.get("pass_at", {}))[1:] if summary.rounds else [],
        files=" ".join(show.files(summary)),
        charts=figures(summary, read_details(folder), {show.label(c.path): read_details(c) for c in controls}),
        no_kl=_no_kl(summary),
        inspector=inspector.name,
        settings=json.dumps(summary.info["config"], indent=2, ensure_ascii=False),
        fingerprints=list(_fingerprints(folder, summary)),
        diff=(summary.info.get("git") or {}).get("diff") or "none",
    )
    target = folder.path / "report.html"
    write_atomic(target, page)
    return target


def _no_kl(summary: Summary) -> str:
    rows = [row for r in summary.rounds for row in r.training]
    if not rows or any("kl" in row or "kl/reference" in row for row in rows):
        return ""
    objective = summary.info["config"]["training"]["objective"]
    return f"No chart of the KL: {objective} does not estimate one. Its rewards show how far its own pairs moved."


def _fingerprints(folder: RunFolder, summary: Summary) -> Iterator[tuple[str, str]]:
    info = summary.info
    yield "command", " ".join(info["argv"])
    for name, value in info["versions"].items():
        yield name, value
    git = info.get("git")
    if git:
        yield "commit", git["commit"] + (" with uncommitted changes" if git["dirty"] else "")
    for name, value in info["data"].items():
        yield name, value
    for path in sorted(folder.path.glob("round-*/policy.json")):
        yield f"policy after {path.parent.name}", json.loads(path.read_text(encoding="utf-8"))["fingerprint"]
