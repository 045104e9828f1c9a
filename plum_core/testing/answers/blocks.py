"""The Python in an answer: fenced blocks, or what of the text parses where there is no fence.

Nothing here runs code. Broken blocks are read statement by statement, so an answer that was cut short keeps what
came before the cut.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from dataclasses import dataclass

FENCE = re.compile(r"^[ \t>*-]*?(?P<mark>`{3,}|~{3,})[ \t]*(?P<info>[^`\n]*)$")
OTHER_LANGUAGES = frozenset(
    """bash sh shell zsh console powershell bat cmd text txt plaintext output json yaml yml toml xml html css markdown
    md javascript js jsx typescript ts tsx java kotlin scala groovy c cpp c++ csharp c# cs go golang rust rs ruby rb
    php perl lua r julia swift dart haskell hs elixir erlang clojure ocaml sql matlab fortran pascal asm diff
    dockerfile makefile objective-c objc vb solidity prolog lisp scheme latex tex""".split()  # noqa: SIM905 - a table
)
LIKELY = re.compile(
    r"(?:def|class|import|from|assert|async|if|for|while|with|try|@)\b|@|[A-Za-z_][\w.\[\]\"', ]*\s*=[^=]"
)
GOES_ON = re.compile(r"(?:else|elif|except|finally)\b|[)\]}]")  # at the margin, and yet no statement of its own
OPENS = re.compile(r"^@|[(\[{]\s*(?:#.*)?$|\"\"\"|'''|\\$", re.M)
MOST_JOINED = 40  # pieces of text that are tried together as one statement
MOST_TRIED = 2_000_000  # characters that are given to the parser while a broken block is searched


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced part of an answer, its fences off, or the whole of an answer without fences."""

    language: str
    code: str
    fenced: bool = True

    @property
    def foreign(self) -> bool:
        return self.language in OTHER_LANGUAGES


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks; the text itself where there is none. A block without its closing fence ends with the text."""
    found: list[Block] = []
    mark, language, lines = "", "", list[str]()
    for line in text.splitlines():
        fence = FENCE.match(line)
        if not mark and fence:
            mark, language, lines = fence["mark"], _language(fence["info"]), []
        elif mark and fence and fence["mark"].startswith(mark) and not fence["info"].strip():
            found.append(Block(language, _margin_off(lines)))
            mark = ""
        elif mark:
            lines.append(line)
    if mark and lines:
        found.append(Block(language, _margin_off(lines)))
    return found or [Block("", text, fenced=False)]


def _language(info: str) -> str:
    words = re.findall(r"[\w+#-]+", info.lower())
    return words[0] if words else ""


def _margin_off(lines: list[str]) -> str:
    return textwrap.dedent("\n".join(lines)) + "\n"


def parse(code: str) -> ast.Module | None:
    """The tree, or None where ``code`` is no Python, or too deep to be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\d" in a model's string is no news
        try:
            return ast.parse(code)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return None


def statements(block: Block) -> list[ast.stmt] | None:
    """Its statements; None where nothing of it is Python. Bare words that happen to parse are left out."""
    tree = parse(block.code) or parse(block.code.rstrip() + "\n    ...\n")  # a signature alone has no body
    found = tree.body if tree is not None else _salvaged(block.code)
    kept = [s for s in found if not _bare_words(s)]
    return kept or None


def _bare_words(statement: ast.stmt) -> bool:
    """``Sure`` and ``Note: this`` parse, as a name and as an annotation."""
    if isinstance(statement, ast.AnnAssign):
        return statement.value is None
    return isinstance(statement, ast.Expr) and not isinstance(statement.value, ast.Call | ast.Await)


def _salvaged(code: str) -> list[ast.stmt]:
    """What parses of a broken block: from a line that may begin a statement, the fewest lines that make one."""
    pieces = _pieces(code)
    found: list[ast.stmt] = []
    at = tried = 0
    while at < len(pieces) and tried < MOST_TRIED:
        taken = 1
        most = MOST_JOINED if OPENS.search(pieces[at]) else 1  # only brackets, strings and decorators go on
        for count in range(1, most + 1 if LIKELY.match(pieces[at]) else 1):
            part = "\n".join(pieces[at : at + count])
            tried += len(part) + 100  # a try costs something, however short
            tree = parse(part)
            if tree is not None:
                found += tree.body
                taken = count
                break
        at += taken
    return found


def _pieces(code: str) -> list[str]:
    """Runs of lines, each begun by a line at the margin."""
    pieces: list[list[str]] = []
    for line in code.splitlines():
        starts = bool(line) and not line[0].isspace() and not GOES_ON.match(line)
        if starts or not pieces:
            pieces.append([])
        pieces[-1].append(line)
    return ["\n".join(lines) for lines in pieces]
