"""A C++ source to a shared library: compiled once for this source, compiler, processor and torch, then found again.

The sources have a C interface and none of torch's headers, so that they take seconds to compile.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import torch

FLAGS = ("-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-Wno-psabi", "-shared", "-fPIC", "-pthread")
WIDE = "-mprefer-vector-width=512"  # of x86 alone
OPENMP = "-fopenmp"


def compiler() -> str | None:
    """The path of the C++ compiler: ``CXX`` where it is set, else c++, g++ or clang++; None where there is none."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def build(source: Path, *, with_torch: bool = False, openmp: bool = False) -> ctypes.CDLL:
    """The library of ``source``, which may include headers of its own folder and of this one.

    with_torch links libtorch_cpu. openmp: with OpenMP where the compiler has it, which is said where it has not.
    Raises ValueError where no compiler is found, it refuses the source, or this torch lacks what the source calls.
    """
    path = compiler()
    if path is None:
        raise ValueError(f"{source.name} needs a C++ compiler and none is on PATH: install g++, or name one in CXX")
    flags = (*FLAGS, WIDE) if platform.machine() in ("x86_64", "AMD64") else FLAGS
    libraries = ("-Wl,-z,now", f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch_cpu") if with_torch else ()
    headers = sorted({*source.parent.glob("*.h"), *Path(__file__).parent.glob("*.h")})
    texts = [part.read_text() for part in (source, *headers)]
    with_openmp = (OPENMP,) if openmp else ()
    parts = (*texts, *flags, *libraries, *with_openmp, torch.__version__ * with_torch, path, _version(path))
    key = hashlib.sha256("\n".join((*parts, _processor())).encode()).hexdigest()[:16]
    target = _folder() / f"{source.stem}-{key}.so"
    if not target.exists():
        _compile(path, (*flags, *(_openmp(path) if openmp else ())), source, libraries, target)
    try:
        return ctypes.CDLL(str(target))
    except OSError as error:
        raise ValueError(f"{source.name} does not load with torch {torch.__version__}: {error}") from None


@functools.cache
def _version(path: str) -> str:
    return subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout


def _openmp(path: str) -> tuple[str, ...]:
    """The flag for OpenMP, where the compiler has it."""
    with tempfile.TemporaryDirectory() as folder:
        least = Path(folder) / "least.cpp"
        least.write_text('#include <omp.h>\nextern "C" int threads() { return omp_get_max_threads(); }\n')
        asked = [path, OPENMP, "-shared", "-fPIC", "-o", str(least.with_suffix(".so")), str(least)]
        if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
            return (OPENMP,)
    warnings.warn(f"{path} has no OpenMP: what it compiles for decoding runs in one thread", stacklevel=4)
    return ()


def _compile(path: str, flags: tuple[str, ...], source: Path, libraries: tuple[str, ...], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name  # renamed when whole: several processes may compile at once
        command = [path, *flags, "-o", str(made), str(source), *libraries]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"{path} could not compile {source.name}: {done.stderr.strip()[:500]}")
        made.replace(target)


def _folder() -> Path:
    """As the XDG base directory specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plum"


def _processor() -> str:
    """What -march=native means differs between machines that may share a home."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join((platform.machine(), platform.processor(), *found[:2]))
