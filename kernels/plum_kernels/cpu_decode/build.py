"""decode.cpp to a shared library: compiled once for this source, compiler and processor, then found again.

The library has a C interface and no torch in it, so it takes seconds to compile and serves every version of torch.
Its threads are OpenMP's, which on Linux are torch's own: the runtime that torch has loaded is the one it finds.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("decode.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-Wno-psabi", "-shared", "-fPIC")
WIDE = "-mprefer-vector-width=512"  # of x86 alone
THREADS = "-fopenmp"
log = logging.getLogger(__name__)


def compiler() -> str | None:
    """The path of the C++ compiler: ``CXX`` where it is set, else c++, g++ or clang++; None where there is none."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled functions. Raises ValueError where no compiler is found or it refuses the source."""
    path = compiler()
    if path is None:
        raise ValueError("native decoding needs a C++ compiler and none is on PATH: install g++, or name one in CXX")
    flags = (*FLAGS, WIDE) if platform.machine() in ("x86_64", "AMD64") else FLAGS
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    texts = [source.read_text() for source in sorted((SOURCE, *SOURCE.parent.glob("*.h")))]
    key = hashlib.sha256("\n".join((*texts, *flags, THREADS, path, version, _processor())).encode()).hexdigest()[:16]
    target = _folder() / f"decode-{key}.so"
    if not target.exists():
        _compile(path, (*flags, *_threads(path)), target)
    return _typed(ctypes.CDLL(str(target)))


def wide(dtype: str) -> bool:
    """Whether this processor has the instructions that ``product`` is written for: AVX-512, with its bf16 for bf16."""
    return bool(getattr(library(), f"plum_wide_{dtype}")())


def _typed(found: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    arguments = {
        "rms_norm": [pointer] * 3 + [number] * 3 + [real],
        "silu_mul": [pointer] * 2 + [number] * 3,
        "attend": [pointer] * 12 + [number] * 8 + [real],
        "draw": [pointer] * 7 + [number] * 3 + [real],
        "pack": [pointer] * 2 + [number] * 3,
        "linear": [pointer] * 5 + [number] * 4,
        "head_draw": [pointer] * 8 + [number] * 5 + [real],
    }
    for name, types in arguments.items():
        for dtype in ("float32", "bfloat16"):
            function = getattr(found, f"plum_{name}_{dtype}")
            function.argtypes, function.restype = types, None
    return found


def _threads(path: str) -> tuple[str, ...]:
    """The flag for OpenMP, where the compiler has it."""
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.cpp"
        empty.write_text('#include <omp.h>\nextern "C" int threads() { return omp_get_max_threads(); }\n')
        asked = [path, THREADS, "-shared", "-fPIC", "-o", str(empty.with_suffix(".so")), str(empty)]
        if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
            return (THREADS,)
    log.warning("native decoding: %s has no OpenMP, so one thread decodes", path)
    return ()


def _compile(path: str, flags: tuple[str, ...], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name  # renamed when whole: several processes may compile at once
        done = subprocess.run([path, *flags, "-o", made, SOURCE], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"{path} could not compile {SOURCE.name}: {done.stderr.strip()[:500]}")
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
