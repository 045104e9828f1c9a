"""Loading a program's code in a child, and putting an exception into words that repeat from run to run."""

from __future__ import annotations

import builtins
import re
import sys
import types
from typing import Any

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
MAX_MESSAGE = 300


def describe(problem: BaseException) -> list[Any]:
    """Type names along the exception's ancestry, nearest first, and its message without addresses."""
    try:
        names = [str(kind.__name__)[:100] for kind in type(problem).__mro__[:-1]][:20]
    except Exception:
        names = ["Exception"]
    try:
        message = _ADDRESS.sub("0x", str(problem))[:MAX_MESSAGE]
    except BaseException:
        message = ""
    return [names, message]


def load(code: str, name: str, setup: str = "") -> dict[str, Any]:
    """Execute ``code``, then ``setup``, as the module ``name``; its globals."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    space = module.__dict__
    space["__builtins__"] = builtins
    # dont_inherit: this file's own __future__ import is no business of the program
    exec(compile(code, "<program>", "exec", 0, True), space)
    if setup:
        exec(compile(setup, "<setup>", "exec", 0, True), space)
    return space


def lookup(name: str, space: dict[str, Any]) -> Any:
    """A global of the program, else a built-in. Raises NameError."""
    if name in space:
        return space[name]
    try:
        return getattr(builtins, name)
    except AttributeError:
        raise NameError(f"name '{name}' is not defined") from None


class RemoteError(Exception):
    """An exception of the other side whose type has no built-in ancestor but Exception."""


def rebuilt(names: list[str], message: str) -> BaseException:
    """An exception that was described, as the nearest built-in type of its ancestry."""
    for name in names:
        kind = getattr(builtins, str(name), None)
        if isinstance(kind, type) and issubclass(kind, BaseException) and kind is not Exception:
            try:
                return kind(message)
            except TypeError:  # UnicodeDecodeError and its like want more arguments
                continue
    return RemoteError(message)
