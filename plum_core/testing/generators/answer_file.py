"""Answers that lie in a file already: what a batch API sent back, or what any other program wrote.

One JSON object a line, in one of these layouts, each told by its keys:

    {"custom_id": ..., "response": {"status_code": 200, "body": {"choices": [{"message": {"content": ...}}]}}}  openai
    {"custom_id": ..., "result": {"type": "succeeded", "message": {"content": [{"type": "text", ...}]}}}      anthropic
    {"id": ..., "answer": ...}                                                                               plain
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from plum_core.records.codec import FieldError
from plum_core.records.files import check_file, decode_line
from plum_core.testing.generators.interface import Answer, AnswerRequest


class AnswerFile:
    """A ``Generator``: requests are answered by their ids, whatever they ask.

    Every line is checked when this is made; memory holds the answers' places alone. Raises ValueError
    ``file:line: what`` for a line of no known layout, and for an id that stands there twice.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        check_file(self.path)
        self._places: dict[str, tuple[int, int]] = {}  # of the line: number, first byte
        at = 0
        with self.path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    answer = self._read(raw, number)
                    if answer.id in self._places:
                        first = self._places[answer.id][0]
                        raise ValueError(
                            f"{self.path}:{number}: the id {answer.id!r} is on line {first} already: keep one of them"
                        )
                    self._places[answer.id] = (number, at)
                at += len(raw)

    def __len__(self) -> int:
        return len(self._places)

    def _read(self, raw: bytes, number: int) -> Answer:
        try:
            return read_answer(decode_line(raw, first=number == 1))
        except FieldError as error:
            raise ValueError(f"{self.path}:{number}: {error}") from None

    def answers(self, requests: Iterable[AnswerRequest]) -> Iterator[Answer]:
        """In the order of ``requests``; one whose id is not in the file has ``error`` set."""
        with self.path.open("rb") as file:
            for request in requests:
                place = self._places.get(request.id)
                if place is None:
                    yield Answer(id=request.id, text="", error=f"{self.path} has no answer with the id {request.id!r}")
                    continue
                file.seek(place[1])
                yield self._read(file.readline(), place[0])


def read_answer(row: Any) -> Answer:
    """The answer of one decoded line. Raises FieldError where the layout is none of those above."""
    if not isinstance(row, dict):
        raise FieldError(f"wants an object, got {type(row).__name__}")
    for keys, reader in LAYOUTS.items():
        if all(key in row for key in keys):
            return reader(row)
    known = " or ".join("{" + ", ".join(keys) + "}" for keys in LAYOUTS)
    raise FieldError(f"an answer of no known layout: wants {known}, got the keys {', '.join(map(str, row)) or 'none'}")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise FieldError(f"{where} wants a string, got {type(value).__name__}")
    return value


def _count(usage: Any, *names: str) -> int:
    counts = [usage[n] for n in names if type(usage.get(n)) is int] if isinstance(usage, dict) else []
    return counts[0] if counts else 0


def _plain(row: dict[str, Any]) -> Answer:
    return Answer(id=_text(row["id"], "id"), text=_text(row["answer"], "answer"))


def _openai(row: dict[str, Any]) -> Answer:
    name = _text(row["custom_id"], "custom_id")
    response, error = row["response"], row.get("error")
    body = response.get("body") if isinstance(response, dict) else None
    if error or not isinstance(body, dict) or response.get("status_code", 200) != 200:
        problem = error or (body.get("error") if isinstance(body, dict) else None) or "no body"
        return Answer(id=name, text="", error=f"the batch has no answer: {_words(problem)}")
    try:
        choice = body["choices"][0]
        text = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise FieldError("response.body wants choices[0].message.content") from None
    if text is None:
        return Answer(id=name, text="", error="the batch has no answer: a refusal or a call of a tool")
    return Answer(
        id=name,
        text=_text(text, "response.body.choices[0].message.content"),
        finish_reason=str(choice.get("finish_reason") or ""),
        prompt_tokens=_count(body.get("usage"), "prompt_tokens"),
        completion_tokens=_count(body.get("usage"), "completion_tokens"),
    )


def _anthropic(row: dict[str, Any]) -> Answer:
    name, result = _text(row["custom_id"], "custom_id"), row["result"]
    if not isinstance(result, dict) or "type" not in result:
        raise FieldError("result wants an object with a type")
    if result["type"] != "succeeded":
        problem = result.get("error") or result["type"]
        return Answer(id=name, text="", error=f"the batch has no answer: {_words(problem)}")
    message: Any = result.get("message")
    if not isinstance(message, dict):
        raise FieldError("result.message wants an object")
    parts = message.get("content")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise FieldError("result.message.content wants a list of objects")
    said = [_text(part.get("text"), "result.message.content[].text") for part in parts if part.get("type") == "text"]
    reason = str(message.get("stop_reason") or "")
    return Answer(
        id=name,
        text="".join(said),
        finish_reason={"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}.get(reason, reason),
        prompt_tokens=_count(message.get("usage"), "input_tokens"),
        completion_tokens=_count(message.get("usage"), "output_tokens"),
    )


def _words(problem: Any) -> str:
    """An error object's message, or what else there is of it, in one short line."""
    while isinstance(problem, dict):
        problem = problem.get("message") or problem.get("error") or problem.get("type") or "no reason given"
    return " ".join(str(problem).split())[:200]


LAYOUTS: dict[tuple[str, ...], Callable[[dict[str, Any]], Answer]] = {
    ("custom_id", "response"): _openai,
    ("custom_id", "result"): _anthropic,
    ("id", "answer"): _plain,
}
