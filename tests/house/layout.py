"""The rules of the tree as functions of its root: the tests also feed them trees that break one."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

# Where each package lies, and which of ours it may import besides itself.
SOURCES = {
    "plum_kernels": ("kernels/plum_kernels", set()),
    "plum_models": ("models/plum_models", {"plum_kernels"}),
    "plum_core": ("plum_core", {"plum_models", "plum_kernels"}),
    "runners": ("runners", {"plum_core", "plum_models", "plum_kernels"}),
}
OURS = frozenset(SOURCES)
SOURCE_ROOTS = ("kernels", "models", "runners")  # on sys.path themselves, so never packages
FOLDERS = ("plum_core", "kernels", "models", "runners", "examples", "tests")
MOST_LINES = 400
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")


def python_files(root: Path) -> list[Path]:
    """Every Python file below ``root``; from the top of the tree, below the project's own folders."""
    tops = [root / name for name in FOLDERS if (root / name).is_dir()] or [root]
    return sorted(p for top in tops for p in top.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The full names of what ``path`` imports, wherever in the file the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def wrong_way_imports(root: Path) -> list[str]:
    """``file imports package`` for each import that runs against the arrows."""
    found = []
    for package, (folder, allowed) in SOURCES.items():
        siblings = {p.stem for p in (root / folder).glob("*.py")} if package == "runners" else set()
        for path in python_files(root / folder):
            for name in imported(path):
                top = name.partition(".")[0]
                if top in OURS | {"tests"} and top not in allowed | {package} and name not in siblings:
                    found.append(f"{path.relative_to(root)} imports {name}")
    return found


def stray_inits(root: Path) -> list[str]:
    """``__init__.py`` in a source root: it would make an import package called ``kernels`` or ``models``."""
    return [f"{folder}/__init__.py" for folder in SOURCE_ROOTS if (root / folder / "__init__.py").exists()]


def long_files(root: Path) -> list[str]:
    """Files past the cap, with their length."""
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in python_files(root)}
    return [f"{p.relative_to(root)}: {n} lines" for p, n in lengths.items() if n > MOST_LINES]


def unfinished(root: Path) -> list[str]:
    """``file:line`` of every word that says somebody meant to come back."""
    folders = [folder for folder, _ in SOURCES.values()]
    return [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for folder in folders
        for path in python_files(root / folder)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]


def shell_lines(markdown: Path) -> list[str]:
    """The commands of a Markdown file's ``bash`` blocks, continued lines joined, comments off."""
    blocks = re.findall(r"```bash\n(.*?)```", markdown.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [bare for line in lines if (bare := re.sub(r"\s+#.*", "", line).strip())]


def broken_commands(root: Path, document: str) -> list[str]:
    """Commands of ``document`` that name a make target, a runner, a config or a folder that is not there."""
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    found = []
    for line in shell_lines(root / document):
        words = line.split()
        if words[0] == "make":
            missing = [w for w in words[1:] if "=" not in w and not w.startswith("-") and w not in targets]
        else:
            inside = re.compile(r"^(runners|tests|models|kernels)/[\w/.-]+$")
            missing = [w for w in words if inside.match(w) and not (root / w).exists()]
        found += [f"{document}: {word} of `{line}`" for word in missing]
    return found


def tracked(root: Path) -> list[str]:
    """What git has of the tree; empty outside a checkout."""
    done = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()
