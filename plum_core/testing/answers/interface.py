"""What the tests of an answer call: its assertions, the entry point, and the signature that a program must offer."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator, Sequence

from plum_core.testing.answers.names import DEFINITIONS, FUNCTIONS, Definition, conjuncts, free, has_check, reads
from plum_core.testing.answers.outline import Outline
from plum_core.testing.answers.slices import Frame


class Check:
    """An assertion in its script."""

    def __init__(self, frame: Frame, at: int, check: ast.stmt) -> None:
        self.check, self._frame, self._at = check, frame, at
        self._slices: dict[frozenset[str], tuple[list[ast.stmt], set[str]]] = {}

    def lines(self, given: set[str]) -> tuple[list[ast.stmt], set[str]]:
        """It and what it needs, where ``given`` comes from elsewhere; and all names that they read."""
        key = frozenset(given)
        if key not in self._slices:
            lines = [*self._frame.needed(reads(self.check), given, self._at), self.check]
            self._slices[key] = lines, set[str]().union(*map(reads, lines))
        return self._slices[key]


def checks_of(outline: Outline) -> Iterator[Check]:
    for script in outline.scripts:
        frame = Frame(script.body)
        if script.whole:
            yield Check(frame, len(script.body) - 1, script.body[-1])
            continue
        for at, statement in enumerate(script.body):
            if isinstance(statement, DEFINITIONS) or not has_check(statement):
                continue
            if isinstance(statement, ast.Assert):
                for part in conjuncts(statement.test):
                    yield Check(frame, at, ast.Assert(part))
            else:
                yield Check(frame, at, statement)


def direct(check: Check, outline: Outline) -> set[str]:
    """Definitions of the answer that the check and its set-up lines name themselves."""
    given = set(outline.definitions)
    return check.lines(given)[1] & given


def entry_of(outline: Outline, checks: Sequence[Check], prompt: str) -> str | None:
    """The definition that most checks name; of equals the one that the prompt or a signature block names, a function
    before a class, the earlier block, the later line. One of a block without assertions goes before the helpers of a
    block with them, where the checks come to it at all. Without definitions: the unknown name most called."""
    found = outline.definitions
    counts: Counter[str] = Counter()
    for check in checks:
        counts.update(direct(check, outline))
    apart = {name for name in found if outline.block_of[name] not in outline.testing}
    reached = {name for check in checks for name in check.lines(set())[1] & apart}
    counts = Counter({name: counts[name] for name in reached}) if reached else counts
    order = {name: at for at, name in enumerate(found)}
    if not counts and found:
        counts.update(
            {name: 0 for name in found if not name.startswith("_") and name != "main"} or dict.fromkeys(found, 0)
        )
    if counts:
        return max(
            counts,
            key=lambda name: (
                counts[name],
                name in prompt,
                name in outline.stubs,
                isinstance(found[name], FUNCTIONS),
                -outline.block_of.get(name, 0),
                order[name],
            ),
        )
    for check in checks:
        lines = check.lines(set())[0]
        unknown = free(lines)
        counts.update(
            {n.func.id for s in lines for n in ast.walk(s) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
            & unknown - {"_near"}
        )
    return max(counts, key=lambda name: (counts[name], name), default=None)


def interface_of(outline: Outline, checks: Sequence[Check], entry: str | None, *, fixed: bool) -> set[str]:
    """The entry point, what checks that do not reach it name instead, and what is built on it in its own block."""
    interface = {entry} if entry else set()
    if fixed or entry not in outline.definitions:
        return interface
    behind: dict[str, bool] = {}  # whether a definition is built on the entry point
    alone = {entry}
    module = Frame(outline.module)
    for check in checks:
        if entry not in check.lines(alone)[1]:
            interface |= direct(check, outline)
        for name in direct(check, outline) - interface - set(behind):
            near = outline.block_of[name] == outline.block_of[entry]
            behind[name] = near and outline.definitions[entry] in module.needed({name}, set())
    return interface | {name for name, on_entry in behind.items() if on_entry}


def signature_of(outline: Outline, interface: set[str], checks: Sequence[Check]) -> str:
    """Heads of the interface's functions, and of classes that they or the tests name, with their public methods."""
    found = outline.definitions
    named = {n for name in interface & set(found) for n in reads(_bare(found[name]))}
    for check in checks:
        named |= check.lines(interface)[1]
    wanted = [n for n in found if n in interface or (n in named and isinstance(found[n], ast.ClassDef))]
    return "\n".join(head(found[name]) for name in wanted)


def head(node: Definition) -> str:
    """The lines that callers see: a function's ``def``, a class with the heads of its methods."""
    lines = ast.unparse(_bare(node)).splitlines()
    return "\n".join(line for line in lines if line.strip() not in ("", "..."))


def _bare(node: Definition) -> Definition:
    """A copy without bodies, private methods and docstrings."""
    bare = copy.deepcopy(node)
    nothing: list[ast.stmt] = [ast.Expr(ast.Constant(...))]
    if isinstance(bare, ast.ClassDef):
        methods = [_bare(m) for m in bare.body if isinstance(m, FUNCTIONS)]
        kept = [m for m in methods if not m.name.startswith("_") or m.name.endswith("__")]
        bare.body = [*(s for s in bare.body if isinstance(s, ast.AnnAssign)), *kept] or nothing
    else:
        bare.body = nothing
    return bare
