"""Which statements another one needs: a slice of a script, backwards from what is wanted."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from plum_core.testing.answers.names import DEFINITIONS, IMPORTS, binds, called, outer, reads, root


@dataclass(frozen=True, slots=True)
class _Line:
    """A statement that others may need, and what is known of it."""

    at: int
    kept: ast.stmt  # an assertion without the ``assert``: its calls may still change what comes after
    binds: set[str]
    reads: set[str]
    fixed: bool  # a definition or an import: there whatever ran before
    defines: str = ""
    always: bool = False
    touches: frozenset[str] = frozenset()  # variables that it binds, or reads and may thereby change
    replaced: frozenset[str] = frozenset()  # names that hold something new after it, whatever they held before
    sharing: frozenset[str] = frozenset()  # names that now hold what another name holds too


class Frame:
    """A script, read once for all slices of it."""

    def __init__(self, body: Sequence[ast.stmt]) -> None:
        self.body = body
        fixed = [isinstance(s, (*DEFINITIONS, *IMPORTS)) for s in body]
        variables = set[str]().union(*(binds(s) for s, f in zip(body, fixed, strict=True) if not f))
        modules = set[str]().union(*(binds(s) for s in body if isinstance(s, IMPORTS)))
        found = [_line(at, s, variables, modules) for at, s in enumerate(body)]
        self._lines = [line for line in found if line is not None]

    def needed(self, wanted: set[str], given: set[str], end: int | None = None) -> list[ast.stmt]:
        """Those of the first ``end`` statements (default: of all) that names in ``wanted`` depend on, in order.

        Definitions and imports are taken for what they bind; any other statement also where it reads a variable that
        is wanted, since it may change it (``account.deposit(5)``). A plain assignment ends the search for what it
        binds. Names in ``given`` come from elsewhere: what defines them is left out.
        """
        end = len(self.body) if end is None else end
        lines = [line for line in reversed(self._lines) if line.at < end and line.defines not in given]
        first = wanted - given
        ever, always = set(first), set[str]()  # names met anywhere; those that functions read, or that share an object
        while True:
            size = len(ever) + len(always)
            live, taken = set(first), list[ast.stmt]()
            for line in lines:
                if line.fixed:
                    if line.always or line.binds & ever:
                        taken.append(line.kept)
                        always |= line.reads - given
                elif line.always or line.touches & live or line.touches & always:
                    taken.append(line.kept)
                    live = (live - line.replaced) | (line.reads - given)
                    always |= line.sharing
                    ever |= live
            ever |= always
            if len(ever) + len(always) == size:
                return taken[::-1]


def _line(at: int, statement: ast.stmt, variables: set[str], modules: set[str]) -> _Line | None:
    """None for what no other statement can need."""
    own = binds(statement)
    if isinstance(statement, DEFINITIONS):
        return _Line(at, statement, own, outer(statement), True, defines=statement.name)
    if isinstance(statement, IMPORTS):
        star = isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*"
        return _Line(at, statement, own, set(), True, always=star)
    read = reads(statement)
    touches, effect = frozenset(own | read & variables), _sets_a_module(statement, modules)
    kept: ast.stmt = statement
    if isinstance(statement, ast.Assert):
        if not any(isinstance(n, ast.Call | ast.NamedExpr) for n in ast.walk(statement.test)):
            return None
        kept = ast.Expr(statement.test)
    if not touches and not effect:
        return None
    return _Line(
        at, kept, own, read, False, always=effect, touches=touches,
        replaced=_replaced(statement, own), sharing=_sharing(statement, own),
    )  # fmt: skip


def _replaced(statement: ast.stmt, own: set[str]) -> frozenset[str]:
    if not isinstance(statement, ast.Assign):
        return frozenset()
    flat = [e for t in statement.targets for e in (t.elts if isinstance(t, ast.Tuple | ast.List) else [t])]
    return frozenset(own if all(isinstance(e, ast.Name) for e in flat) else ())


def _sharing(statement: ast.stmt, own: set[str]) -> frozenset[str]:
    """``b = a`` and ``b = [a]``: what changes ``b`` may change ``a``."""
    if not isinstance(statement, ast.Assign) or any(isinstance(n, ast.Call) for n in ast.walk(statement.value)):
        return frozenset()
    return frozenset(own if reads(statement.value) else ())


def _sets_a_module(statement: ast.stmt, modules: set[str]) -> bool:
    """``random.seed(0)``, ``sys.setrecursionlimit(...)``: a call for its effect."""
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
        return False
    return root(statement.value) in modules and not called(statement.value).startswith("assert")
