"""An instruction set, row by row, whatever its layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plum_core.instructions.layouts import Layout, detect, named
from plum_core.instructions.rows import rows_of
from plum_core.records import Instruction
from plum_core.records.codec import FieldError


class InstructionReader:
    """An iterator over a file's instructions. A row without an id gets the file's name and its number.

    layout: told by the first row's keys unless named; every row must have it. ``skipped`` counts the bad rows that
    ``skip_bad`` went past so far. Raises ValueError ``file:line: what``, FileNotFoundError, and ValueError for an
    unknown name of a layout.
    """

    def __init__(self, path: str | Path, *, layout: str = "", skip_bad: bool = False) -> None:
        self.path = Path(path)
        self.layout: Layout | None = named(layout) if layout else None
        self.skipped = 0
        self._skip_bad = skip_bad
        self._rows = self._read()

    def __iter__(self) -> Iterator[Instruction]:
        return self._rows

    def __next__(self) -> Instruction:
        return next(self._rows)

    def _read(self) -> Iterator[Instruction]:
        seen: dict[str, str] = {}
        stem = self.path.name.partition(".")[0]
        for number, (place, value) in enumerate(rows_of(self.path), 1):
            try:
                found = self._instruction(value, f"{stem}-{number}")
                if found.id in seen:
                    raise FieldError(f"the id {found.id!r} was at {seen[found.id]} already: keep one of them")
            except FieldError as error:
                if not self._skip_bad or self.layout is None:  # without a layout every row would be bad
                    raise ValueError(f"{place}: {error}") from None
                self.skipped += 1
                continue
            seen[found.id] = place
            yield found

    def _instruction(self, value: Any, name: str) -> Instruction:
        if isinstance(value, FieldError):
            raise value
        if not isinstance(value, dict):
            raise FieldError(f"wants an object, got {type(value).__name__}")
        if self.layout is None:
            self.layout = detect(value)
        missing = [key for key in self.layout.keys if key not in value]
        if missing:
            raise FieldError(
                f"a row of the layout {self.layout.name} needs {', '.join(self.layout.keys)}; "
                f"got {', '.join(map(str, sorted(value))) or 'no key'}"
            )
        return self.layout.read(value, name)


def read_instructions(path: str | Path, *, layout: str = "", skip_bad: bool = False) -> InstructionReader:
    """Stream the instructions of ``path``: JSONL or one JSON list, gzipped or not, or Parquet."""
    return InstructionReader(path, layout=layout, skip_bad=skip_bad)
