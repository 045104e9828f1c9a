"""``packed_attention``: causal attention within each sequence of a packed batch, by whichever library is there.

Letters in shapes: T tokens, S sequences, H query heads, G key/value heads, E head width.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import os

import torch
import torch.nn.functional as F
from torch import Tensor

from plum_kernels.choice import auto

ATTENTION_BACKENDS = ("flash", "varlen", "triton", "sdpa", "reference")
UNMEASURED = ("flash", "varlen", "sdpa")  # the order of "auto" where no run on the device is committed
LOW = (torch.bfloat16, torch.float16)


def available(backend: str, q: Tensor) -> str | None:
    """None where ``backend`` can take q; otherwise why it cannot."""
    if backend in ("sdpa", "reference"):
        return None
    if backend == "triton" and q.dtype != torch.float64 and os.environ.get("TRITON_INTERPRET") == "1":
        return None
    if not q.is_cuda:
        return f"needs a GPU, got tensors on {q.device}"
    if q.dtype not in LOW:
        return f"needs bf16 or fp16, got {q.dtype}"
    if backend == "flash" and importlib.util.find_spec("flash_attn") is None:
        return "needs flash-attn, which is not installed"
    if backend == "varlen" and importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return f"needs torch.nn.attention.varlen, which torch {torch.__version__} lacks"
    return None


def _check(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, window: int | None, backend: str) -> None:
    if q.dim() != 3 or k.shape != v.shape or k.dim() != 3 or q.shape[::2] != k.shape[::2]:
        raise ValueError(
            f"q must be (T, H, E), k and v (T, G, E), got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(f"query heads must be a multiple of key heads, got {q.shape[1]} and {k.shape[1]}")
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q, k and v must share one dtype, got {q.dtype}, {k.dtype} and {v.dtype}")
    if cu_seqlens.dim() != 1 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"cu_seqlens must be (S + 1,) int32 or int64, got {cu_seqlens.dtype}")
    if window is not None and window < 1:
        raise ValueError(f"window must be at least 1, the own position, got {window}")
    if backend not in ("auto", *ATTENTION_BACKENDS):
        raise ValueError(f"backend must be one of auto, {', '.join(ATTENTION_BACKENDS)}, got {backend!r}")


def packed_attention(
    q: Tensor,  # (T, H, E) floating
    k: Tensor,  # (T, G, E), H a multiple of G
    v: Tensor,  # (T, G, E)
    cu_seqlens: Tensor,  # (S + 1,) int32 or int64, from 0 to T: where each sequence starts, and the end of the last
    max_seqlen: int,  # of the longest sequence, known to the host
    *,
    window: int | None = None,  # how many positions each sees, its own included; None for all before it
    scale: float | None = None,  # of q . k; 1 / sqrt(E) where it is left out
    backend: str = "auto",
) -> Tensor:
    """(T, H, E): softmax(scale q k) v over the positions of the same sequence up to the own one.

    backend: "flash" is flash-attn where it is installed; "varlen" torch's own kernel; "triton" ours, with
    the same bits each run, gradients included; all three need a GPU and bf16 or fp16. "sdpa" goes sequence by sequence
    through torch's scaled_dot_product_attention; "reference" makes all (T, T) scores. "auto" is the fastest by
    a committed run on this device (``plum_kernels.choice``) where that can take q, else the first of flash, varlen and
    sdpa that can. Raises ValueError for what does not fit, and where a back end that was named cannot run.
    """
    _check(q, k, v, cu_seqlens, window, backend)
    if backend == "auto":
        first = next(name for name in UNMEASURED if available(name, q) is None)
        backend = auto("packed_attention", q.device, first)
        backend = first if available(backend, q) else backend
    elif reason := available(backend, q):
        raise ValueError(f"backend {backend} {reason}: use backend='sdpa'")
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if backend == "reference" or q.shape[0] == 0:
        return reference_attention(q, k, v, cu_seqlens, window, scale)
    if backend == "sdpa":
        return _sdpa(q, k, v, cu_seqlens, window, scale)
    if backend == "triton":
        from plum_kernels.attention.operator import packed_attention_op  # a second to import: for those who ask

        attended: Tensor = packed_attention_op(q, k, v, cu_seqlens, window or 0, scale)[0]
        return attended
    left = -1 if window is None else window - 1
    cu = cu_seqlens.to(torch.int32)
    if backend == "flash":
        from flash_attn import flash_attn_varlen_func

        out: Tensor = flash_attn_varlen_func(
            q, k, v, cu, cu, max_seqlen, max_seqlen, softmax_scale=scale, causal=True, window_size=(left, 0)
        )
        return out
    from torch.nn.attention.varlen import varlen_attn

    grouped = q.shape[1] != k.shape[1]
    made = varlen_attn(
        q, k, v, cu, cu, max_seqlen, max_seqlen, scale=scale, window_size=(left, 0), enable_gqa=grouped
    )  # fmt: skip
    assert isinstance(made, Tensor)
    return made


def reference_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, window: int | None, scale: float
) -> Tensor:
    """The definition, scores and weights in fp32 or wider."""
    at = torch.arange(q.shape[0], device=q.device)
    owner = torch.searchsorted(cu_seqlens.contiguous(), at.to(cu_seqlens.dtype), right=True)
    age = at.unsqueeze(1) - at
    seen = (owner.unsqueeze(1) == owner) & (age >= 0) & (age < (len(at) if window is None else window))
    wide = torch.promote_types(q.dtype, torch.float32)
    repeats = q.shape[1] // k.shape[1]
    keys, values = (t.to(wide).repeat_interleave(repeats, 1) for t in (k, v))
    scores = torch.einsum("qhe,khe->hqk", q.to(wide), keys) * scale
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khe->qhe", weights, values).to(q.dtype)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, window: int | None, scale: float) -> Tensor:
    """Sequence by sequence; their lengths come to the host."""
    starts = cu_seqlens.tolist()
    parts = []
    for a, b in itertools.pairwise(starts):
        if a == b:
            continue
        mask = None
        if window is not None and window < b - a:
            age = torch.arange(b - a, device=q.device)
            age = age.unsqueeze(1) - age
            mask = (age >= 0) & (age < window)
        queries, keys, values = (t[a:b].transpose(0, 1).unsqueeze(0) for t in (q, k, v))
        out = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        parts.append(out.squeeze(0).transpose(0, 1))
    return torch.cat(parts)
