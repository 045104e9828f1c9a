"""A benchmark's table on the screen, and in a folder where it is kept."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def machine() -> str:
    """Date, processor, cores, kernel, Python and load, in words."""
    told = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in told if line.startswith("model name")), "")
    return (
        f"{date.today().isoformat()}, {model}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the end."
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; all rows have the columns of the first."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(str(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def listing(problems: Sequence[str], most: int = 20) -> str:
    """What is wrong, a line each; or that nothing is."""
    if not problems:
        return "Nothing was wrong.\n"
    rest = [f"- and {len(problems) - most} more"] if len(problems) > most else []
    return "\n".join([f"{len(problems)} wrong:", "", *(f"- {line}" for line in problems[:most]), *rest]) + "\n"


def save(name: str, text: str, data: dict[str, Any], folder: Path = FOLDER) -> None:
    """``folder/<date>-<name>.md`` and ``.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{date.today().isoformat()}-{name}"
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(data, indent=1, default=str) + "\n", encoding="utf-8")
