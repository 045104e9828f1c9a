"""Code out of prose: fenced blocks, or what there is without fences."""

from __future__ import annotations

import re

from plum_core.testing.filters.source import parse

OPEN = re.compile(r"^[ \t>]*(```+|~~~+)[ \t]*([^\s`{]*)[^\n]*$")
PYTHON = frozenset({"", "python", "python3", "py", "py3", "pycon", "python-repl", "ipython"})
STARTS = re.compile(r"(?:(?:def|class|async def|import|from|assert)\b|@\w)")


def code_blocks(text: str) -> list[str]:
    """The Python blocks in order. Without any fence: the text if it is Python, else its longest part that is."""
    blocks, fenced = [], False
    lines = iter(text.replace("\r\n", "\n").split("\n"))
    for line in lines:
        if found := OPEN.match(line):
            fenced, fence, body = True, found.group(1), list[str]()
            for inside in lines:
                if (bare := inside.strip()).startswith(fence) and not bare.strip(fence[0]):
                    break
                body.append(inside)
            if found.group(2).lower() in PYTHON:
                blocks.append("\n".join(body))
    return blocks if fenced else [part for part in [_unfenced(text)] if part]


def _unfenced(text: str) -> str:
    """From the first line that looks like code to the last one with which it still is Python."""
    if parse(text) is not None:
        return text
    lines = text.split("\n")
    for first in (n for n, line in enumerate(lines) if STARTS.match(line)):
        for last in range(len(lines), first, -1):
            if parse(part := "\n".join(lines[first:last])) is not None:
                return part
    return ""
