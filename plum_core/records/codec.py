"""Records to and from one JSON object, with every value checked against the field's annotation."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, TypeVar

R = TypeVar("R")
NAMES = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}


class FieldError(ValueError):
    """A record that breaks its type; the message names the key and what stood there, not the file."""


def to_json(record: Any) -> dict[str, Any]:
    """The object that is written: fields in the dataclass's order, then the unknown keys it came with."""
    out = {f.name: _plain(getattr(record, f.name)) for f in dataclasses.fields(record) if f.name != "extra"}
    for key, value in getattr(record, "extra", {}).items():
        if key in out:
            raise FieldError(f"extra holds {key!r}, which is a field of {type(record).__name__}: set the field")
        out[key] = value
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json(value)
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value] if value and not isinstance(value[0], int | float | str) else list(value)
    return value


def encode_line(value: Any) -> bytes:
    """One line of JSONL, newline included, of a record or a mapping; equal values give equal bytes.

    Raises FieldError for NaN and infinities, which JSON does not have.
    """
    plain = value if isinstance(value, Mapping) else to_json(value)
    try:
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise FieldError(f"{type(value).__name__} cannot be written as JSON: {error}") from error
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8 form, but it has an escape
        return json.dumps(plain, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def from_json(cls: type[R], value: Any) -> R:
    """A record of ``cls`` from a decoded JSON object; FieldError names the key that is missing or wrong.

    Unknown keys go to the field ``extra`` where the class has one, and are refused where it has none.
    """
    if not isinstance(value, dict):
        raise FieldError(f"wants an object with the keys of {cls.__name__}, got {_shown(value)}")
    kind: Any = cls
    readers, required = _readers(kind)
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, item in value.items():
        reader = readers.get(key)
        if reader is None:
            extra[key] = item
            continue
        known[key] = reader(item, key)
    for key in required:
        if key not in known:
            raise FieldError(f"key {key!r} is missing: a {cls.__name__} needs {', '.join(required)}")
    if extra and not _has_extra(cls):
        raise FieldError(f"unknown key {next(iter(extra))!r}: a {cls.__name__} has {', '.join(readers)}")
    record: R = kind(**known, extra=extra) if extra else kind(**known)
    return record


Reader = Callable[[Any, str], Any]


def _has_extra(cls: type) -> bool:
    return any(f.name == "extra" for f in dataclasses.fields(cls))


@functools.cache
def _readers(cls: type) -> tuple[dict[str, Reader], tuple[str, ...]]:
    """A checking reader for each key, and the keys without a default."""
    hints = typing.get_type_hints(cls)
    fields = [f for f in dataclasses.fields(cls) if f.name != "extra"]
    missing = dataclasses.MISSING
    required = tuple(f.name for f in fields if f.default is missing and f.default_factory is missing)
    return {f.name: _reader(hints[f.name]) for f in fields}, required


def _reader(hint: Any) -> Reader:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return lambda value, key: value
    if origin in (typing.Union, types.UnionType):
        inner = _reader(next(a for a in args if a is not type(None)))
        return lambda value, key: None if value is None else inner(value, key)
    if origin is tuple:
        return functools.partial(_read_list, args[0], _reader(args[0]))
    if origin is dict:
        return _read_object
    if dataclasses.is_dataclass(hint):
        return functools.partial(_read_nested, typing.cast(type, hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return functools.partial(_read_enum, hint)
    return functools.partial(_read_plain, hint)


def _read_plain(hint: type, value: Any, key: str) -> Any:
    if type(value) is hint:
        return value
    if hint is float and type(value) is int:
        return float(value)
    raise FieldError(f"key {key!r} wants {NAMES[hint]}, got {_shown(value)}")


def _read_list(hint: Any, inner: Reader, value: Any, key: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise FieldError(f"key {key!r} wants a list, got {_shown(value)}")
    if hint in NAMES and all(type(v) is hint for v in value):  # token ids: no call an element
        return tuple(value)
    return tuple(inner(v, f"{key}[{i}]") for i, v in enumerate(value))


def _read_object(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FieldError(f"key {key!r} wants an object, got {_shown(value)}")
    return value


def _read_nested(cls: type, value: Any, key: str) -> Any:
    try:
        return from_json(cls, value)
    except FieldError as error:
        raise FieldError(f"key {key!r}: {error}") from None


def _read_enum(cls: type[Enum], value: Any, key: str) -> Enum:
    for member in cls:
        if member.value == value:
            return member
    choices = ", ".join(str(m.value) for m in cls)
    raise FieldError(f"key {key!r} wants one of {choices}, got {_shown(value)}")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
