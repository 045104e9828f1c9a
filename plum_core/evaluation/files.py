"""Benchmark files as their authors publish them: JSONL or one JSON list, gzipped or not."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_text(path: Path) -> str:
    """The file's text, unpacked where it is gzipped. Raises ValueError for what is no such text."""
    raw = path.read_bytes()
    try:
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as problem:
        raise ValueError(f"{path}: cannot be read as (gzipped) UTF-8 text: {problem}") from None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file or of one JSON list. Raises ValueError ``file:line: what``."""
    text = read_text(path)
    if text.lstrip()[:1] == "[":
        try:
            found = json.loads(text)
        except ValueError as problem:
            raise ValueError(f"{path}: {problem}") from None
        numbered = list(enumerate(found, 1))
    else:
        numbered = []
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    numbered.append((number, json.loads(line)))
                except ValueError as problem:
                    raise ValueError(f"{path}:{number}: {problem}") from None
    for number, row in numbered:
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: wants a JSON object, got {type(row).__name__}")
    return [row for _, row in numbered]


def text_field(row: Mapping[str, Any], name: str, path: Path) -> str:
    """A string of a row. Raises ValueError where it is missing: the file is of another layout."""
    value = row.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{path}: wants a string under {name!r}, got {value!r:.60}; is it another benchmark's file?")
    return value
