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

from plum_core.execution.inside import codec, frames, remote, shim, words
from plum_core.execution.inside.evaluate import LIBRARY
from plum_core.execution.inside.program import describe, load, rebuilt

Ask = Callable[[list[Any]], Any]


class Untransportable(TypeError):
    """The test hands the program something that is neither data nor the program's own: it cannot be split."""


_CHANGES = words("append extend insert remove clear sort reverse add discard update pop popitem")
# What an answer may be asked for though it is no data. Nothing that hands it the expected value: x - 3 == 0.
_OF_OBJECTS = words("iter next str repr bool type isinstance getitem setitem delitem")
_ASKS_DATA = frozenset(
    name
    for kind in (str, bytes, int, float, complex, list, tuple, dict, set, frozenset)
    for name in dir(kind)
    if not name.startswith("__") and name not in _CHANGES
)


class Remote:
    """A function, class or object of the program.

    ``trusted`` tells what a test may ask of it. A global, and what a call of a capitalised global returns (a test that
    writes ``Stack()`` means an object), may be asked anything. What another call returned is an answer: it may be
    called, indexed, iterated and changed, for what comes of that is compared as data. But where the test asks it what
    one asks of data, by ``len``, ``in``, ``-`` or ``.startswith``, it has to be data; an object of the program's could
    say yes to each such question. This is decided by the test's words, never by what came back.
    """

    def __init__(self, ask: Ask, number: int, trusted: bool, builds: bool) -> None:
        object.__setattr__(self, "_remote", (ask, number, trusted, builds))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        ask, _, _, builds = self._remote
        trees = [_encode(arg) for arg in args]
        named = {name: _encode(arg) for name, arg in kwargs.items()}
        value, changes, *same = ask(["call", _encode(self), trees, named])
        for position, changed in changes:
            _refresh(args[position], changed)
        if same and same[0] in range(len(args)):
            return args[same[0]]
        return value._as(trusted=True) if builds and isinstance(value, Remote) else value

    def _as(self, *, trusted: bool, builds: bool = False) -> Remote:
        ask, number, _, _ = self._remote
        return Remote(ask, number, trusted, builds)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if not self._remote[2] and name in _ASKS_DATA:
            raise TypeError(f"the test treats an object of the program as data: .{name}")
        return self._remote[0](["attr", _encode(self), name])[0]

    def __setattr__(self, name: str, value: Any) -> None:
        self._remote[0](["set", _encode(self), name, _encode(value)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and self._remote[1] == other._remote[1]

    def __hash__(self) -> int:
        return hash(self._remote[1])

    def __iter__(self) -> Any:
        return _drawn(_special(self, "iter"))


def _drawn(iterator: Any) -> Any:
    """One element a request: an iterator of the program's may have no end."""
    while True:
        try:
            item = _special(iterator, "next")
        except StopIteration:
            return
        yield item


def _is_instance(value: Any, kinds: Any) -> bool:
    """isinstance, for a test whose classes may be the program's: of its own classes a program is the judge anyway."""
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    theirs = [kind for kind in kinds if isinstance(kind, Remote)]
    if isinstance(value, Remote):
        return any(_special(kind, "isinstance", value) for kind in theirs)
    return isinstance(value, tuple(kind for kind in kinds if not isinstance(kind, Remote)))


def _type(*args: Any) -> Any:
    return _special(args[0], "type") if len(args) == 1 and isinstance(args[0], Remote) else type(*args)


def _special(subject: Remote, name: str, *args: Any) -> Any:
    if name not in _OF_OBJECTS and not subject._remote[2]:
        raise TypeError(f"the test treats an object of the program as data: {name}")
    trees = [_encode(arg) for arg in args]
    return subject._remote[0](["special", _encode(subject), trees, name])[0]


def _add_special(name: str) -> None:
    setattr(Remote, f"__{name}__", lambda self, *args: _special(self, name, *args))


for _name in remote.SPECIALS:
    if _name not in ("iter", "type", "isinstance"):  # above
        _add_special(_name)


_callbacks: list[Callable[..., Any]] = []


def _by_handle(value: Any) -> Any:
    """What is no data: the program's own objects go back by number, functions of the test by a negative one."""
    if isinstance(value, Remote):
        return {"h": [value._remote[1]]}  # before callable(): a Remote is that too
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


def run(job: dict[str, Any], fd: int, _: int) -> None:
    """Run the tests in order: ``[nonce, "t", i, null]`` passed, ``[nonce, "t", i, names, message]`` did not.

    These, and the requests for the program, go over the socket ``fd``.
    """
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
        _, tree, changes, *same = rest
        return hydrate(tree), [(position, hydrate(new)) for position, new in changes], *same

    def hydrate(tree: Any) -> Any:
        return codec.decode(tree, lambda body: Remote(ask, int(body[0]), trusted=False, builds=False))

    try:
        space = load("", "tests")
        space.update(LIBRARY, isinstance=_is_instance, type=_type)
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
        value = ask(["get", name])[0]
        if isinstance(value, Remote):
            value = value._as(trusted=True, builds=name[:1].isupper())
        space[name] = value
