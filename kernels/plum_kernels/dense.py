"""``linear``: F.linear, in fp32 by oneDNN on processors where torch's own product is the slower one.

torch multiplies fp32 matrices on a CPU by MKL, which takes its AVX-512 path on Intel's processors alone. On an AMD EPYC
(Zen 5), one thread, 4000 x 96 x 384: MKL 106 GFLOP/s, oneDNN 252; the two products of the gradient 110 and 101 against
254 and 163. Which of them runs depends on the processor alone, never on a measurement or on the number of rows: a run
repeats to the bit, and a row's product is the same in a batch of any size but one.

Letters in shapes: N rows, D inputs, O outputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

PLAIN = (Tensor, torch.nn.Parameter)  # not a DTensor, for which torch's own operators know how to split


def _onednn_is_faster() -> bool:
    """Whether this is a processor with AVX-512 for which MKL has no such path, and torch has oneDNN's product."""
    info = Path("/proc/cpuinfo")
    return (
        info.exists()
        and "AuthenticAMD" in info.read_text()
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


ONEDNN_IS_FASTER = _onednn_is_faster()  # asked once, where torch.compile does not look


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (N, D) by weight (O, D) of any strides: (N, O)."""
    if x.shape[1] == 0:  # the weight's gradient over no rows, which oneDNN refuses
        return x.new_zeros(x.shape[0], weight.shape[0])
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


@torch.library.custom_op("plum_kernels::linear", mutates_args=())
def linear_op(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (N, D), weight (O, D), bias (O,), all fp32 on a CPU: (N, O)."""
    return _product(x, weight, bias)


@linear_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.custom_op("plum_kernels::linear_gradient", mutates_args=())
def linear_gradient(grad: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """grad (N, O): dx (N, D), dweight (O, D), dbias (O,), each empty where it is not wanted."""
    nothing = grad.new_empty(0)
    return (
        _product(grad, weight.T) if wanted[0] else nothing,
        _product(grad.T, x.T) if wanted[1] else nothing.clone(),
        grad.sum(0) if wanted[2] else nothing.clone(),
    )


@linear_gradient.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    nothing = grad.new_empty(0)
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format) if wanted[0] else nothing,
        torch.empty_like(weight, memory_format=torch.contiguous_format) if wanted[1] else nothing.clone(),
        grad.new_empty(grad.shape[1]) if wanted[2] else nothing.clone(),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    wanted = list(ctx.needs_input_grad)
    made = linear_gradient(grad.contiguous(), *ctx.saved_tensors, wanted)
    dx, dweight, dbias = (part if want else None for part, want in zip(made, wanted, strict=True))
    return dx, dweight, dbias


linear_op.register_autograd(_backward, setup_context=_setup)


@register_flop_formula(torch.ops.plum_kernels.linear)
def _flops(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * x.numel() * weight[0]


@register_flop_formula(torch.ops.plum_kernels.linear_gradient)
def _flops_of_gradient(grad: torch.Size, x: torch.Size, weight: torch.Size, wanted: list[bool], **_: Any) -> int:
    return 2 * grad.numel() * weight[1] * (wanted[0] + wanted[1])


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., D) weight (O, D)^T + bias (O,), as F.linear: (..., O), any dtype and device, under autocast too.

    fp32 on a CPU of ``ONEDNN_IS_FASTER`` is multiplied by oneDNN, forward and backward; first order only there. What
    F.linear refuses is refused by it.
    """
    fits = (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and ONEDNN_IS_FASTER
        and x.dim() >= 2
        and x.shape[-1] == weight.shape[-1]
        and type(x) in PLAIN
        and type(weight) in PLAIN
        and not torch.is_autocast_enabled("cpu")
    )
    if not fits:
        return F.linear(x, weight, bias)
    return linear_op(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], weight.shape[0])
