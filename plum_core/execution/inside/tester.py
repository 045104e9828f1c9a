"""A child that runs test code which cannot be split, against stand-ins for the program's functions and objects.

It is confined like any other child, for test code is written by a model too. It holds the expected values; the
program is in another process and sees only the calls. What comes back is plain data, or a ``Remote``, which no
comparison takes for equal to anything but itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from plum_core.execution.inside import codec, frames, remote, shim
from plum_core.execution.inside.evaluate import LIBRARY
from plum_core.execution.inside.program import describe, load, rebuilt

Ask = Callable[[list[Any]], Any]


class Untransportable(TypeError):
    """The test hands the program something that is neither data nor the program's own: it cannot be split."""


class Remote:
    """A function, class or object of the program."""

    def __init__(self, ask: Ask, number: int, kind: str) -> None:
        object.__setattr__(self, "_remote", (ask, number, kind))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        ask, _, _ = self._remote
        trees = [_encode(arg) for arg in args]
        named = {name: _encode(arg) for name, arg in kwargs.items()}
        value, changes = ask(["call", _encode(self), trees, named])
        for position, changed in changes:
            _refresh(args[position], changed)
        return value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._remote[0](["attr", _encode(self), name])[0]

    def __setattr__(self, name: str, value: Any) -> None:
        self._remote[0](["set", _encode(self), name, _encode(value)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and self._remote[1] == other._remote[1]

    def __hash__(self) -> int:
        return hash(self._remote[1])

    def __iter__(self) -> Any:
        return iter(_special(self, "list"))


def _special(subject: Remote, name: str, *args: Any) -> Any:
    trees = [_encode(arg) for arg in args]
    return subject._remote[0](["special", _encode(subject), trees, name])[0]


def _add_special(name: str) -> None:
    setattr(Remote, f"__{name}__", lambda self, *args: _special(self, name, *args))


for _name in remote.SPECIALS:
    if _name != "list":  # iteration, above
        _add_special(_name)


_callbacks: list[Callable[..., Any]] = []


def _by_handle(value: Any) -> Any:
    """What is no data: the program's own objects go back by number, functions of the test by a negative one."""
    if isinstance(value, Remote):
        return {"h": [value._remote[1]]}
    if callable(value):
        _callbacks.append(value)
        return {"h": [-len(_callbacks)]}
    raise Untransportable(f"a {codec.type_name(value)} of the test's own cannot be handed to the program")


def _encode(value: Any) -> Any:
    return codec.encode(value, _by_handle)


def _refresh(old: Any, new: Any) -> None:
    """Make the mutable ``old`` hold what ``new`` holds."""
    if isinstance(old, (list, bytearray)):
        old[:] = new
    elif isinstance(old, (dict, set)):
        old.clear()
        old.update(new)


def run(fd: int, job: dict[str, Any]) -> None:
    """Run the tests in order: ``[nonce, "t", i, null]`` passed, ``[nonce, "t", i, names, message]`` did not."""
    nonce = job["n"]
    sys.modules["pytest"] = shim.module()

    def ask(request: list[Any]) -> Any:
        frames.write(fd, [nonce, "q", request])
        _, what, *rest = frames.read(fd)
        while what == "b":
            frames.write(fd, [nonce, "q", _call_back(rest[0], rest[1], hydrate)])
            _, what, *rest = frames.read(fd)
        if rest[0] == "e":
            raise rebuilt(*rest[1:])
        _, tree, changes = rest
        return hydrate(tree), [(position, hydrate(new)) for position, new in changes]

    def hydrate(tree: Any) -> Any:
        return codec.decode(tree, lambda body: Remote(ask, int(body[0]), str(body[1])))

    try:
        space = load("", "tests")
        space.update(LIBRARY)
        for name in job["names"]:
            _bind(name, space, ask)
        exec(compile(job["setup"], "<setup>", "exec", 0, True), space)
    except BaseException as problem:
        frames.write(fd, [nonce, "t", -1, *describe(problem)])
        return
    for i, test in enumerate(job["tests"]):
        try:
            exec(compile(test, "<test>", "exec", 0, True), space)
            frames.write(fd, [nonce, "t", i, None])
        except BaseException as problem:
            frames.write(fd, [nonce, "t", i, *describe(problem)])


def _call_back(number: int, args: list[Any], hydrate: Callable[[Any], Any]) -> list[Any]:
    try:
        return ["return", _encode(_callbacks[-1 - number](*map(hydrate, args)))]
    except Exception as problem:
        return ["raise", *describe(problem)]


def _bind(name: str, space: dict[str, Any], ask: Ask) -> None:
    """Stand-ins exist for what the program defines; another name stays undefined, as in one namespace."""
    with suppress(codec.Malformed):
        space[name] = ask(["get", name])[0]
