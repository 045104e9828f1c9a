"""head.cpp on tensors: where it runs, and its two passes. The plain form is logprob/blocked.py and logprob/frozen.py.

Letters in shapes: N rows, D width, V vocabulary.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from plum_kernels.compiled.build import build
from plum_kernels.logprob.blocks import Transform, Upstream

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
ALONE = 1 << 24  # multiplications: below, a second thread costs more than it gives


class _Problem(ctypes.Structure):
    """``Problem`` of head.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "weight", "targets", "bias")),
        *((name, ctypes.c_int64) for name in ("rows", "stride", "width", "vocabulary", "threads")),
        *((name, ctypes.c_float) for name in ("inner", "outer", "gain")),
    )


@functools.cache
def _library() -> ctypes.CDLL | str:
    """The compiled functions, or why there are none."""
    try:
        return build(Path(__file__).with_name("head.cpp"), with_torch=True)
    except ValueError as error:
        return str(error)


@functools.cache
def missing(dtype: torch.dtype) -> str | None:
    """Why ``dtype`` cannot be had compiled on this machine, in half a sentence; None where it can."""
    if dtype not in DTYPES:
        return f"it takes fp32 and bf16, not {dtype}"
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return "it needs a processor with AVX-512"
    library = _library()
    if isinstance(library, str):
        return library
    if not getattr(library, f"plum_head_probe_{DTYPES[dtype]}")():
        return f"oneDNN has no micro-kernels for {dtype} on this processor"
    return None


def _function(name: str, dtype: torch.dtype) -> Any:
    library = _library()
    assert not isinstance(library, str), library
    return getattr(library, f"plum_head_{name}_{DTYPES[dtype]}")


class Inputs(NamedTuple):
    """x (N, D) of stride (D or more, 1) and weight (V, D), of one dtype; bias (V,); targets (N,) int64 in [0, V)."""

    x: Tensor
    weight: Tensor
    targets: Tensor
    bias: Tensor | None
    transform: Transform


class Head:
    """One set of inputs, as the compiled functions read them."""

    def __init__(self, inputs: Inputs) -> None:
        x, weight = inputs.x.detach(), inputs.weight.detach().contiguous()
        if x.shape[1] % 2 or x.stride(1) != 1 or x.stride(0) < x.shape[1]:
            x = torch.nn.functional.pad(x, (0, x.shape[1] % 2)).contiguous()  # bf16 is read two at a time
        bias = None if inputs.bias is None else inputs.bias.detach().float().contiguous()
        self.kept = x, weight, inputs.targets.contiguous(), bias  # whose addresses are handed on
        self.dtype, self.rows, self.width = weight.dtype, len(x), weight.shape[1]
        products = self.rows * weight.numel()
        t = inputs.transform
        self.problem = _Problem(
            *(None if part is None else part.data_ptr() for part in self.kept),
            self.rows, x.stride(0), self.width, len(weight), torch.get_num_threads() if products > ALONE else 1,
            t.inner, 0.0 if t.softcap is None else t.outer, t.gain,
        )  # fmt: skip

    def _run(self, name: str, wanted: tuple[bool, bool, bool, bool], *tensors: Tensor | None) -> None:
        size = _function("work", self.dtype)
        size.restype = ctypes.c_int64
        work = torch.empty(size(ctypes.byref(self.problem), *map(ctypes.c_int64, wanted)), dtype=torch.uint8)
        addresses = (None if t is None else ctypes.c_void_p(t.data_ptr()) for t in (work, *tensors))
        _function(name, self.dtype)(ctypes.byref(self.problem), *addresses)

    def statistics(self, entropy: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N,) fp32 each: the target's u, the maximum m of u, s = sum 2**(u - m), t = sum 2**(u - m) (u - m) ln 2."""
        picked, m, s, t = torch.zeros(4, self.rows)
        self._run("forward", (False,) * 4, picked, m, s, t if entropy else None, None)
        return picked, m, s, t

    def expectation(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The target's u, m and s, (N,) each, and sum_j p_j slope_j W_j, (N, D), all fp32."""
        picked, m, s = torch.zeros(3, self.rows)
        mean = torch.zeros(self.rows, self.width)
        self._run("forward", (True, False, False, False), picked, m, s, None, mean)
        return picked, m, s, mean.div_(s.unsqueeze(1))

    def gradients(
        self,
        state: tuple[Tensor, Tensor, Tensor],  # m, s and the entropy, (N,) fp32 each
        g: Upstream,
        wanted: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of x (N, D) fp32, weight (V, D) in its own dtype, bias (V,) fp32; None where not wanted."""
        want_x, want_w, want_b = wanted
        _, weight, _, bias = self.kept
        dx = torch.zeros(self.rows, self.width) if want_x else None
        dw = torch.empty_like(weight) if want_w else None
        db = weight.new_empty(len(weight), dtype=torch.float32) if want_b and bias is not None else None
        m, s, h = state
        entropy = None if g.entropy is None else g.entropy.float().contiguous()
        rows = (m, s, None if entropy is None else h, g.target.float(), g.lse.float(), entropy)
        held = [None if t is None else t.contiguous() for t in rows]
        self._run("backward", (False, want_x, want_w, db is not None), *held, dx, dw, db)
        return dx, dw, db
