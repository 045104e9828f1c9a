"""Which tiles of the logits' gradient are left out, and the proof of what that costs.

A tile is a block of rows by a span of the vocabulary. Forward knows its mass q, the sum over the span of p without the
target, for every row and exactly; the target's own term is always kept. Leaving a tile out takes sum |dz| = |g| q from
a row (g the gradient by the row's log-prob, a soft cap's slope is at most 1), so with ``dropped`` the sum of it over
the tiles that a row lost, and k the transform's gain,

    |dx error of the row|  <=  k * dropped * max_j |W_j|,    sum_j |dW_j error|  <=  k * sum over rows of dropped * |x|

R rows of a chunk, C tiles of the vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Kept(NamedTuple):
    active: Tensor  # (row blocks, C) bool
    dropped: Tensor  # (R,) sum of |g| q over what a row lost
    target_lost: Tensor  # (R,) bool: the tile of the row's target is left out


def choose(mass: Tensor, p: Tensor, tile: Tensor, g: Tensor, rows: int, threshold: float) -> Kept:
    """Keep a tile where for some row of its block |g| q >= ``threshold``; at 0 everything is kept.

    mass: (C, R) with the target. p: (R,) the target's probability. tile: (R,) int64, its tile. rows: of a block.
    """
    q = mass.scatter_add(0, tile.unsqueeze(0), -p.unsqueeze(0)).clamp_(min=0).mul_(g.abs())
    count = g.shape[0]
    blocks = -(-count // rows)
    worst = torch.nn.functional.pad(q, (0, blocks * rows - count)).view(len(q), blocks, rows).amax(-1)
    active = (worst >= threshold).T.contiguous()
    lost = ~active.repeat_interleave(rows, 0)[:count]
    return Kept(active, (q * lost.T).sum(0), lost.gather(1, tile.unsqueeze(1)).squeeze(1))
