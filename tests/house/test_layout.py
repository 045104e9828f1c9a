"""The tree keeps its rules, and each rule is shown a tree that breaks it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.house import layout

DOCUMENTS = ("README.md", "CONTRIBUTING.md")


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")


def test_imports_run_one_way() -> None:
    assert layout.wrong_way_imports(ROOT) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kernels/plum_kernels/a.py", "import plum_models.config\n"),
        ("models/plum_models/a.py", "def f():\n    from plum_core.records import Sample\n"),
        ("plum_core/a.py", "from runners import plum\n"),
        ("plum_core/b.py", "from tests.conftest import ROOT\n"),
    ],
)
def test_an_import_against_the_arrows_is_found(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, name, text)
    assert [line.split()[0] for line in layout.wrong_way_imports(tmp_path)] == [name]


def test_source_roots_are_not_packages(tmp_path: Path) -> None:
    assert layout.stray_inits(ROOT) == []
    write(tmp_path, "kernels/__init__.py", "")
    assert layout.stray_inits(tmp_path) == ["kernels/__init__.py"]


def test_no_file_is_long(tmp_path: Path) -> None:
    assert layout.long_files(ROOT) == []
    write(tmp_path, "plum_core/a.py", "x = 1\n" * (layout.MOST_LINES + 1))
    assert layout.long_files(tmp_path) == [f"plum_core/a.py: {layout.MOST_LINES + 1} lines"]


def test_nothing_is_left_for_later(tmp_path: Path) -> None:
    assert layout.unfinished(ROOT) == []
    write(tmp_path, "plum_core/a.py", "x = 1\ndef f():\n    raise NotImplementedError\n")
    assert [line.split()[0] for line in layout.unfinished(tmp_path)] == ["plum_core/a.py:3:"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documented_commands_exist(document: str) -> None:
    assert layout.shell_lines(ROOT / document), f"{document} shows no command"
    assert layout.broken_commands(ROOT, document) == []


def test_a_command_of_something_absent_is_found(tmp_path: Path) -> None:
    write(tmp_path, "Makefile", "run:\n\ttrue\n")
    write(
        tmp_path,
        "README.md",
        "```bash\nmake run\nmake fly  # up\npython runners/no.py \\\n  -x\n```\n",
    )
    assert layout.broken_commands(tmp_path, "README.md") == [
        "README.md: fly of `make fly`",
        "README.md: runners/no.py of `python runners/no.py    -x`",
    ]


def test_readme_maps_the_tree() -> None:
    """Every room, runner and shipped config is named in the README, and every path it names exists."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rooms = [p.parent.name for p in (ROOT / "plum_core").glob("*/__init__.py")]
    runners = [p.name for p in (ROOT / "runners").glob("*.py") if "__main__" in p.read_text(encoding="utf-8")]
    assert [name for name in rooms + runners if not re.search(rf"\b{re.escape(name)}", readme)] == []
    named = re.findall(r"\b((?:runners|kernels|models|plum_core|tests)/[\w./-]*\w)", readme)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_a_runner_is_its_docstring() -> None:
    """The first thing in a runner is a docstring with a command line that calls it."""
    for path in (ROOT / "runners").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "__main__" in text:
            assert text.startswith('"""'), f"{path.name} opens without a docstring"
            assert f"runners/{path.name}" in text.split('"""')[1], f"{path.name}: no command line in the docstring"


def test_outputs_are_not_tracked() -> None:
    leavings = re.compile(r"(^|/)(__pycache__|\.venv|build|dist|runs|[^/]*\.egg-info)/")
    assert [name for name in layout.tracked(ROOT) if leavings.search(name)] == []
