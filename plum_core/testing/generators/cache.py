"""Answers that were paid for, on disk: one line an answer, there before anybody sees it, found again by question.

A line is on the medium (``fsync``) before ``put`` returns, so ``kill -9`` at any moment loses no answer that had
arrived. A line cut short by a crash is dropped when the file is opened again.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from plum_core.records.codec import FieldError, from_json
from plum_core.records.files import JsonlWriter, decode_line
from plum_core.testing.generators.interface import Answer, AnswerRequest


def request_key(request: AnswerRequest, model: str, options: Mapping[str, Any]) -> str:
    """SHA-256 of the question, the model and the endpoint's options; the request's id is no part of it."""
    text = json.dumps([model, dict(options), request.question()], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CacheLine:
    """An answer under its question's key, or, without text, tokens that may have been billed for a lost answer."""

    key: str
    prompt_tokens: int
    completion_tokens: int
    id: str = ""  # of the request that was first to ask, for those who read the file
    text: str | None = None
    finish_reason: str = ""


class _SyncedWriter(JsonlWriter):
    def write(self, record: Any) -> None:
        super().write(record)
        os.fsync(self._file.fileno())


class AnswerCache:
    """``path`` is held by one process at a time: two that pay for the same question is what it is there to prevent.

    Memory grows with the number of answers, not with their text. Raises ValueError ``file:line: what`` for a line
    that is none of ours, and where another process holds the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.prompt_tokens = 0  # of all lines: what this file has cost so far
        self.completion_tokens = 0
        self._lock = threading.Lock()
        self._places: dict[str, tuple[int, int]] = {}
        self._writer = _SyncedWriter(self.path)
        self._file = self.path.open("rb")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ValueError(f"{self.path} is in use by another process: wait for it, or name another cache") from None
        self._end = 0
        try:
            for line, length in self._lines():
                self._enter(line, length)
        except ValueError:
            self.close()
            raise

    def _lines(self) -> Iterator[tuple[CacheLine, int]]:
        for number, raw in enumerate(self._file, 1):
            try:
                yield from_json(CacheLine, decode_line(raw)), len(raw)
            except FieldError as error:
                raise ValueError(f"{self.path}:{number}: {error}") from None

    def _enter(self, line: CacheLine, length: int) -> None:
        if line.text is not None:
            self._places[line.key] = (self._end, length)
        self.prompt_tokens += line.prompt_tokens
        self.completion_tokens += line.completion_tokens
        self._end += length

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: str, request_id: str) -> Answer | None:
        """The answer to the question ``key``, under ``request_id``."""
        with self._lock:
            place = self._places.get(key)
        if place is None:
            return None
        line = from_json(CacheLine, decode_line(os.pread(self._file.fileno(), place[1], place[0])))
        return Answer(
            id=request_id,
            text=line.text or "",
            finish_reason=line.finish_reason,
            prompt_tokens=line.prompt_tokens,
            completion_tokens=line.completion_tokens,
        )

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer without error."""
        self._write(
            CacheLine(
                key=key,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
                id=answer.id,
                text=answer.text,
                finish_reason=answer.finish_reason,
            )
        )

    def lose(self, key: str, prompt_tokens: int, completion_tokens: int) -> None:
        """An answer that did not arrive whole, though the endpoint may have billed as many tokens for it."""
        self._write(CacheLine(key=key, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens))

    def _write(self, line: CacheLine) -> None:
        with self._lock:
            self._writer.write(line)
            end = self.path.stat().st_size
            self._enter(line, end - self._end)

    def close(self) -> None:
        self._writer.close()
        self._file.close()

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
