"""Rows of a file with their places, one at a time: JSONL, one JSON list, either of them gzipped, and Parquet."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from plum_core.records.codec import FieldError
from plum_core.records.files import check_file, decode_line

BLOCK_CHARACTERS = 1 << 16
MOST_CHARACTERS = 1 << 26  # of one row; what is longer is no row
PARQUET = b"PAR1"


def rows_of(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, value) of each row; the value is a FieldError where that line alone is bad.

    Raises FileNotFoundError, and ValueError where the file cannot be read on from some place.
    """
    check_file(path)
    with path.open("rb") as file:
        start = file.read(4)
    if start == PARQUET:
        yield from _parquet(path)
        return
    try:
        with _opened(path, start) as file:
            listed = _first_character(file) == b"["
        with _opened(path, start) as file:
            yield from _listed(path, file) if listed else _lines(path, file)
    except (OSError, EOFError, zlib.error) as problem:
        raise ValueError(f"{path}: cannot be unpacked to its end ({problem}): fetch the file again") from None


def _opened(path: Path, start: bytes) -> BinaryIO:
    return gzip.open(path, "rb") if start[:2] == b"\x1f\x8b" else path.open("rb")  # type: ignore[return-value]


def _first_character(file: BinaryIO) -> bytes:
    return file.read(1 << 12).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[str, Any]]:
    number = 0
    while line := file.readline(MOST_CHARACTERS):
        number += 1
        if len(line) >= MOST_CHARACTERS:
            raise ValueError(f"{path}:{number}: a line past {MOST_CHARACTERS} bytes: is it JSONL?")
        if line.strip():
            try:
                yield f"{path}:{number}", decode_line(line, first=number == 1)
            except ValueError as error:  # FieldError, and a number of too many digits
                yield f"{path}:{number}", FieldError(str(error))


def _listed(path: Path, binary: BinaryIO) -> Iterator[tuple[str, Any]]:
    """The elements of one JSON list, without ever holding all of them."""
    text = io.TextIOWrapper(binary, encoding="utf-8-sig")
    try:
        yield from _elements(path, text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason}): save the file as UTF-8") from None


def _elements(path: Path, text: TextIO) -> Iterator[tuple[str, Any]]:
    decoder = json.JSONDecoder()
    held, line, ended = "", 1, False

    def more(least: int) -> None:
        nonlocal held, ended
        read = text.read(max(least, BLOCK_CHARACTERS))
        held, ended = held + read, not read

    def skip(characters: str) -> str:
        """Past spaces and ``characters``; the next character, or '' at the end."""
        nonlocal held, line
        while True:
            rest = held.lstrip(" \t\r\n" + characters)
            line += held.count("\n", 0, len(held) - len(rest))
            held = rest
            if held or ended:
                return held[:1]
            more(0)

    more(0)
    skip("")
    held = held[1:]  # the bracket
    while True:
        character = skip(",")
        if character == "]":
            return
        if not character:
            raise ValueError(f"{path}:{line}: the list does not end: the file is cut short")
        if character != "{":
            raise ValueError(f"{path}:{line}: wants a list of objects, found {held[:20]!r} in it")
        while True:
            try:
                value, end = decoder.raw_decode(held)
                break
            except RecursionError:
                raise ValueError(f"{path}:{line}: nested too deeply to be read") from None
            except json.JSONDecodeError as error:
                if ended or len(held) > MOST_CHARACTERS:
                    at = line + error.lineno - 1
                    raise ValueError(f"{path}:{at}: not JSON at column {error.colno} ({error.msg})") from None
                more(len(held))  # twice as much each time, so that a long row costs no more than its length
            except ValueError as error:  # a number of too many digits
                raise ValueError(f"{path}:{line}: {error}") from None
        yield f"{path}:{line}", value
        line += held.count("\n", 0, end)
        held = held[end:]


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError(f"{path} is Parquet, which needs pyarrow: pip install 'plum[parquet]'")
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except (pyarrow.ArrowException, OSError) as problem:
        raise ValueError(f"{path}: cannot be read after row {number} ({problem}): fetch the file again") from None
