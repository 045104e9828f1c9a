"""The blocked path for a head that is not trained: the hidden states' gradient is made in forward, once.

Each row's gradient is its own upstream gradient times something that only depends on x and W. With e = sum_j p_j W_j,
which forward adds up beside its running sum, in the manner of online softmax (Milakov and Gimelshein 2018, alg. 3),

    d logp / dx = W_y - e,      d lse / dx = e      (each term times the slope of the soft cap, over T)

so backward scales two vectors a row: 4 N D V operations in all where making the logits again would take 6.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plum_kernels.logprob.blocks import LN_2, Blocks, Transform, local_targets, spans


def _forward(blocks: Blocks, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The target's u, m and s, (N,) each, and sum_j 2**(u_j - m) slope_j W_j, (N, D)."""
    picked, s = (blocks.x.new_zeros(len(targets)) for _ in range(2))
    m = torch.full_like(s, torch.finfo(blocks.dtype).min)
    mean = torch.zeros_like(blocks.x)
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
    return picked, m, s, mean


class FrozenHeadLogprob(torch.autograd.Function):
    """(x, weight, targets, bias, transform) to (logp, logsumexp), (N,) each; a gradient for x alone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, transform: Transform
    ) -> tuple[Tensor, Tensor]:
        picked, m, s, mean = _forward(Blocks(x, weight, bias, transform), targets)
        mean.div_(s.unsqueeze(1))
        slope = transform.slope(picked.clone())
        ctx.save_for_backward(mean, weight, targets, torch.ones_like(s) if slope is None else slope)
        ctx.transform, ctx.dtype = transform, x.dtype
        ctx.set_materialize_grads(False)
        return (picked - m - s.log2()) * LN_2, (m + s.log2()) * LN_2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_logp: Tensor | None, g_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        mean, weight, targets, slope = ctx.saved_tensors
        zero = torch.zeros_like(slope)
        target, lse = (zero if g is None else g for g in (g_logp, g_lse))
        constant = 1.0 / ctx.transform.temperature
        dx = mean * ((lse - target) * constant).unsqueeze(1)
        for r in spans(len(targets), 1024):  # so that no second (N, D) is held
            dx[r].addcmul_(weight[targets[r]].to(dx.dtype), (target[r] * slope[r] * constant).unsqueeze(1))
        return dx.to(ctx.dtype), None, None, None, None
