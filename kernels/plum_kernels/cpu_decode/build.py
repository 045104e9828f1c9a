"""decode.cpp as a library, for every version of torch: it has nothing of torch in it.

Its threads are OpenMP's, which on Linux are torch's own: the runtime that torch has loaded is the one it finds.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from plum_kernels.compiled.build import build, compiler

__all__ = ["compiler", "library", "wide"]
SOURCE = Path(__file__).with_name("decode.cpp")


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled functions. Raises ValueError where no compiler is found or it refuses the source."""
    found = build(SOURCE, openmp=True)
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


def wide(dtype: str) -> bool:
    """Whether this processor has the instructions that ``product`` is written for: AVX-512, with its bf16 for bf16."""
    return bool(getattr(library(), f"plum_wide_{dtype}")())
