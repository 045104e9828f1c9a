"""What ``backend="auto"`` means on a GPU: what a run of kernels/benchmarks/gpu.py found fastest there, or the default.

A run writes ``measured/<device>.json``, which is committed. Its "backends" name the fastest back end of each function,
its "tiles" the fastest tiles of each kernel. Without a page for the device the documented default stays, and each
function says so once a process; with one it says what was chosen.
"""

from __future__ import annotations

import functools
import json
import re
import warnings
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent / "measured"


def page_of(device_name: str) -> Path:
    """Where the measurements of a device stand."""
    return FOLDER / f"{re.sub(r'[^a-z0-9]+', '-', device_name.lower()).strip('-')}.json"


@functools.cache
def _page(device_name: str) -> dict[str, Any]:
    path = page_of(device_name)
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def clear() -> None:
    """Pages are read again, and choices made and announced anew: after a run has written one."""
    _page.cache_clear()
    _chosen.cache_clear()


@torch.compiler.assume_constant_result  # read once: a graph need not look into files
def _auto(function: str, index: int | None, default: str) -> str:
    at = torch.cuda.current_device() if index is None else index
    return _chosen(function, torch.cuda.get_device_name(at), default)


@functools.cache
def _chosen(function: str, device_name: str, default: str) -> str:
    page = _page(device_name)
    backend: str | None = page.get("backends", {}).get(function)
    if backend is None:
        why = f"no measurement of it on {device_name} is committed (kernels/benchmarks/gpu.py)"
        warnings.warn(f"{function}: backend auto is {default!r}: {why}", stacklevel=4)
        return default
    where = f"{device_name}, {page['date']}"
    warnings.warn(f"{function}: backend auto is {backend!r}, as measured on {where}", stacklevel=4)
    return backend


def auto(function: str, device: torch.device, default: str) -> str:
    """The back end of ``function`` on ``device``; off a GPU always the default, silently."""
    if device.type != "cuda":
        return default
    return _auto(function, device.index, default)


def tile(kernel: str, device: torch.device) -> dict[str, int] | None:
    """The fastest tile of ``kernel`` on ``device`` by name of its sides, warps and stages; None where unknown."""
    found: dict[str, int] | None = _page(torch.cuda.get_device_name(device)).get("tiles", {}).get(kernel)
    return found


def write(device_name: str, date: str, backends: dict[str, str], tiles: dict[str, dict[str, int]]) -> Path:
    """The page of a run."""
    path = page_of(device_name)
    path.parent.mkdir(exist_ok=True)
    page = {"device": device_name, "date": date, "backends": backends, "tiles": tiles}
    path.write_text(json.dumps(page, indent=1) + "\n")
    clear()
    return path
