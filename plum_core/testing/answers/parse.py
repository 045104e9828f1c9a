"""All blocks of an answer together: what is the reference, what are tests, and what do they call?"""

from __future__ import annotations

import ast
import symtable
import sys
from collections import Counter
from collections.abc import Sequence

from plum_core.testing.answers.fences import code_blocks
from plum_core.testing.answers.slices import independent
from plum_core.testing.answers.styles import (
    bodies,
    doctests,
    examples,
    fixtures,
    is_test_class,
    is_test_function,
    plain,
)
from plum_core.testing.filters.config import Candidate
from plum_core.testing.filters.source import DEFINITIONS, FUNCTIONS, definition, parse

AT_HAND = frozenset(sys.stdlib_module_names) | {"numpy"}
OF_TESTS = frozenset({"unittest", "pytest", "doctest"})


def parse_answer(instruction_id: str, text: str) -> Candidate:
    """The candidate that an answer holds, or one that says ``why`` there is none.

    The reference: imports, definitions and constants of all blocks, a later definition in the place of an earlier one
    of its name. Tests: asserts, unittest, pytest and doctest, each assert for itself. What else a block does is left
    out: prints, input, ``if __name__ == "__main__"`` but for its asserts. The entry point is what most tests call.
    """
    try:
        return _parse(instruction_id, text)
    except (RecursionError, MemoryError):
        return Candidate(instruction_id=instruction_id, why="no-reference")


def _parse(instruction_id: str, text: str) -> Candidate:
    kept: dict[str, ast.stmt] = {}
    runs: list[list[ast.stmt]] = []
    solving = set[str]()  # what blocks define that test nothing
    for block in code_blocks(text):
        tree = parse(block)
        if tree is None:
            if ">>>" in block:
                runs.append(examples(block))
            continue
        before = len(runs)
        _sort(tree, kept, runs)
        if len(runs) == before:
            solving |= {node.name for node in tree.body if isinstance(node, DEFINITIONS)}
    code = [node for node in kept.values() if not _imports_ourselves(node, kept)]
    if not any(isinstance(node, DEFINITIONS) for node in code):
        return Candidate(instruction_id=instruction_id, why="no-reference")
    names = [node.name for node in code if isinstance(node, DEFINITIONS)]
    run_of_docs = doctests(ast.Module(code, []))
    tests = [test for run in [*runs, *run_of_docs] for test in independent(plain(run), frozenset(kept))]
    entry = _entry([name for name in names if name in solving], tests, kept) or _entry(names, tests, kept)
    why = "no-tests" if not tests else ("" if entry else "no-entry-point")
    ours, theirs = _parted(code, entry)
    tests = [_with_helpers(test, theirs) for test in tests]
    return Candidate(
        instruction_id=instruction_id,
        reference=_text(ours),
        tests=tuple(tests),
        entry_point=entry,
        why=why,
    )


def _sort(tree: ast.Module, kept: dict[str, ast.stmt], runs: list[list[ast.stmt]]) -> None:
    """Put a block's statements with the reference (``kept``, by the name that they bind) or with the tests."""
    read = frozenset().union(*map(_globals, (node for node in tree.body if isinstance(node, DEFINITIONS))))
    straight: list[ast.stmt] = []
    prepared = fixtures(tree.body)
    for node in tree.body:
        if is_test_class(node) or is_test_function(node):
            runs.extend(bodies(node, prepared))
        elif isinstance(node, FUNCTIONS) and node.name in prepared:
            continue
        elif isinstance(node, DEFINITIONS):
            kept.pop(node.name, None)
            kept[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            if not OF_TESTS & {_module(node)}:
                kept[ast.unparse(node)] = node
        elif isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            straight += node.body
        else:
            if isinstance(node, ast.Assign | ast.AnnAssign) and _binds(node) & read:
                kept[" ".join(sorted(_binds(node)))] = node  # a constant of the block's definitions
            straight.append(node)
    if any(isinstance(inner, ast.Assert) for node in straight for inner in ast.walk(node)):
        runs.append(straight)
    if checks := _check_calls(straight, kept):
        runs.append(checks)


def _globals(node: ast.stmt) -> frozenset[str]:
    """Names of the module that a definition reads."""
    found, tables = set[str](), [symtable.symtable(ast.unparse(node), "answer", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        found |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and s.is_global()}
    return frozenset(found)


def _check_calls(straight: Sequence[ast.stmt], kept: dict[str, ast.stmt]) -> list[ast.stmt]:
    """HumanEval's form: the asserts of ``check``, for the function that ``check(f)`` hands it."""
    out: list[ast.stmt] = []
    for node in straight:
        call = node.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
        if call is None or not isinstance(call.func, ast.Name) or len(call.args) != 1:
            continue
        check = kept.get(call.func.id)
        if not isinstance(check, FUNCTIONS) or len(check.args.args) != 1 or not isinstance(call.args[0], ast.Name):
            continue
        if any(isinstance(inner, ast.Assert) for inner in ast.walk(check)):
            renamed = _Renamed(check.args.args[0].arg, call.args[0].id)
            out += [renamed.visit(statement) for statement in check.body]
            del kept[call.func.id]
    return out


class _Renamed(ast.NodeTransformer):
    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self.new, node.ctx) if node.id == self.old else node


def _module(node: ast.stmt) -> str:
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0]
    return node.names[0].name.split(".")[0] if isinstance(node, ast.Import) else ""


def _imports_ourselves(node: ast.stmt, kept: dict[str, ast.stmt]) -> bool:
    """``from solution import f`` in a block of tests, where f stands in another block."""
    if not isinstance(node, ast.ImportFrom) or _module(node) in AT_HAND:
        return False
    return all(alias.name in kept or alias.name == "*" for alias in node.names)


def _parted(code: Sequence[ast.stmt], entry: str) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """What the entry point needs, imports included, and what only tests can want: another program does not have it."""
    wanted, before = {entry}, set[str]()
    while wanted != before:
        before = set(wanted)
        for node in code:
            if _binds(node) & wanted:
                wanted |= _mentioned(node)
    needed = [node for node in code if _binds(node) & wanted or _module(node)]
    return needed, [node for node in code if node not in needed]


def _binds(node: ast.stmt) -> set[str]:
    if isinstance(node, DEFINITIONS):
        return {node.name}
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _mentioned(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _with_helpers(test: str, helpers: Sequence[ast.stmt]) -> str:
    """``test`` after the definitions that it needs and a program will not have."""
    chosen, wanted = list[ast.stmt](), _mentioned(ast.parse(test))
    for node in reversed(helpers):
        if _binds(node) & wanted:
            chosen.append(node)
            wanted |= _mentioned(node)
    return _text(chosen[::-1]) + test


def _text(statements: Sequence[ast.stmt]) -> str:
    return "".join(ast.unparse(ast.fix_missing_locations(node)) + "\n" for node in statements)


def _entry(names: Sequence[str], tests: Sequence[str], kept: dict[str, ast.stmt]) -> str:
    """The definition of ``names`` that most tests come to, through others if need be; of equals the last one, which is
    rarely a helper."""
    found: Counter[str] = Counter()
    for test in tests:
        waiting, seen = list(_mentioned(ast.parse(test))), set[str]()
        while waiting:
            name = waiting.pop()
            if name in names:
                found[name] += 1
            elif name in kept and name not in seen:
                seen.add(name)
                waiting += _mentioned(kept[name])
    return max(names, key=lambda name: (found[name], names.index(name))) if found else ""


def signature_of(reference: str, entry_point: str) -> str:
    """The line that a policy is shown: ``def f(x: int) -> int:``, of a class its methods' lines too.

    Raises ValueError where the reference defines no such name.
    """
    tree = parse(reference)
    node = None if tree is None else definition(tree, entry_point)
    if node is None:
        raise ValueError(f"the reference defines no {entry_point!r}")
    if isinstance(node, FUNCTIONS):
        return _head(node)
    methods = [f"    {_head(inner)}" for inner in node.body if isinstance(inner, FUNCTIONS)]
    return "\n".join([f"class {node.name}:", *methods])


def _head(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    word = "async def" if isinstance(function, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    return f"{word} {function.name}({ast.unparse(function.args)}){returns}:"
