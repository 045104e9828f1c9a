"""Many inputs through one function in one run: what is appended to a program, and how its answers are written.

The program answers every input without being told an expected value. Each answer is one token of text; where only
equality counts, a digest of all tokens comes back, else the tokens themselves, in pieces that a message can hold, for
``plus_rules`` to judge outside. One run for a thousand inputs costs one message instead of a thousand.
"""

from __future__ import annotations

import ast
import base64
import json
from collections.abc import Sequence
from typing import Any

SHORT = 512  # characters of a token that is kept as text; a longer one is its digest
LONGEST_VALUE = 100_000  # characters of an answer that must be read back as a value
PIECE = 3000  # characters; the executor hands values of up to 4096 characters back, and base64 takes a third

# Equal tokens for what Python calls equal: 1, 1.0 and True; dicts and sets in any order; subclasses as their base.
# Names are taken from the modules when called, so that a program's own ``sum`` or ``list`` does not get in the way.
HARNESS = (
    r"""
_plum_kept = {}
def _plum_answers(level, mode):
    if (level, mode) in _plum_kept:
        return _plum_kept[level, mode]
    import builtins as b, hashlib, json, signal, time
    below = _plum_answers(0, mode)[0] if level else []
    if below and below[-1][:1] == "!":
        return ["!base inputs have no answer"], False, 0.0, 0.0
    inf, nan = b.float("inf"), b.float("nan")
    inputs = _plum_inputs(json.loads, inf, nan)[level]
    def too_long(*_):
        raise b.TimeoutError
    def number(x):
        if b.isinstance(x, b.float) and not (x == x and x not in (inf, -inf) and x == b.int(x)):
            return b.float.__repr__(x)
        return b.hex(b.int(x))
    def text(x):
        if x is None:
            return "None"
        if b.isinstance(x, (b.bool, b.int, b.float)):
            return number(x)
        if b.isinstance(x, b.str):
            return b.str.__repr__(x)
        if b.isinstance(x, b.list):
            return "[" + ",".join([text(i) for i in x]) + "]"
        if b.isinstance(x, b.tuple):
            return "(" + ",".join([text(i) for i in x]) + ",)"
        if b.isinstance(x, b.dict):
            return "{" + ",".join(b.sorted([text(k) + ":" + text(v) for k, v in x.items()])) + "}"
        if b.isinstance(x, (b.set, b.frozenset)):
            return "{" + ",".join(b.sorted([text(i) for i in x])) + ",}"
        if b.type(x).__module__ == "numpy" and b.hasattr(x, "item") and b.getattr(x, "ndim", 1) == 0:
            return text(x.item())
        return "?" + b.repr(x)[:200]
    def floating(x):
        if b.isinstance(x, (b.list, b.tuple)):
            return b.len(x) > 0 and b.all([b.isinstance(i, b.float) for i in x])
        return b.isinstance(x, b.float)
    def token(x):
        if mode == "found":
            return b.repr(x if b.isinstance(x, b.bool) else x is not None)
        if mode == "value":
            return b.repr(x)[:LONGEST + 1]
        t = text(x)
        if b.len(t) > SHORT:
            t = "#" + hashlib.sha256(t.encode("utf-8", "surrogatepass")).hexdigest()
        floats.append(floating(x))
        return t
    answers, floats, slowest, spent = [], [], 0.0, 0.0
    signal.signal(signal.SIGPROF, too_long)
    for given in inputs:
        began = time.process_time()
        try:
            try:
                signal.setitimer(signal.ITIMER_PROF, INPUT_S, INPUT_S)
                found = ENTRY(*given)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                spent += time.process_time() - began
            answers.append(token(found))
        except b.BaseException as problem:
            answers.append("!" + b.type(problem).__name__ + " at input " + b.repr(b.len(answers)))
            break
        slowest = b.max(slowest, time.process_time() - began)
    _plum_kept[level, mode] = answers, b.any(floats), slowest, spent
    return _plum_kept[level, mode]
def _plum_digest(level, mode):
    import hashlib, json
    answers = _plum_answers(level, mode)[0]
    if answers and answers[-1][:1] == "!":
        return answers[-1]
    return hashlib.sha256(json.dumps(answers).encode()).hexdigest()
def _plum_floats(level):
    return _plum_answers(level, "exact")[1]
def _plum_slowest(mode):
    import builtins
    return builtins.max(_plum_answers(0, mode)[2], _plum_answers(1, mode)[2])
def _plum_spent(mode):
    return _plum_answers(0, mode)[3] + _plum_answers(1, mode)[3]
def _plum_size(level):
    import json
    return json.dumps(_plum_answers(level, "value")[0]).__len__()
def _plum_piece(level, start, stop):
    import base64, json
    return base64.b64encode(json.dumps(_plum_answers(level, "value")[0])[start:stop].encode()).decode()
""".replace("SHORT", str(SHORT))
    .replace("LONGEST", str(LONGEST_VALUE))
    .strip("\n")
)


def with_inputs(code: str, entry: str, levels: Sequence[Sequence[Any]], input_s: float) -> str:
    """``code`` and what answers for ``entry``; ``levels`` are lists of argument lists.

    input_s: CPU seconds for one input; then it counts as an exception. A program that catches it goes on until the
    limit of the whole run.
    """
    harness = HARNESS.replace("ENTRY", entry).replace("INPUT_S", repr(input_s))
    return f"{code}\n\n{harness}\n\n{_inputs(levels)}\n"


def _inputs(levels: Sequence[Sequence[Any]]) -> str:
    packed = json.dumps(levels, allow_nan=True) if _is_json(levels) else ""
    value = f"loads({packed!r})" if packed else repr(levels)
    return f"def _plum_inputs(loads, inf, nan):\n    return {value}"


def _is_json(value: Any) -> bool:
    """Whether JSON gives the same back: no tuples, sets or complex numbers, and no keys but strings."""
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    return value is None or isinstance(value, str | bool | int | float)


def pieces(level: int, size: int) -> list[str]:
    """Calls that ask for ``size`` characters of a level's answers."""
    return [f"_plum_piece({level}, {start}, {start + PIECE})" for start in range(0, size, PIECE)]


def joined(values: Sequence[str | None]) -> list[str]:
    """The tokens of a level from its pieces; none where they are not whole: the program wrote them."""
    try:
        encoded = [ast.literal_eval(value or "0") for value in values]
        tokens = json.loads(b"".join(base64.b64decode(part, validate=True) for part in encoded))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return []
    whole = isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)
    return tokens if whole else []
