"""Rows of published instruction sets as instructions; a solution, where a row has one, goes to ``extra``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from plum_core.records import Instruction, from_json
from plum_core.records.codec import FieldError

Row = Mapping[str, Any]
HUMAN = ("human", "user", "prompter")
MODEL = ("gpt", "assistant", "model", "chatgpt", "bing", "bard")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """``keys`` tell it; ``read`` takes a row and the id to use where the row has none. It raises FieldError."""

    name: str
    keys: tuple[str, ...]
    read: Callable[[Row, str], Instruction]


def _text(row: Row, key: str, *, empty: bool = False) -> str:
    value = row.get(key)
    if value is None and empty:
        return ""
    if not isinstance(value, str):
        raise FieldError(f"key {key!r} wants a string, got {type(value).__name__}")
    if not value.strip() and not empty:
        raise FieldError(f"key {key!r} is empty: there is nothing to ask")
    return value


def _instruction(row: Row, name: str, layout: str, prompt: str, solution: str, **meta: Any) -> Instruction:
    own = row.get("id")
    if isinstance(own, str | int) and not isinstance(own, bool) and str(own).strip():
        name = str(own)
    if isinstance(row.get("lang"), str):
        meta["language"] = row["lang"]
    extra = {"solution": solution} if solution.strip() else {}
    return Instruction(id=name, prompt=prompt, meta={"layout": layout, **meta}, extra=extra)


def _two(layout: str, prompt: str, solution: str) -> Layout:
    """A question under one key, its solution under another."""

    def read(row: Row, name: str) -> Instruction:
        return _instruction(row, name, layout, _text(row, prompt), _text(row, solution, empty=True))

    return Layout(name=layout, keys=(prompt, solution), read=read)


def _with_input(layout: str, solution: str) -> Layout:
    """An instruction whose input follows it after an empty line, as these sets' own prompts have it."""

    def read(row: Row, name: str) -> Instruction:
        asked, given = _text(row, "instruction").rstrip(), _text(row, "input", empty=True).strip()
        prompt = f"{asked}\n\n{given}" if given else asked
        return _instruction(row, name, layout, prompt, _text(row, solution, empty=True))

    return Layout(name=layout, keys=("instruction", "input", solution), read=read)


def _talk(layout: str, key: str, speaker: str, words: str) -> Layout:
    """A conversation: its first question, with the answer to it. What follows refers to that answer, so it is left."""

    def read(row: Row, name: str) -> Instruction:
        turns = row.get(key)
        if not isinstance(turns, list) or not all(isinstance(t, dict) for t in turns):
            raise FieldError(f"key {key!r} wants a list of objects")
        said = [(str(t.get(speaker)).lower(), t) for t in turns]
        first = next((n for n, (who, _) in enumerate(said) if who in HUMAN), None)
        if first is None:
            raise FieldError(f"no turn of {key!r} is a human's: wants {speaker!r} to be one of {', '.join(HUMAN)}")
        answered = first + 1 < len(said) and said[first + 1][0] in MODEL
        solution = _text(said[first + 1][1], words, empty=True) if answered else ""
        return _instruction(row, name, layout, _text(said[first][1], words), solution, turns=len(turns))

    return Layout(name=layout, keys=(key,), read=read)


def _self_oss(row: Row, name: str) -> Instruction:
    """Its ``prompt`` is the generator's whole input; ``instruction`` is what is asked."""
    return _instruction(row, name, "self-oss-instruct", _text(row, "instruction"), _text(row, "response", empty=True))


def _ours(row: Row, name: str) -> Instruction:
    found = from_json(Instruction, dict(row))
    if not found.prompt.strip():
        raise FieldError("key 'prompt' is empty: there is nothing to ask")
    return found


# In the order in which a row's keys are tried: a layout stands before those whose keys are among its own
_ALL = (
    Layout(name="self-oss-instruct", keys=("instruction", "response", "seed"), read=_self_oss),
    _two("oss-instruct", "problem", "solution"),
    _talk("sharegpt", "conversations", "from", "value"),
    _talk("chat", "messages", "role", "content"),
    _with_input("codegen-instruct", "response"),
    _with_input("alpaca", "output"),
    _two("evol-instruct", "instruction", "output"),
    _two("magicoder-evol-instruct", "instruction", "response"),
    _two("completion", "prompt", "completion"),
    Layout(name="plum", keys=("id", "prompt"), read=_ours),
)
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _ALL}


def detect(keys: Iterable[str]) -> Layout:
    """The layout of a row with these keys. Raises FieldError with the keys where it is none of them."""
    have = set(keys)
    for layout in _ALL:
        if have.issuperset(layout.keys):
            return layout
    known = "; ".join(f"{layout.name}: {', '.join(layout.keys)}" for layout in _ALL)
    raise FieldError(f"no known layout has the keys {', '.join(sorted(have)) or '(none)'}; there are {known}")


def named(name: str) -> Layout:
    """Raises ValueError for an unknown name."""
    if name not in LAYOUTS:
        raise ValueError(f"no layout {name!r}: there are {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
