"""Configs of the runners: frozen dataclasses, filled from TOML files, then from flags, checked before anything runs.

Values come from the dataclass's defaults, then each ``--config file.toml`` in turn, then dotted flags such as
``--sampling.temperature 0.8``. A key or flag that the dataclass does not have is refused with the nearest name.
``python runner.py --help`` shows every field with its default; ``--dry-run`` prints what was resolved and stops.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import json
import os
import re
import sys
import tomllib
import traceback
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import tyro

C = TypeVar("C")
COMMON = """
--config FILE   TOML with the keys below, as tables; may be given again, later files win
--dry-run       print the resolved settings as TOML and stop
--debug         show the traceback of an error that is otherwise one sentence"""
USER_ERROR_STATUS = 2
NAMES = {str: "a string", int: "an integer", float: "a number", bool: "true or false", Path: "a path"}


def parse(
    cls: type[C], argv: Sequence[str] | None = None, *, doc: str = "", presets: Mapping[str, Path] | None = None
) -> C:
    """The config that files and flags give. ``presets``: ``{"smoke": path}`` lets ``--smoke`` stand for its file.

    Raises ValueError or FileNotFoundError in one sentence for a bad file, key, flag or value; SystemExit(0)
    after ``--help`` and ``--dry-run``.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    presets = presets or {}
    files, flags, dry_run = _split(words, presets)
    tree, places = _read_files(files, cls)
    _check_flags(cls, flags)
    config = _apply_flags(cls, _unchecked(cls, tree), flags, places, doc + _common_help(presets))
    if dry_run:
        print(to_toml(config), end="")
        raise SystemExit(0)
    return config


def main(
    run: Callable[[C], int | None],
    cls: type[C],
    argv: Sequence[str] | None = None,
    *,
    doc: str = "",
    presets: Mapping[str, Path] | None = None,
    errors: tuple[type[Exception], ...] = (),
) -> int:
    """``run`` on the parsed config; its exit status.

    ValueError, OSError and ``errors`` are the caller's mistakes: one sentence on stderr and status 2. Anything
    else is ours and keeps its traceback. Under torchrun only rank 0 speaks of a bad config, which all ranks share.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    mistakes: tuple[type[Exception], ...] = (ValueError, OSError, *errors)
    rank, parsed = int(os.environ.get("RANK", "0")), False
    try:
        config = parse(cls, [w for w in words if w != "--debug"], doc=doc, presets=presets)
        parsed = True
        return run(config) or 0
    except mistakes as error:
        if "--debug" in words:
            traceback.print_exc()
        elif parsed or rank == 0:
            print(f"error{f' on rank {rank}' if rank else ''}: {sentence(error)}", file=sys.stderr)
        return USER_ERROR_STATUS
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; the same command goes on from here", file=sys.stderr)
        return 130


def sentence(error: BaseException) -> str:
    """An error's message on one line; the operating system's errors with the file first."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def plain(config: Any) -> dict[str, Any]:
    """A config as nested JSON values, in the order of its fields."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return plain(value)
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``(dotted key, value)`` of every leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def to_toml(config: Any) -> str:
    """A config as TOML that ``--config`` reads back; what is None stays out, under a comment."""

    def table(tree: Mapping[str, Any], name: str) -> Iterator[str]:
        if name:
            yield f"\n[{name}]"
        for key, value in tree.items():
            if not isinstance(value, Mapping):
                yield f"# {key} is not set" if value is None else f"{key} = {json.dumps(value)}"
        for key, value in tree.items():
            if isinstance(value, Mapping):
                yield from table(value, f"{name}.{key}" if name else key)

    return "\n".join(table(plain(config), "")).lstrip("\n") + "\n"


def _common_help(presets: Mapping[str, Path]) -> str:
    return "\n" + COMMON + "".join(f"\n--{name:<14}the settings of {path}" for name, path in presets.items())


def _split(words: list[str], presets: Mapping[str, Path]) -> tuple[list[Path], list[str], bool]:
    """Config files in order, the other flags, and whether this is a dry run."""
    files: list[Path] = []
    flags: list[str] = []
    rest = iter(words)
    for word in rest:
        name, _, value = word.partition("=")
        if name == "--config":
            value = value or next(rest, "")
            if not value or value.startswith("--"):
                raise ValueError("--config needs the path of a TOML file after it")
            files.append(Path(value))
        elif word.removeprefix("--") in presets and word.startswith("--"):
            files.append(presets[word.removeprefix("--")])
        elif word != "--dry-run":
            flags.append(word)
    return files, flags, "--dry-run" in words


def _read_files(files: list[Path], cls: type) -> tuple[dict[str, Any], dict[str, str]]:
    """The merged tree of checked values, and for every dotted key the file that set it last."""
    merged: dict[str, Any] = {}
    places: dict[str, str] = {}
    for path in files:
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(f"config {path} does not exist: runners/configs holds those that ship") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"config {path} is not TOML: {error}") from None
        checked = _coerce_table(cls, tree, "", str(path))
        _merge(merged, checked)
        places.update((key, str(path)) for key, _ in flatten(checked))
    return merged, places


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _coerce_table(cls: type, tree: Mapping[str, Any], prefix: str, place: str) -> dict[str, Any]:
    """The values of a TOML table as the types of ``cls``; unknown keys and wrong types are refused."""
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if key not in names:
            raise ValueError(f"{place}: unknown key {prefix}{key}{nearest(key, names, prefix)}")
        out[key] = _coerce(hints[key], value, prefix + key, place)
    return out


def _coerce(hint: Any, value: Any, key: str, place: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _coerce(next(a for a in args if a is not type(None)), value, key, place)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{place}: {key} wants a table [{key}], got {value!r}")
        return _coerce_table(typing.cast(type, hint), value, f"{key}.", place)
    if origin is tuple and isinstance(value, list):
        return tuple(_coerce(args[0], v, f"{key}[{i}]", place) for i, v in enumerate(value))
    if origin is typing.Literal:
        return _one_of(args, value, key, place)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(_one_of([m.value for m in hint], value, key, place))
    if type(value) is hint:
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    raise ValueError(f"{place}: {key} wants {NAMES.get(hint, 'a list')}, got {value!r}")


def _one_of(choices: Sequence[Any], value: Any, key: str, place: str) -> Any:
    if value not in choices:
        raise ValueError(f"{place}: {key} wants one of {', '.join(map(str, choices))}, got {value!r}")
    return value


def nearest(name: str, known: Sequence[str], prefix: str = "") -> str:
    """``; did you mean X?``, or the whole list where nothing is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else f"; known here: {', '.join(known)}"


def _unchecked(cls: type[C], tree: Mapping[str, Any], base: Any = None) -> C:
    """An instance that skipped its own checks: flags may yet mend what the files say, or fill what they leave."""
    config = object.__new__(cls)
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        value: Any = tyro.MISSING
        if base is not None:
            value = getattr(base, f.name)
        elif f.default is not dataclasses.MISSING:
            value = f.default
        elif f.default_factory is not dataclasses.MISSING:
            value = f.default_factory()
        hint = hints[f.name]
        if dataclasses.is_dataclass(hint):
            inner = None if value is tyro.MISSING else value
            value = _unchecked(typing.cast(type, hint), tree.get(f.name, {}), inner)
        elif f.name in tree:
            value = tree[f.name]
        object.__setattr__(config, f.name, value)
    return config


def flag_names(cls: type, prefix: str = "") -> list[str]:
    """The dotted name of every field, nested ones included."""
    hints = typing.get_type_hints(cls)
    names: list[str] = []
    for f in dataclasses.fields(cls):
        hint = hints[f.name]
        inner = dataclasses.is_dataclass(hint)
        names += flag_names(typing.cast(type, hint), f"{prefix}{f.name}.") if inner else [prefix + f.name]
    return names


def _check_flags(cls: type, flags: Sequence[str]) -> None:
    known = flag_names(cls)
    for word in flags:
        if not word.startswith("--") or word == "--help":
            continue
        name = word[2:].partition("=")[0].replace("-", "_")
        positive = re.sub(r"(^|\.)no_([^.]+)$", r"\1\2", name)
        if name not in known and positive not in known:
            hint = nearest(name, known, "--") if difflib.get_close_matches(name, known, n=1) else "; see --help"
            raise ValueError(f"unknown flag {word.partition('=')[0]}{hint}")


def _apply_flags(cls: type[C], default: C, flags: Sequence[str], places: Mapping[str, str], doc: str) -> C:
    complaints = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaints):
            return tyro.cli(
                cls,
                default=default,
                args=list(flags),
                description=doc,
                use_underscores=True,
                prog=Path(sys.argv[0]).name,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
    message = _unboxed(complaints.getvalue())
    on_line = {word[2:].partition("=")[0].replace("-", "_") for word in flags if word.startswith("--")}
    in_files = {key: place for key, place in places.items() if key not in on_line}
    raise ValueError(message + _set_in(message, in_files)) from None


def _unboxed(box: str) -> str:
    """The first paragraph inside the box that tyro draws around an error."""
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()[1:]]
    rule = next((i for i, line in enumerate(lines) if line.startswith("──")), len(lines))
    text = " ".join(" ".join(lines[:rule]).split())
    return text.removeprefix("Error parsing ").rstrip(".")


def _set_in(message: str, places: Mapping[str, str]) -> str:
    """Which file set the keys that the message speaks of; a key that a flag set has no place here."""
    found = [
        f"{key} is set in {place}" for key, place in places.items() if re.search(rf"\b{key.split('.')[-1]}\b", message)
    ]
    return f" ({', '.join(found)})" if found else ""
