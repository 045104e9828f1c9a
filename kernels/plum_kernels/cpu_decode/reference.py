"""The functions of ``interface`` and ``product`` by their definitions, in torch."""

from __future__ import annotations

import torch
from torch import Tensor


def reference_attend(
    qkv: Tensor,
    turns: tuple[Tensor, Tensor],
    positions: Tensor,
    owners: Tensor,
    lengths: Tensor,
    prompts: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
) -> Tensor:
    """``attend``'s answer (R, H * E), row by row; writes the new keys and values into ``own``."""
    groups, width = prompts[0].shape[1:3]
    out = []
    for row, x in enumerate(qkv.unflatten(1, (-1, width))):
        position, owner, length = int(positions[row]), int(owners[row]), int(lengths[row])
        cos, sin = turns[0][position], turns[1][position]
        q, k, v = x.split((len(x) - 2 * groups, groups, groups))
        q, k = (y * cos + y.roll(width // 2, -1) * sin for y in (q, k))
        place = position - length
        own[0][row, :, :, place], own[1][row, :, place] = k, v
        keys = torch.cat((prompts[0][owner, :, :, :length], own[0][row, :, :, : place + 1]), -1)  # (G, E, keys)
        values = torch.cat((prompts[1][owner, :, :length], own[1][row, :, : place + 1]), 1)
        weights = (q.view(groups, -1, width) @ keys * width**-0.5).softmax(-1)
        out.append((weights @ values).flatten())
    return torch.stack(out)


def reference_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
    """``Matrix.linear`` in the arguments' dtype: x (R, K), weight (N, K), bias (N,), residual and answer (R, N)."""
    out = x @ weight.T
    out = out if bias is None else out + bias
    return out if residual is None else out + residual
