"""The blocked path for a head that is not trained: the hidden states' gradient is made in forward, once.

Each row's gradient is its own upstream gradient times something that only depends on x and W. With e = sum_j p_j W_j,
which forward adds up beside its running sum, in the manner of online softmax (Milakov and Gimelshein 2018, alg. 3),

    d logp / dx = W_y - e,      d lse / dx = e      (each term times the slope of the soft cap, over T)

so backward scales two vectors a row: 4 N D V operations in all where making the logits again would take 6.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plum_kernels.logprob.blocks import Blocks, Transform, local_targets, spans

ROWS = 256  # of the gradient that are made at once


def expectation(blocks: Blocks, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The target's u, m and s, (N,) each, and sum_j p_j slope_j W_j, (N, D)."""
    picked, s = (blocks.x.new_zeros(len(targets), dtype=blocks.dtype) for _ in range(2))
    m = torch.full_like(s, torch.finfo(blocks.dtype).min)
    mean = torch.zeros_like(blocks.x, dtype=blocks.dtype)
    for v, w, b in blocks.vocabulary():
        local, inside = local_targets(targets, v)
        for r in spans(len(targets), blocks.rows):
            u = blocks.logits(r, w, b)
            picked[r] = torch.where(inside[r], u.gather(1, local[r]).squeeze(1), picked[r])
            top = torch.maximum(m[r], u.amax(1))
            slope = blocks.transform.slope(u)
            e = u.sub_(top.unsqueeze(1)).exp2_()
            scale = (m[r] - top).exp2()
            s[r] = scale * s[r] + e.sum(1)
            m[r] = top
            mean[r].mul_(scale.unsqueeze(1)).addmm_(e if slope is None else e.mul_(slope), w)
    return picked, m, s, mean.div_(s.unsqueeze(1))


def gradient(
    g_logp: Tensor,  # (N,) upstream, 0 where a row is ignored
    g_lse: Tensor,  # (N,)
    weight: Tensor,  # (V, D)
    targets: Tensor,  # (N,) int64 in [0, V)
    slope: Tensor,  # (N,) of the soft cap at each target
    mean: Tensor,  # (N, D), the second result of ``expectation``
    transform: Transform,
) -> Tensor:
    """(N, D) gradient of x in the weight's dtype."""
    dx = mean.new_empty(mean.shape, dtype=weight.dtype)
    for r in spans(len(targets), ROWS):  # so that no second (N, D) in fp32 is held
        row = mean[r] * ((g_lse[r] - g_logp[r]) * transform.gain).unsqueeze(1)
        dx[r] = row.addcmul_(weight[targets[r]].to(row.dtype), (g_logp[r] * slope[r] * transform.gain).unsqueeze(1))
    return dx
