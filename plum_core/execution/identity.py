"""What a kept verdict depends on beside its program: interpreter, packages, confinement, and how we judge."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from plum_core.execution import inside

# Raised when a verdict of the same program may change for a reason outside of inside/, whose sources count anyway.
SEMANTICS = 1
_ASK = (
    "import json, platform, sys; "
    "print(json.dumps([sys.version, sys.implementation.cache_tag, platform.machine(), sys.executable,"
    " sys.base_prefix, sys.version_info[:2]]))"
)


def identity(python: str, packages: Sequence[str], layers: Sequence[str]) -> bytes:
    """A digest that differs where the same program may get another verdict. Raises ValueError for no interpreter."""
    *interpreter, executable, base, version = _ask(python)
    folders = [Path(root) / f"lib/python{version[0]}.{version[1]}/site-packages" for root in (_root(executable), base)]
    installed = [
        [name, [list(_files(folder / entry)) for folder in folders for entry in (name, f"{name}.libs")]]
        for name in sorted(packages)
    ]
    told = [SEMANTICS, _sources(), interpreter, installed, sorted(layers)]
    return sha256(json.dumps(told).encode()).digest()


def _root(executable: str) -> str:
    return os.path.dirname(os.path.dirname(executable))


def _ask(python: str) -> list[Any]:
    try:
        done = subprocess.run([python, "-S", "-s", "-P", "-c", _ASK], capture_output=True, env={}, check=True)
    except OSError as problem:
        raise ValueError(f"cannot run the interpreter {python}: {problem.strerror}") from None
    except subprocess.CalledProcessError as problem:
        raise ValueError(f"the interpreter {python} does not tell its version: {problem.stderr[-200:]!r}") from None
    told: list[Any] = json.loads(done.stdout)
    return told


@cache
def _sources() -> str:
    """Of the code that judges and confines: whoever changes it need not think of the caches."""
    digest = sha256()
    for path in sorted(path for path in Path(inside.__path__[0]).iterdir() if path.suffix in (".py", ".c", ".h")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _files(root: Path) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of change of every file of a package: a module that is edited in place differs."""
    for folder, below, names in os.walk(root):
        below[:] = sorted(set(below) - {"__pycache__"})
        for name in sorted(names):
            place = os.path.join(folder, name)
            state = os.lstat(place)
            yield os.path.relpath(place, root), state.st_size, state.st_mtime_ns
