"""The run as JSON and Markdown: what was measured, what was cut, and the bars that it answers."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch
import triton

from on_gpu.bench import Bench, Row
from plum_kernels import choice

WAYS = ("by every sample", "once")
NOT_MEASURED = "not measured"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__, "triton": triton.__version__}
    for name in ("liger-kernel", "cut-cross-entropy", "trl", "flash-attn"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _value(bench: Bench, name: str, key: str) -> float | None:
    for row in bench.rows:
        if row["section"] in ("tables", "decode") and row["name"] == name and row.get(key) is not None:
            return float(row[key])
    return None


def _percent(bench: Bench, name: str) -> str:
    share = _value(bench, name, "share_of_roofline")
    return NOT_MEASURED if share is None else f"{share:.1%}"


def bars(bench: Bench) -> list[tuple[str, str]]:
    """(what was promised, what was found): nothing that was not measured in this run."""
    shares = [_value(bench, f"forward: plum linear_logprob{way}", "share_of_ceiling") for way in ("", ", hybrid")]
    share = max((found for found in shares if found is not None), default=None)
    ours, exact = (_value(bench, f"dpo step: plum one visit{suffix}", "ms") for suffix in (", filter 1e-5", ""))
    theirs = _value(bench, "dpo step: Liger fused DPO, all rows", "ms")
    peak = _value(bench, "dpo step: plum one visit", "peak_mib")

    def times(a: float | None, b: float | None) -> str:
        return NOT_MEASURED if a is None or b is None else f"{a / b:.2f} x"

    return [
        (
            "forward, share of the measured bf16 product: at least 85 %",
            NOT_MEASURED if share is None else f"{share:.1%}",
        ),
        ("DPO step's head, exact, against Liger's fused DPO: at least 2.5 x", times(theirs, exact)),
        ("the same with the filter: goal 4 x", times(theirs, ours)),
        (
            "DPO step's head, peak memory, gradients (2.4 GiB) included: at most those and 1.5 GB",
            NOT_MEASURED if peak is None else f"{peak:.0f} MiB",
        ),
        *(
            (f"decode {size}, share of the roofline: at least 70 %", _percent(bench, f"{size}: decode, CUDA graphs"))
            for size in ("0.5B", "1.5B", "7B")
        ),
        (
            "decode attention at 7B, a prompt read once against by every sample: at least 1.5 x",
            times(
                *(
                    _value(bench, f"7B: decode attention, prompt read {way}", "ms")
                    for way in ("by every sample", "once")
                )
            ),
        ),
    ]


def _cell(value: Any) -> str:
    if value is None:
        return NOT_MEASURED
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _table(rows: list[Row]) -> list[str]:
    columns = list(dict.fromkeys(k for row in rows for k in row if k != "section"))
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return lines + ["| " + " | ".join(_cell(row[c]) if c in row else "" for c in columns) + " |" for row in rows]


def markdown(bench: Bench, device: str) -> str:
    facts = ", ".join(f"{k} {v}" for k, v in versions().items())
    lines = [f"# {device}, {date.today().isoformat()}", "", f"`python kernels/benchmarks/gpu.py`; {facts}.", ""]
    if bench.dry:
        lines += [
            "A dry run at tiny shapes with the reference in place of the kernels: nothing here is a measurement.",
            "",
        ]
    lines += ["| bar | found |", "|---|---|", *(f"| {name} | {found} |" for name, found in bars(bench)), ""]
    for section in dict.fromkeys(row["section"] for row in bench.rows):
        lines += [f"## {section}", "", *_table([r for r in bench.rows if r["section"] == section]), ""]
    lines += ["## cut", "", *([f"- {name}" for name in bench.cut] or ["Nothing was cut for time."]), ""]
    lines += ["## failed", "", *([f"- {name}" for name in bench.failures] or ["Nothing failed."])]
    return "\n".join(lines) + "\n"


def write(bench: Bench, folder: Path) -> list[Path]:
    """The record and the page; what "auto" takes on this device too, where this run's checks came before it."""
    device = "cpu (dry run)" if bench.dry else torch.cuda.get_device_name()
    stem = f"{date.today().isoformat()}-gpu-{'dry' if bench.dry else device.lower().replace(' ', '-')}"
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "date": date.today().isoformat(), "device": device, "dry": bench.dry, "versions": versions(),
        "ceiling_flops": bench.ceiling, "bars": bars(bench), "rows": bench.rows, "cut": bench.cut,
        "failures": bench.failures, "choices": bench.choices,
    }  # fmt: skip
    data, page = folder / f"{stem}.json", folder / f"{stem}.md"
    data.write_text(json.dumps(record, indent=1) + "\n")
    page.write_text(markdown(bench, device))
    checked = any(row["section"] == "checks" for row in bench.rows) and not bench.failures
    if not checked or not bench.choices:
        return [data, page]
    return [data, page, choice.write(device, record["date"], bench.choices["backends"], bench.choices["tiles"])]
