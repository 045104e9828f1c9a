"""The program's half of tests that cannot be split: it serves the tester's requests, one at a time.

A request names a global or an object by number; values travel by copy (see codec), everything else as a handle.
After a call, arguments that the program changed in place are sent back, so that the tester sees the change, and which
argument the answer is, so that ``f(x) is x`` holds where it does. A function of the test's that was handed over is
called back: ``[nonce, "b", number, args]``, to which the tester answers ``["return", value]`` or
``["raise", names, message]``; until then it may send further requests.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from plum_core.execution.inside import codec, frames
from plum_core.execution.inside.program import describe, rebuilt

# Operations that a test may apply to an object of the program. No comparison: its answer would be the object's own.
SPECIALS: dict[str, Callable[..., Any]] = {
    "len": len,
    "bool": bool,
    "str": str,
    "repr": repr,
    "iter": iter,
    "next": next,
    "type": type,
    "isinstance": lambda kind, value: isinstance(value, kind),
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "delitem": operator.delitem,
    "contains": operator.contains,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
}


class Session:
    """The program's objects that the tester holds handles of, and the socket to it."""

    def __init__(self, fd: int, nonce: str, space: dict[str, Any]) -> None:
        self._fd = fd
        self._nonce = nonce
        self._space = space
        self._held: list[Any] = []

    def handle(self, value: Any) -> Any:
        """The tree that stands for ``value``: the same number for the same object."""
        number = next((i for i, held in enumerate(self._held) if held is value), len(self._held))
        if number == len(self._held):
            self._held.append(value)
        return {"h": [number]}

    def encode(self, value: Any) -> Any:
        return codec.encode(value, self.handle)

    def decode(self, tree: Any) -> Any:
        return codec.decode(tree, lambda body: self._callback(body[0]) if body[0] < 0 else self._held[body[0]])

    def _callback(self, number: int) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            frames.write(self._fd, [self._nonce, "b", number, [self.encode(arg) for arg in args]])
            kind, *rest = self.serve()
            if kind == "raise":
                raise rebuilt(*rest)
            return self.decode(rest[0])

        return call

    def serve(self) -> list[Any]:
        """Answer requests until one is the answer to a callback, and return that. Raises ChannelClosed at the end."""
        while True:
            request = frames.read(self._fd)
            if request[0] in ("return", "raise"):
                return list(request)
            try:
                answer = [self._nonce, "a", "v", *_perform(request, self, self._space)]
            except frames.ChannelClosed:
                raise
            except BaseException as problem:
                answer = [self._nonce, "a", "e", *describe(problem)]
            frames.write(self._fd, answer)


def serve(fd: int, nonce: str, space: dict[str, Any]) -> None:
    """Answer requests until the socket closes: ``[nonce, "a", "v", value, changes]``, or ``[.., "e", names, text]``.

    A call's answer ends with the position of the argument that the value is, or -1.
    """
    with suppress(frames.ChannelClosed):
        Session(fd, nonce, space).serve()


def _perform(request: list[Any], objects: Session, space: dict[str, Any]) -> list[Any]:
    kind, *rest = request
    if kind == "get":
        return [objects.encode(space[rest[0]]) if rest[0] in space else {"missing": 1}, []]
    subject = objects.decode(rest[0])
    if kind == "attr":
        return [objects.encode(getattr(subject, rest[1])), []]
    if kind == "set":
        setattr(subject, rest[1], objects.decode(rest[2]))
        return [None, []]
    args = [objects.decode(arg) for arg in rest[1]]
    if kind == "special":
        return [objects.encode(SPECIALS[rest[2]](subject, *args)), []]
    kwargs = {name: objects.decode(arg) for name, arg in rest[2].items()}
    value = subject(*args, **kwargs)
    same = next((i for i, arg in enumerate(args) if arg is value), -1)
    return [objects.encode(value), _changes(rest[1], args, objects), same]


def _changes(before: list[Any], args: list[Any], objects: Session) -> list[Any]:
    """``[position, tree]`` of each argument that the call changed in place."""
    after = [
        objects.encode(arg) if isinstance(arg, (list, dict, set, bytearray)) else tree
        for arg, tree in zip(args, before, strict=True)
    ]
    return [[i, new] for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
