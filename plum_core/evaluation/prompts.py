"""A task as a base model's or a chat model's prompt, and the program that their answers make."""

from __future__ import annotations

import ast
import re

from plum_core.evaluation.benchmark import Task

FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*([\w+.-]*)[^\n]*\n(.*?)(?:^[ \t]*(?:```|~~~)[ \t]*$|\Z)", re.S | re.M)
PYTHON = ("", "python", "python3", "py", "python2")


def chat_messages(task: Task) -> list[dict[str, str]]:
    """One user's turn, for a chat template or an endpoint."""
    return [{"role": "user", "content": task.request}]


def cut_at_stops(text: str, stops: tuple[str, ...]) -> str:
    """``text`` up to the first stop word."""
    ends = [found for stop in stops if (found := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def from_completion(task: Task, text: str) -> str:
    """The whole solution of a base model's completion."""
    return (task.prefix if task.continues else "") + cut_at_stops(text, task.stops)


def from_answer(task: Task, text: str) -> str:
    """The whole solution of a chat model's answer: the code block that defines the entry point, else the longest.

    Text without a fence is taken as code. A block that only holds a body, as some models answer, follows ``prefix``.
    """
    blocks = [body for language, body in FENCE.findall(text) if language.lower() in PYTHON]
    entry = task.entry_point.split("(")[0].split(".")[0]
    holding = [block for block in blocks if defines(block, entry)]
    code = holding[-1] if holding else max(blocks, key=len, default=text)
    if task.continues and task.prefix:
        if not defines(code, entry):
            return task.prefix + code
        if not holding or parses(code):
            return _imports(task.prefix) + code
    return code


def defines(code: str, name: str) -> bool:
    """Whether a function or class ``name`` begins in ``code``; true for no name."""
    return not name or re.search(rf"^\s*(?:async\s+def|def|class)\s+{re.escape(name)}\b", code, re.M) is not None


def parses(code: str) -> bool:
    """Whether ``code`` is Python."""
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def _imports(prefix: str) -> str:
    """Import lines and helper definitions that a prefix has before its last function: answers take them for granted."""
    head, found, _ = prefix.rpartition("\ndef ")
    return head + "\n" if found and parses(head) else ""
