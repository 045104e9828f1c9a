"""The decoder's small functions in plain torch: their definition.

Letters in shapes: I inner width, D width, T tokens, P positions, H heads, E head width, R rotated channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from plum_kernels.norm import reference_rms_norm


def reference_swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, (..., I) (Shazeer 2020, arXiv 2002.05202, eq. 6)."""
    return F.silu(gate) * up


def reference_add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(rms_norm(x + residual) * weight, x + residual), (..., D) each."""
    total = x + residual
    return reference_rms_norm(total, weight, eps), total


def reference_norm_rotate(x: Tensor, cos: Tensor, sin: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Heads (T, H, E), normalised where there is a weight (E,), then the first R channels rotated.

    cos, sin: (P, R) fp32 with T a multiple of P, token t at position t mod P; the sine carries the sign of the half:
    out[i] = x[i] cos[i] + x[i +- R/2] sin[i] (Su et al. 2021, arXiv 2104.09864, eq. 34, in the half-split layout).
    """
    if weight is not None:
        x = reference_rms_norm(x, weight, eps)
    repeats, width = len(x) // max(len(cos), 1), cos.shape[1]
    cos, sin = (table.repeat(repeats, 1).unsqueeze(1) for table in (cos, sin))
    turned = x[..., :width].to(torch.promote_types(x.dtype, torch.float32))
    first, second = turned.chunk(2, -1)
    out = (turned * cos + torch.cat((second, first), -1) * sin).to(x.dtype)
    return out if width == x.shape[-1] else torch.cat((out, x[..., width:]), -1)


def reference_split_qkv(
    x: Tensor, cos: Tensor, sin: Tensor, groups: int, q_weight: Tensor | None, k_weight: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """x (T, H + 2 G, E), a fused projection's heads, to q (T, H, E), k and v (T, G, E): q and k normed and rotated."""
    q, k, v = x.split((x.shape[1] - 2 * groups, groups, groups), 1)
    q, k = (reference_norm_rotate(t, cos, sin, w, eps) for t, w in ((q, q_weight), (k, k_weight)))
    return q, k, v
