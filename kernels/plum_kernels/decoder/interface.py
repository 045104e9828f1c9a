"""``swiglu``, ``add_rms_norm``, ``norm_rotate`` and ``split_qkv``: checks, and the choice of the back end.

"reference" is the definition, by autograd; "triton" one launch forward and one backward (a GPU, no fp64); "auto" is
"triton" on a GPU where a committed run found it faster (``plum_kernels.choice``), "reference" elsewhere.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from plum_kernels.choice import auto
from plum_kernels.decoder.reference import (
    reference_add_rms_norm,
    reference_norm_rotate,
    reference_split_qkv,
    reference_swiglu,
)

DECODER_BACKENDS = ("reference", "triton")


def _on_device(function: str, x: Tensor, backend: str) -> bool:
    """Whether the kernels run; ValueError where they were named and cannot."""
    if backend not in ("auto", *DECODER_BACKENDS):
        raise ValueError(f"backend must be one of auto, {', '.join(DECODER_BACKENDS)}, got {backend!r}")
    if backend == "auto":
        return x.dtype != torch.float64 and auto(function, x.device, "reference") == "triton"
    if backend == "reference":
        return False
    if x.dtype == torch.float64:
        raise ValueError("backend triton has no fp64: use backend='reference'")
    if not (x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"):
        raise ValueError(f"backend triton needs a GPU, got tensors on {x.device}: use backend='reference'")
    return True


def has_kernel(function: str, x: Tensor) -> bool:
    """Whether backend "auto" of ``function`` runs a kernel on x: what a decoder asks before it takes another path."""
    return _on_device(function, x, "auto")


def _alike(**tensors: Tensor) -> None:
    (first, x), *others = tensors.items()
    for name, tensor in others:
        if tensor.shape != x.shape or tensor.dtype != x.dtype or tensor.device != x.device:
            raise ValueError(
                f"{name} must be as {first}, {tuple(x.shape)} {x.dtype} on {x.device}, "
                f"got {tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"
            )


def _check_weight(weight: Tensor, x: Tensor) -> None:
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"weight must be ({x.shape[-1]},) for x {tuple(x.shape)}, got {tuple(weight.shape)}")


def _check_tables(cos: Tensor, sin: Tensor, width: int) -> None:
    if cos.dim() != 2 or cos.shape != sin.shape or cos.shape[1] % 2 or cos.shape[1] > width:
        raise ValueError(
            f"cos and sin must be (P, R) with R even and at most {width}, got {tuple(cos.shape)} and {tuple(sin.shape)}"
        )


def swiglu(gate: Tensor, up: Tensor, *, backend: str = "auto") -> Tensor:
    """silu(gate) * up, (..., I) of one dtype. Raises ValueError for shapes, dtypes or devices that differ."""
    _alike(gate=gate, up=up)
    if not _on_device("swiglu", gate, backend):
        return reference_swiglu(gate, up)
    from plum_kernels.decoder.operator import swiglu_op  # a second to import: for those who ask

    return swiglu_op(gate, up)


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """(rms_norm(x + residual) * weight, x + residual), (..., D) each: the seam between two parts of a layer.

    x, residual: (..., D) of one dtype; weight: (D,) of the same. Raises ValueError for what does not fit.
    """
    _alike(x=x, residual=residual)
    _check_weight(weight, x)
    if not _on_device("add_rms_norm", x, backend):
        return reference_add_rms_norm(x, residual, weight, eps)
    from plum_kernels.decoder.operator import add_norm_op

    width = x.shape[-1]
    out, total, _ = add_norm_op(x.reshape(-1, width), residual.reshape(-1, width), weight, eps)
    return out.view(x.shape), total.view(x.shape)


def norm_rotate(
    x: Tensor,  # (..., S, H, E)
    cos: Tensor,  # (P, R) fp32, P positions that the tokens of x walk through again and again
    sin: Tensor,  # (P, R) fp32, with the sign of its half
    weight: Tensor | None = None,  # (E,) of the norm before the rotation; None for none
    eps: float = 1e-6,
    *,
    backend: str = "auto",
) -> Tensor:
    """Heads of q or k, normalised where there is a weight and rotated: ``reference_norm_rotate``, (..., S, H, E).

    Raises ValueError where tables and x do not fit.
    """
    _check_tables(cos, sin, x.shape[-1])
    if x.dim() < 3:
        raise ValueError(f"x must be (..., S, H, E), got {tuple(x.shape)}")
    if weight is not None:
        _check_weight(weight, x)
    flat = x.reshape(-1, *x.shape[-2:])
    if len(flat) % max(len(cos), 1):
        raise ValueError(f"{len(flat)} tokens are no multiple of {len(cos)} positions")
    if not _on_device("norm_rotate", x, backend):
        return reference_norm_rotate(flat, cos, sin, weight, eps).view(x.shape)
    from plum_kernels.decoder.operator import norm_rotate_op

    out, _ = norm_rotate_op(flat, cos.float(), sin.float(), weight, eps)
    return out.view(x.shape)


def split_qkv(
    qkv: Tensor,  # (..., S, (H + 2 G) * E), the fused projection's answer, its bias included
    cos: Tensor,  # (P, R) fp32, P positions that the tokens of qkv walk through again and again
    sin: Tensor,  # (P, R) fp32, with the sign of its half
    groups: int,  # G
    head_width: int,  # E
    q_weight: Tensor | None = None,  # (E,) of the norm of q before the rotation; None for none
    k_weight: Tensor | None = None,  # (E,) of k's
    eps: float = 1e-6,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """q (..., S, H, E), k and v (..., S, G, E), q and k normed where there are weights and rotated.

    The same as ``norm_rotate`` of the first two parts and a copy of the third, in one launch. Raises ValueError where
    widths, tables and weights do not fit.
    """
    heads = qkv.shape[-1] // head_width
    if qkv.shape[-1] % head_width or not 0 < 2 * groups < heads:
        raise ValueError(
            f"qkv must hold (H + 2 G) heads of {head_width} with G={groups}, got {tuple(qkv.shape)}: check groups and "
            "head_width"
        )
    _check_tables(cos, sin, head_width)
    if (q_weight is None) != (k_weight is None):
        raise ValueError("q_weight and k_weight come together: give both or neither")
    for weight in (q_weight, k_weight):
        if weight is not None:
            _check_weight(weight, qkv[..., :head_width])
    flat = qkv.reshape(-1, heads, head_width)
    if len(flat) % max(len(cos), 1):
        raise ValueError(f"{len(flat)} tokens are no multiple of {len(cos)} positions")
    if _on_device("split_qkv", qkv, backend):
        from plum_kernels.decoder.qkv_operator import split_qkv_op

        parts = split_qkv_op(flat, cos.float(), sin.float(), q_weight, k_weight, groups, eps)[:3]
    else:
        parts = reference_split_qkv(flat, cos, sin, groups, q_weight, k_weight, eps)
    q, k, v = (part.view(*qkv.shape[:-1], part.shape[1], head_width) for part in parts)
    return q, k, v
