"""What stands between the matrix products of a decode step, on a CPU, compiled where it runs."""

from plum_kernels.cpu_decode.build import compiler
from plum_kernels.cpu_decode.interface import attend, draw, rms_norm, silu_mul

__all__ = ["attend", "compiler", "draw", "rms_norm", "silu_mul"]
