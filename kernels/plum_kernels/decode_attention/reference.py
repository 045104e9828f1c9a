"""The definition of ``decode_attention``: every row's keys side by side, one softmax."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Prompts that several rows begin with. N entries of K slots; a prompt of more rows than K takes several entries.

    tables: (N, X) int32, blocks of each prompt. lengths: (N,) int32, tokens in them. members: (N, K) int32, the rows
    that attend to each, -1 for an idle slot; a row is a member of one entry at most.
    """

    tables: Tensor
    lengths: Tensor
    members: Tensor


def gather(pool: Tensor, table: Tensor, length: int) -> Tensor:
    """(G, length, E) of one sequence from blocks (G, B, P, E)."""
    return pool[:, table.long()].flatten(1, 2)[:, :length]


def reference_decode_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    tables: Tensor,
    lengths: Tensor,
    shared: Shared | None = None,
    *,
    scale: float,
    softcap: float = 0.0,
    window: int = 0,
) -> Tensor:
    """As ``interface.decode_attention``, row after row, in fp32 (fp64 for fp64 inputs) and rounded once."""
    wide = torch.promote_types(q.dtype, torch.float32)
    entry = (
        {} if shared is None else {int(row): n for n, slots in enumerate(shared.members) for row in slots if row >= 0}
    )
    rows = []
    for row in range(len(q)):
        parts = [(tables[row], int(lengths[row]))]
        if shared is not None and row in entry:
            parts.insert(0, (shared.tables[entry[row]], int(shared.lengths[entry[row]])))
        k, v = (torch.cat([gather(pool, *part) for part in parts], 1).to(wide) for pool in (keys, values))
        grouped = q[row].to(wide).unflatten(0, (k.shape[0], -1))  # (G, J, E)
        scores = grouped @ k.transpose(1, 2) * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        if window:
            scores = scores[..., -window:]
            v = v[:, -window:]
        rows.append((scores.softmax(-1) @ v).flatten(0, 1) if v.shape[1] else torch.zeros_like(q[row], dtype=wide))
    return torch.stack(rows).to(q.dtype) if rows else torch.empty_like(q)
