"""A generator's answer, which is text, to a reference and tests that stand alone. Nothing here runs any of it."""

from __future__ import annotations

import ast

from plum_core.testing.answers.interface import head
from plum_core.testing.answers.names import DEFINITIONS
from plum_core.testing.answers.parse import ParsedAnswer, read_answer
from plum_core.testing.filters.config import Candidate
from plum_core.testing.filters.source import parse

REASON_OF = {"": "", "no-tests": "no-tests"}  # whatever else is missing, there is no reference

__all__ = ["ParsedAnswer", "parse_answer", "read_answer", "signature_of"]


def parse_answer(instruction_id: str, text: str) -> Candidate:
    """The candidate that an answer holds, or one that says ``why`` there is none."""
    found = read_answer(text)
    return Candidate(
        instruction_id=instruction_id,
        reference=found.reference or "",
        tests=found.tests,
        entry_point=found.entry_point or "",
        why=REASON_OF.get(found.why, "no-reference"),
    )


def signature_of(reference: str, entry_point: str) -> str:
    """The line that a policy is shown: ``def f(x: int) -> int:``, of a class its methods' lines too.

    Raises ValueError where the reference defines no such name.
    """
    tree = parse(reference)
    found = [n for n in (tree or ast.Module([], [])).body if isinstance(n, DEFINITIONS) and n.name == entry_point]
    if not found:
        raise ValueError(f"the reference defines no {entry_point!r}")
    return head(found[-1])
