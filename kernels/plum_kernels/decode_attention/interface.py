"""``decode_attention``: what is checked, and which back end runs."""

from __future__ import annotations

import torch
from torch import Tensor

from plum_kernels.decode_attention.reference import Shared, reference_decode_attention

BACKENDS = ("auto", "reference", "triton")


def decode_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    tables: Tensor,
    lengths: Tensor,
    shared: Shared | None = None,
    *,
    scale: float | None = None,
    softcap: float = 0.0,
    window: int = 0,
    backend: str = "auto",
) -> Tensor:
    """softmax(q . k * scale) v over each row's shared prompt and its own tokens, which follow it.

    q: (R, H, E). keys, values: (G, B, P, E), B blocks of P tokens, of q's dtype, the last dimension dense and both of
    the same strides; H is a multiple of G, and head h reads group h // (H / G). tables: (R, W) int32, the blocks of
    each row's own tokens; lengths: (R,) int32, how many there are. scale: 1 / sqrt(E) where not given. softcap: scores
    s become softcap * tanh(s / softcap); window: a row attends to its last ``window`` tokens alone; 0 is off for both.
    Table entries past a length may be anything. Returns (R, H, E) in q's dtype, zeros for a row without a token.

    backend: ``auto`` is ``triton`` on a GPU and ``reference`` elsewhere. Raises ValueError for arguments that do not
    fit together and for a back end that cannot run here.
    """
    _check(q, keys, values, tables, lengths, shared)
    if softcap < 0 or window < 0:
        raise ValueError(f"softcap and window must be 0 (off) or more, got {softcap} and {window}")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "auto":
        backend = "triton" if q.is_cuda else "reference"
    if backend == "reference":
        options = {"scale": scale, "softcap": softcap}
        return reference_decode_attention(q, keys, values, tables, lengths, shared, window=window, **options)
    from plum_kernels.decode_attention.triton_backend import INTERPRETED, launch  # triton is only on Linux

    if not (q.is_cuda or INTERPRETED):
        raise ValueError(f"backend triton needs a GPU, got tensors on {q.device}: use backend='reference'")
    return launch(q, keys, values, tables, lengths, shared, scale=scale, softcap=softcap, window=window)


def _check(q: Tensor, keys: Tensor, values: Tensor, tables: Tensor, lengths: Tensor, shared: Shared | None) -> None:
    if q.dim() != 3 or keys.dim() != 4 or keys.shape != values.shape or keys.stride() != values.stride():
        raise ValueError(
            f"q must be (R, H, E), keys and values (G, B, P, E) of one shape and strides, got {tuple(q.shape)}, "
            f"{tuple(keys.shape)} and {tuple(values.shape)}"
        )
    if q.shape[2] != keys.shape[3] or q.shape[1] % keys.shape[0]:
        raise ValueError(
            f"heads must be a multiple of groups and of one width, got q {tuple(q.shape)}, keys {tuple(keys.shape)}"
        )
    if not q.dtype == keys.dtype == values.dtype or not q.is_floating_point():
        raise ValueError(
            f"q, keys and values must be of one floating dtype, got {q.dtype}, {keys.dtype}, {values.dtype}"
        )
    if q.stride(2) != 1 or keys.stride(3) != 1:
        raise ValueError("the last dimension of q, keys and values must be dense: call contiguous()")
    integers = {"tables": (tables, 2, len(q)), "lengths": (lengths, 1, len(q))}
    if shared is not None:
        entries = len(shared.members)
        integers |= {"shared.tables": (shared.tables, 2, entries), "shared.lengths": (shared.lengths, 1, entries)}
        integers |= {"shared.members": (shared.members, 2, entries)}
    for name, (x, rank, rows) in integers.items():
        if x.dtype != torch.int32 or x.dim() != rank or len(x) != rows or x.device != q.device:
            raise ValueError(
                f"{name} must be int32 of {rank} dimensions and {rows} rows on {q.device}, got {x.dtype} "
                f"{tuple(x.shape)} on {x.device}"
            )
