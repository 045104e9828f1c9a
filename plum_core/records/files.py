"""JSONL files that survive ``kill -9``: atomic when written whole, repaired when appended to.

A bad line is reported as ``file:line: what``. Equal records give equal bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Generic, TypeVar

from plum_core.records.codec import FieldError, encode_line, from_json

R = TypeVar("R")


class JsonlReader(Generic[R]):
    """An iterator over a file's records. ``skipped`` counts the bad lines that ``skip_bad`` went past so far.

    Raises FileNotFoundError when made, and ValueError ``file:line: what`` at the bad line.
    """

    def __init__(self, path: str | Path, cls: type[R], *, skip_bad: bool = False) -> None:
        self.path = Path(path)
        self.skipped = 0
        self._cls, self._skip_bad = cls, skip_bad
        check_file(self.path)
        self._records = self._read()

    def __iter__(self) -> Iterator[R]:
        return self._records

    def __next__(self) -> R:
        return next(self._records)

    def _read(self) -> Iterator[R]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    record = from_json(self._cls, decode_line(line, first=number == 1))
                except ValueError as error:
                    if not self._skip_bad:
                        raise ValueError(f"{self.path}:{number}: {error}") from None
                    self.skipped += 1
                    continue
                yield record


def read_jsonl(path: str | Path, cls: type[R], skip_bad: bool = False) -> JsonlReader[R]:
    """Stream the records of ``path``; ``list(read_jsonl(p, Sample))`` reads them all."""
    return JsonlReader(path, cls, skip_bad=skip_bad)


def decode_line(line: bytes, *, first: bool = False) -> Any:
    """The JSON value of one line, else FieldError. ``first``: a byte-order mark may lead."""
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")
        return json.loads(text.rstrip(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise FieldError(f"not UTF-8 at byte {error.start}: save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        cut = "" if line.endswith(b"\n") else "; the last line has no newline, so the file may be cut short"
        raise FieldError(f"not JSON at column {error.colno} ({error.msg}){cut}") from None
    except RecursionError:
        raise FieldError("nested too deeply to be read") from None


def _refuse_constant(name: str) -> Any:
    raise FieldError(f"{name} is not JSON: write a number or null")


def check_file(path: Path) -> None:
    """FileNotFoundError or ValueError in one sentence unless ``path`` is a file."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the JSONL file in it")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: check the path, or run the stage that writes it")


def write_jsonl(path: str | Path, records: Iterable[Any]) -> int:
    """Write records or mappings, one a line, all or nothing; their number."""
    count = 0
    with atomic_file(path) as file:
        for record in records:
            file.write(encode_line(record))
            count += 1
    return count


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Put ``content`` (text as UTF-8) at ``path`` whole, or leave what was there."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file that takes its name only once it is complete and on disk; an exception leaves nothing behind.

    The temporary file is hidden, beside the target, and ends in ``.tmp``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable: without it a power cut may forget them."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class JsonlWriter:
    """Append records; each line reaches the kernel before ``write`` returns.

    Opening cuts off a last line without its newline: the one that a killed writer had in hand.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._file = path.open("r+b", buffering=0)
        self._file.truncate(_end_of_last_line(self._file))
        self._file.seek(0, os.SEEK_END)

    def write(self, record: Any) -> None:
        line = memoryview(encode_line(record))
        while line:  # an unbuffered write may take only a part
            line = line[self._file.write(line) :]

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _end_of_last_line(file: Any, block: int = 1 << 16) -> int:
    """Bytes up to and with the last newline, read backwards."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def append_jsonl(path: str | Path, records: Iterable[Any]) -> None:
    """Append records or mappings to ``path``, which is made if need be and repaired as JsonlWriter says."""
    with JsonlWriter(path) as writer:
        for record in records:
            writer.write(record)
