"""One token a row through a decoder on a CPU, compiled where it runs: products, what stands between them, the draw."""

from plum_kernels.cpu_decode.build import compiler
from plum_kernels.cpu_decode.interface import attend, draw, rms_norm, silu_mul
from plum_kernels.cpu_decode.product import Matrix, multiplies

__all__ = ["Matrix", "attend", "compiler", "draw", "multiplies", "rms_norm", "silu_mul"]
