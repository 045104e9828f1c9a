"""The C of inside/ to a shared library: compiled once for this source and compiler, then found again."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path

SOURCES = sorted((Path(__file__).parent / "inside").glob("*.[ch]"))
FLAGS = ("-O2", "-std=c11", "-D_GNU_SOURCE", "-shared", "-fPIC", "-Wl,-z,now")


def compiler() -> str | None:
    """The path of the C compiler: ``CC`` where it is set, else cc, gcc or clang; None where there is none."""
    names = (os.environ.get("CC"), "cc", "gcc", "clang")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@cache
def compiled_core() -> str | None:
    """The path of the library. None, and a warning, where it cannot be made: zygotes then fork from Python."""
    try:
        return str(_library())
    except (ValueError, OSError) as problem:
        announce(str(problem))
        return None


@cache
def announce(problem: str) -> None:
    """Warn, once a process, of what keeps zygotes from forking in C."""
    warnings.warn(f"sandboxed programs cost more CPU here: {problem}", RuntimeWarning, stacklevel=3)


def _library() -> Path:
    path = compiler()
    if path is None:
        raise ValueError("the fork server needs a C compiler and none is on PATH; install gcc, or name one in CC")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    told = (*(source.read_text() for source in SOURCES), *FLAGS, path, version, platform.machine())
    target = _folder() / f"forkserver-{hashlib.sha256(chr(10).join(told).encode()).hexdigest()[:16]}.so"
    if not target.exists():
        _compile(path, target)
    return target


def _compile(path: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name  # renamed when whole: several processes may compile at once
        sources = [source for source in SOURCES if source.suffix == ".c"]
        command = [path, *FLAGS, "-o", str(made), *map(str, sources)]
        search = {"PATH": os.defpath, **os.environ}  # a compiler looks for its linker there
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=search)
        if done.returncode:
            raise ValueError(f"{path} could not compile the fork server: {done.stderr.strip()[:500]}")
        made.replace(target)


def _folder() -> Path:
    """As the XDG base directory specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plum"
