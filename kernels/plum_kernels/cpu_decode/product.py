"""A weight laid out for products of few rows, and the output head's product with the draw inside.

Letters in shapes: R rows, K inputs (even), N outputs, V vocabulary. Reference: ``reference``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plum_kernels.cpu_decode.build import wide
from plum_kernels.cpu_decode.interface import BLOCK, DTYPES, LANES, compiled, workers

PANEL = 64  # outputs that lie together
READ = 16  # rows whose arithmetic takes as long as reading the weight


def multiplies(dtype: torch.dtype) -> bool:
    """Whether ``Matrix`` is the product to take here.

    It is with AVX-512 for fp32, for bf16 with AVX-512's products of bf16 and without AMX, whose tiles torch's own use.
    """
    if dtype not in DTYPES or not wide(DTYPES[dtype]):
        return False
    return dtype == torch.float32 or not torch.cpu._is_amx_tile_supported()


class Matrix:
    """The weight (N, K) and bias (N,) as they are now, fp32 or bf16, in panels of PANEL outputs; a copy.

    Sums are fp32, over the inputs in order, and rounded once: a row's bits depend on no other row. Raises ValueError
    for another dtype, and for an odd number of inputs.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.outputs, self.inputs = weight.shape
        if self.inputs % 2 or weight.device.type != "cpu":
            raise ValueError(
                f"the weight must have an even number of inputs and be on the CPU, got {tuple(weight.shape)} on "
                f"{weight.device}"
            )
        self.dtype, weight = weight.dtype, weight.detach().contiguous()
        self.panels = weight.new_empty((-(-self.outputs // PANEL) * PANEL, self.inputs))
        pack = compiled("pack", self.dtype)
        pack(weight.data_ptr(), self.panels.data_ptr(), self.outputs, self.inputs, self._workers(1))
        self.bias = None
        if bias is not None:
            self.bias = torch.zeros(len(self.panels))
            self.bias[: self.outputs] = bias.detach()
        self._linear, self._head_draw = compiled("linear", self.dtype), compiled("head_draw", self.dtype)

    def linear(self, x: Tensor, residual: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        """x (R, K) @ weight.T + bias + residual (R, N), into out (R, N), which may be the residual itself."""
        rows = len(x)
        if out is None:
            out = x.new_empty((rows, self.outputs))
        self._check(x=(x, self.inputs), residual=(residual, self.outputs), out=(out, self.outputs), rows=rows)
        self._linear(
            x.data_ptr(), self.panels.data_ptr(), None if self.bias is None else self.bias.data_ptr(),
            None if residual is None else residual.data_ptr(), out.data_ptr(), rows, self.inputs, self.outputs,
            self._workers(rows),
        )  # fmt: skip
        return out

    def draw(self, hidden: Tensor, seeds: Tensor, numbers: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """``interface.draw`` of the fp32 logits hidden (R, K) @ weight.T, none of which is written. Without bias."""
        rows = len(hidden)
        self._check(hidden=(hidden, self.inputs), rows=rows)
        for name, x in (("seeds", seeds), ("numbers", numbers)):
            if x.shape != (rows,) or x.dtype != torch.int64 or not x.is_contiguous():
                raise ValueError(f"{name} must be contiguous int64 ({rows},), got {x.dtype} {tuple(x.shape)}")
        if self.bias is not None:
            raise ValueError("a head with a bias is not drawn from: take linear and interface.draw")
        out = torch.empty(rows, dtype=torch.int64), torch.empty(rows), torch.empty(rows)
        stride = -(-self.outputs // (BLOCK * LANES)) * LANES
        work = torch.empty((3, rows, stride))
        self._head_draw(
            hidden.data_ptr(), self.panels.data_ptr(), seeds.data_ptr(), numbers.data_ptr(),
            *(x.data_ptr() for x in out), work.data_ptr(), rows, self.inputs, self.outputs, stride,
            self._workers(rows), float(temperature),
        )  # fmt: skip
        return out

    def _workers(self, rows: int) -> int:
        return workers(max(rows, READ) * self.panels.numel())

    def _check(self, rows: int, **tensors: tuple[Tensor | None, int]) -> None:
        for name, (x, width) in tensors.items():
            if x is None:
                continue
            if x.shape != (rows, width) or x.dtype != self.dtype or x.device.type != "cpu" or not x.is_contiguous():
                raise ValueError(
                    f"{name} must be contiguous {self.dtype} ({rows}, {width}) on the CPU, got {x.dtype} "
                    f"{tuple(x.shape)} of strides {x.stride()} on {x.device}"
                )
