"""The launches of ``decode_attention``."""

from __future__ import annotations

import os

import torch
import triton
from torch import Tensor

from plum_kernels.decode_attention.reference import Shared
from plum_kernels.decode_attention.triton_kernels import attend_part, merge_parts

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ROWS = 16  # lanes of a tile: the least that tensor cores take
COLS = 16 if INTERPRETED else 32  # positions at a time
SPLIT = 32 if INTERPRETED else 512  # positions a program: long contexts are spread over the device


def launch(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    tables: Tensor,
    lengths: Tensor,
    shared: Shared | None,
    *,
    scale: float,
    softcap: float,
    window: int,
) -> Tensor:
    """As ``interface.decode_attention``, which has checked the arguments. No host synchronisation."""
    rows, heads, width = q.shape
    if not q.numel():
        return torch.empty_like(q)
    groups, _, block, _ = keys.shape
    own_splits = triton.cdiv(tables.shape[1] * block, SPLIT)
    shared_splits = 0 if shared is None else triton.cdiv(shared.tables.shape[1] * block, SPLIT)
    parts = own_splits + shared_splits
    partial = q.new_empty((parts, rows, heads, width), dtype=torch.float32)
    lse = q.new_full((parts, rows, heads), -torch.inf, dtype=torch.float32)
    starts = torch.zeros_like(lengths)  # of own tokens: behind the row's shared prompt
    if shared is not None:
        members, of = shared.members.flatten().long(), shared.lengths.repeat_interleave(shared.members.shape[1])
        # idle slots add 0 to row 0
        starts.index_add_(0, members.clamp(min=0), torch.where(members >= 0, of, 0))
    positions = starts + lengths - 1
    identity = torch.arange(rows, dtype=torch.int32, device=q.device).unsqueeze(1)
    work = [(tables, lengths, starts, identity, 0, own_splits)]
    if shared is not None:
        bases = torch.zeros_like(shared.lengths)
        work.append((shared.tables, shared.lengths, bases, shared.members, own_splits, shared_splits))
    for table, length, base, members, first, splits in work:
        tiles = triton.cdiv(members.shape[1] * heads // groups, ROWS)
        if not len(members) * tiles * splits:
            continue
        attend_part[(len(members) * tiles, groups, splits)](
            q, keys, values, table.contiguous(), length, base, members.contiguous(), positions, partial, lse,
            q.stride(0), q.stride(1), keys.stride(0), keys.stride(1), keys.stride(2), table.shape[1],
            members.shape[1], rows, heads, first, tiles, scale,
            J=heads // groups, E=width, E_PAD=max(16, triton.next_power_of_2(width)), P=block, ROWS=ROWS, COLS=COLS,
            SPLIT=SPLIT, CAP=softcap, WINDOW=window, WIDEN=INTERPRETED,
        )  # fmt: skip
    # the interpreter narrows to bf16 by truncation, so there the kernel stores fp32 and torch narrows
    out = q.new_empty((rows, heads, width), dtype=torch.float32 if INTERPRETED else q.dtype)
    merge_parts[(rows * heads,)](partial, lse, out, parts, rows * heads, E=width, E_PAD=triton.next_power_of_2(width))
    return out.to(q.dtype)
