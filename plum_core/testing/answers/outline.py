"""An answer's statements sorted into what defines, what tests and what is neither."""

from __future__ import annotations

import ast
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

from plum_core.testing.answers.doctests import docstrings, has_examples, script_of
from plum_core.testing.answers.names import DEFINITIONS, IMPORTS, Definition, binds, called, has_check, root
from plum_core.testing.answers.parameters import is_fixture
from plum_core.testing.answers.rewrites import Unsupported, plain
from plum_core.testing.answers.scripts import Script, is_test, scripts_of, unrolled

RUNNERS = ("main", "testmod", "run_docstring_examples", "print", "pprint")
FRAMEWORKS = frozenset({"pytest", "doctest", "unittest"})
PLACEHOLDERS = ("solution", "your_module", "your_solution", "my_module", "main", "module", "__main__", "reference")


@dataclass(slots=True)
class Outline:
    """``module``: definitions, imports and other statements of the top level, tests taken out, in order."""

    module: list[ast.stmt] = field(default_factory=list)
    scripts: list[Script] = field(default_factory=list)
    block_of: dict[str, int] = field(default_factory=dict)  # where a name was defined first
    stubs: set[str] = field(default_factory=set)  # signatures that were shown without a body
    testing: set[int] = field(default_factory=set)  # blocks with assertions of their own

    @property
    def definitions(self) -> dict[str, Definition]:
        """By name; the last one holds, unless it is a stub of an earlier one."""
        found: dict[str, Definition] = {}
        for statement in self.module:
            if isinstance(statement, DEFINITIONS):
                found[statement.name] = statement
        return found


def outline_of(blocks: Sequence[tuple[Sequence[ast.stmt], str]]) -> Outline:
    """Of (statements, source) of each block, in the answer's order."""
    outline = Outline()
    bodies: dict[str, int] = {}  # names with a real body so far
    top: list[ast.stmt] = []
    defined = {s.name for statements, _ in blocks for s in statements if isinstance(s, DEFINITIONS)}
    for number, (statements, _) in enumerate(blocks):
        if any(has_check(s) or _method_check(s) or (isinstance(s, DEFINITIONS) and is_test(s)) for s in statements):
            outline.testing.add(number)
        for statement in _unguarded(statements):
            if isinstance(statement, DEFINITIONS) and not is_test(statement):
                outline.block_of.setdefault(statement.name, number)
                if is_stub(statement):
                    outline.stubs.add(statement.name)
                    if statement.name in bodies:
                        continue
                else:
                    bodies[statement.name] = number
            if not (isinstance(statement, IMPORTS) and _own_or_framework(statement, defined)):
                top.append(statement)
    last = {s.name: s for s in top if isinstance(s, DEFINITIONS)}
    top = [s for s in top if not isinstance(s, DEFINITIONS) or last[s.name] is s]
    tests = {s.name: s for s in top if isinstance(s, DEFINITIONS) and is_test(s)}
    calls = [s.value for s in top if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call)]
    _sort(outline, top, tests)
    for name, test in tests.items():
        own = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == name]
        for script in scripts_of(test, outline.module, own):
            before = [s for s in outline.module if not is_fixture(s)]
            outline.scripts.append(Script([*before, *script.body], script.whole))
    _add_examples(outline, blocks)
    outline.module = [s for s in outline.module if not is_fixture(s)]
    return outline


def _sort(outline: Outline, top: Sequence[ast.stmt], tests: dict[str, Definition]) -> None:
    """Module statements, and the top level itself as a script."""
    for statement in top:
        if isinstance(statement, DEFINITIONS):
            if statement.name not in tests:
                outline.module.append(statement)
        elif not _runs_tests(statement, tests) and not (has_check(statement) or _method_check(statement)):
            outline.module.append(statement)
    script: list[ast.stmt] = []
    for statement in top:
        if _runs_tests(statement, tests) or (isinstance(statement, DEFINITIONS) and statement.name in tests):
            continue
        if isinstance(statement, DEFINITIONS):
            script.append(statement)
            continue
        try:
            script += plain([copy.deepcopy(statement)])
        except Unsupported:
            continue
    outline.scripts.append(Script(unrolled(script)))


def _add_examples(outline: Outline, blocks: Sequence[tuple[Sequence[ast.stmt], str]]) -> None:
    before = [s for s in outline.module if not is_fixture(s)]
    texts = [text for statement in before for text in docstrings(statement)]
    texts += [source for statements, source in blocks if not statements and has_examples(source)]
    for text in dict.fromkeys(texts):
        script = script_of(text)
        outline.scripts.append(Script([*before, *(s for s in script if not _own_or_framework(s, set()))]))


def _unguarded(statements: Sequence[ast.stmt]) -> list[ast.stmt]:
    """``if __name__ == "__main__":`` goes; the assertions that stand in it stay, with what leads to them."""
    found: list[ast.stmt] = []
    for statement in statements:
        if isinstance(statement, ast.If) and "__name__" in ast.dump(statement.test):
            if any(has_check(s) or _method_check(s) for s in statement.body):
                found += statement.body
            else:
                found += [s for s in statement.body if _bare_call(s)]
        else:
            found.append(statement)
    return found


def _bare_call(statement: ast.stmt) -> bool:
    """``check(solve)``: it may be what gives a test function its argument."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Call)
        and isinstance(statement.value.func, ast.Name)
        and any(word in statement.value.func.id.lower() for word in ("test", "check", "verify"))
    )


def _runs_tests(statement: ast.stmt, tests: dict[str, Definition]) -> bool:
    """``unittest.main()``, ``test_x()``, ``print(...)``: they set nothing up."""
    if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)):
        return False
    call = statement.value
    return called(call) in RUNNERS or root(call) in tests or root(call) in FRAMEWORKS


def _method_check(statement: ast.stmt) -> bool:
    return any(isinstance(n, ast.With) and called_with(n) for n in ast.walk(statement))


def called_with(node: ast.With) -> bool:
    call = node.items[0].context_expr
    return isinstance(call, ast.Call) and called(call) in ("raises", "assertRaises", "assertRaisesRegex")


def is_stub(node: Definition) -> bool:
    """A body of a docstring, ``...``, ``pass`` or a raise that says "not implemented"; a class of such methods."""
    if isinstance(node, ast.ClassDef):
        methods = [m for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef)]
        return bool(methods) and all(is_stub(m) for m in methods)
    return all(
        isinstance(s, ast.Pass)
        or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        or (isinstance(s, ast.Raise) and "NotImplemented" in ast.dump(s))
        for s in node.body
    )


def _own_or_framework(statement: ast.stmt, defined: set[str]) -> bool:
    """An import of the answer's own names from a file that is not there, or of what ran the tests."""
    if isinstance(statement, ast.ImportFrom):
        top = (statement.module or "").partition(".")[0]
        return (
            top in FRAMEWORKS - {"unittest"}
            or statement.level > 0
            or top in PLACEHOLDERS
            or (bool(binds(statement)) and binds(statement) <= defined)
        )
    if isinstance(statement, ast.Import):
        return binds(statement) <= {"pytest", "doctest"} | set(PLACEHOLDERS)
    return False
