"""A generator's answer as a reference and tests: read as Python's grammar reads it, and never run.

Each assertion becomes a test of its own that carries the lines it needs. What the policy is asked for (the entry
point, and whatever else the tests call directly) is in no test; helpers of the tests are.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from plum_core.testing.answers.blocks import blocks_of, parse, statements
from plum_core.testing.answers.doctests import has_examples
from plum_core.testing.answers.interface import Check, checks_of, entry_of, interface_of, signature_of
from plum_core.testing.answers.names import free
from plum_core.testing.answers.outline import Outline, is_stub, outline_of
from plum_core.testing.answers.rewrites import NEAR
from plum_core.testing.answers.slices import Frame

MOST_CHARACTERS = 400_000
MOST_TESTS = 256
MOST_LINES = 100  # of one test
MOST_STATEMENTS = 3000  # of all blocks at the top level
MOST_CHECKS = 512  # that are looked at
WHYS = ("", "too-long", "no-code", "language", "syntax", "no-tests", "no-reference")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedAnswer:
    """``why`` is empty where there are a reference and tests, else what is missing (one of ``WHYS``).

    tests: independent of each other; each runs after the program that it tests. signature: what a program must offer
    for the tests to call it, without bodies. dropped: assertions that name nothing of the program or something that
    is nowhere defined, that need more than 100 lines, or that are past the first 256.
    """

    reference: str | None = None
    tests: tuple[str, ...] = ()
    entry_point: str | None = None
    signature: str | None = None
    why: str = ""
    dropped: int = 0


def read_answer(text: str, *, entry_point: str | None = None, prompt: str = "") -> ParsedAnswer:
    """Reads any text and raises nothing.

    entry_point: the name that the tests must call where the instruction fixes it; assertions that do not reach it are
    dropped. prompt: the instruction; of several possible entry points the one that it names is taken.
    """
    if len(text) > MOST_CHARACTERS:
        return ParsedAnswer(why="too-long")
    try:
        return _parsed(text, entry_point, prompt)
    except RecursionError:  # deeper than any program that was meant to be read
        return ParsedAnswer(why="syntax")


def _parsed(text: str, entry_point: str | None, prompt: str) -> ParsedAnswer:
    blocks = blocks_of(text)
    own = [b for b in blocks if not b.foreign]
    if not own:
        return ParsedAnswer(why="language")
    read: list[tuple[Sequence[ast.stmt], str]] = []
    for block in own:
        console = has_examples(block.code) and parse(block.code) is None
        read.append(((), block.code) if console else (statements(block) or (), block.code))
    if sum(len(found) for found, _ in read) > MOST_STATEMENTS:
        return ParsedAnswer(why="too-long")
    outline = outline_of(read)
    checks = list(islice(checks_of(outline), MOST_CHECKS))
    if not checks and not outline.definitions:
        told = any(b.fenced for b in own) or _looks_like_code(text)
        return ParsedAnswer(why="syntax" if told and not any(found for found, _ in read) else "no-code")
    entry = entry_point or entry_of(outline, checks, prompt)
    interface = interface_of(outline, checks, entry, fixed=entry_point is not None)
    tests, dropped = _tests(checks, interface)
    reference = _reference(outline, interface, entry)
    why = "no-reference" if reference is None else "" if tests else "no-tests"
    return ParsedAnswer(
        reference=reference,
        tests=tests,
        entry_point=entry,
        signature=signature_of(outline, interface, checks) or None,
        why=why,
        dropped=dropped,
    )


def _looks_like_code(text: str) -> bool:
    return any(line.startswith(("def ", "class ", "import ", "from ", "assert ")) for line in text.splitlines())


def _tests(checks: Sequence[Check], interface: set[str]) -> tuple[tuple[str, ...], int]:
    found: dict[str, None] = {}
    dropped = 0
    for check in checks:
        text = _test(check, interface)
        if text is None or len(found) >= MOST_TESTS:
            dropped += 1
        else:
            found[text] = None
    return tuple(found), dropped


def _test(check: Check, interface: set[str]) -> str | None:
    """The test's source, or None where it reaches nothing of the program or could not run after it."""
    lines, named = check.lines(interface)
    if not named & interface or len(lines) > MOST_LINES:
        return None
    star = any(isinstance(s, ast.ImportFrom) and s.names[0].name == "*" for s in lines)
    if (free(lines) - interface - {"_near"} and not star) or "pytest" in named:
        return None
    try:
        text = "\n".join(ast.unparse(ast.fix_missing_locations(_messageless(s))) for s in lines)
    except ValueError:  # a number too long to be written out, or a string that no f-string can hold
        return None
    text = NEAR.lstrip() + text if "_near" in named else text
    return text if _compiles(text) else None


def _messageless(statement: ast.stmt) -> ast.stmt:
    return ast.Assert(statement.test) if isinstance(statement, ast.Assert) else statement


def _compiles(text: str) -> bool:
    """Whether it is a whole program: ``return`` outside a function parses, and is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(text, "<test>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return False
    return True


def _reference(outline: Outline, interface: set[str], entry: str | None) -> str | None:
    """What defines the interface, and all that it needs; everything that is defined where there is no test."""
    found = outline.definitions
    if not found or (entry is not None and entry not in found) or (entry is not None and is_stub(found[entry])):
        return None
    wanted = {name for name in interface if name in found} or set(found)
    lines = [s for s in Frame(outline.module).needed(wanted, set()) if not _only_tries(s)]
    try:
        text = "\n".join(ast.unparse(s) for s in lines) + "\n"
    except ValueError:
        return None
    return text if _compiles(text) else None


def _only_tries(statement: ast.stmt) -> bool:
    """``result = solve(3)``: a line that came along because it reads something, and that no definition needs."""
    return isinstance(statement, ast.Expr) and not isinstance(statement.value, ast.Call)
