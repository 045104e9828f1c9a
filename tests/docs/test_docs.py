"""The documentation keeps its word: its commands run, its links lead somewhere, its reference is the docstrings'."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.house import layout

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(text: str) -> list[tuple[str, str]]:
    """(what stands after the fence, the lines) of every fenced block."""
    return [(found[1], found[2]) for found in FENCE.finditer(text)]


def unmarked(text: str) -> list[str]:
    """Shell blocks that neither run in the tests nor say what they need."""
    return [
        lines
        for mark, lines in blocks(text)
        if re.match(r"(ba|z)?sh|console", mark) and not re.fullmatch(r"bash (run|needs: \S.*)", mark)
    ]


EXAMPLE = re.compile(r"^python (examples/\w+\.py).*\n", flags=re.MULTILINE)  # tests/examples runs them, in one process


def runnable(page: Path) -> list[str]:
    """What is to be run of a page, block by block."""
    marked = [lines for mark, lines in blocks(page.read_text(encoding="utf-8")) if mark == "bash run"]
    return [rest for lines in marked if (rest := EXAMPLE.sub("", lines)).strip()]


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to headings."""
    heads = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def broken_links(page: Path) -> list[str]:
    found = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_a_page_marks_its_commands_and_its_links_lead_somewhere(page: Path) -> None:
    assert unmarked(page.read_text(encoding="utf-8")) == []
    assert broken_links(page) == []


def test_faults_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A head: here\n```bash\nls\n```\n```bash needs: \nls\n```\n[a](b.md) [c](#a-head-here) [d](#no)\n"
    )
    assert unmarked(page.read_text()) == ["ls\n", "ls\n"]
    assert broken_links(page) == ["b.md", "#no"]


def test_every_page_is_in_the_index_and_every_runner_in_the_docs() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in PAGES if p.name != "README.md" and f"({p.name})" not in index] == []


def test_commands_that_do_not_run_here_name_things_that_exist(tmp_path: Path) -> None:
    """They are checked as the README's are: make targets, runners and configs exist."""
    for page in PAGES:
        text = re.sub(r"^```bash (run|needs:).*$", "```bash", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        copy = tmp_path / page.name
        copy.write_text(text, encoding="utf-8")
        assert [name for name in EXAMPLE.findall(text) if not (ROOT / name).is_file()] == []
        assert layout.broken_commands(ROOT, str(copy)) == []


def test_the_reference_is_what_the_docstrings_say() -> None:
    done = subprocess.run(
        [sys.executable, "docs/make_api.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def workplace(folder: Path) -> Path:
    """A folder that looks like the checkout and takes what the commands write."""
    for entry in ROOT.iterdir():
        if entry.name not in ("runs", ".git"):
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.mark.timeout(300)  # a page is a whole session at a terminal
@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p)], ids=lambda p: p.name)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    """In their order, each as it stands."""
    roots = os.pathsep.join(str(ROOT / name) for name in ("", "kernels", "models", "runners"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    place = workplace(tmp_path)
    for lines in runnable(page):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", lines],
            cwd=place,
            env={**os.environ, "PATH": path, "PYTHONPATH": roots},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{textwrap.indent(lines, '  ')}{done.stdout[-1500:]}{done.stderr[-3000:]}"
