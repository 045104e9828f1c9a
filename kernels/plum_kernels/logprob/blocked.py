"""Log-probs and their gradients in blocks that stay in cache, without the logits matrix.

Letters in shapes: N rows, D width, V vocabulary, R rows of a block, C vocabulary columns of a block.

Forward keeps a running maximum and a running sum a row (Milakov and Gimelshein 2018, alg. 3). Backward makes
each block of logits again and turns it into their gradient in place; kernels/README.md derives it. The
vocabulary is the outer loop, so that a block of the weight is widened once and its gradient is written once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plum_kernels.logprob.blocks import LN_2, Blocks, Transform, local_targets, spans
from plum_kernels.logprob.frozen import FrozenHeadLogprob


def _forward(blocks: Blocks, targets: Tensor, entropy: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N,) each: the target's u, the maximum m of u, s = sum 2**(u - m), t = sum 2**(u - m) (u - m) ln 2."""
    picked, s, t = (blocks.x.new_zeros(len(targets), dtype=blocks.dtype) for _ in range(3))
    m = torch.full_like(s, torch.finfo(blocks.dtype).min)  # finite, so that m - m is 0 and never NaN
    for v, w, b in blocks.vocabulary():
        local, inside = local_targets(targets, v)
        for r in spans(len(targets), blocks.rows):
            u = blocks.logits(r, w, b)
            picked[r] = torch.where(inside[r], u.gather(1, local[r]).squeeze(1), picked[r])
            top = torch.maximum(m[r], u.amax(1))
            e = u.sub_(top.unsqueeze(1)).exp2_()
            shift = m[r] - top
            scale = shift.exp2()
            if entropy:  # e ln e, which is 0 at 0
                t[r] = scale * (t[r] + shift * LN_2 * s[r]) - torch.special.entr(e).sum(1)
            s[r] = scale * s[r] + e.sum(1)
            m[r] = top
    return picked, m, s, t


class _BlockedLogprob(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        bias: Tensor | None,
        transform: Transform,
        entropy: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        picked, m, s, t = _forward(Blocks(x, weight, bias, transform), targets, entropy)
        h = s.log() - t / s if entropy else torch.zeros_like(s)
        ctx.save_for_backward(x, weight, targets, bias, m, s, h)
        ctx.transform, ctx.entropy = transform, entropy
        ctx.set_materialize_grads(False)
        if not entropy:
            ctx.mark_non_differentiable(h)
        # picked - m first: at large logits the difference is exact where picked - logsumexp is not
        return (picked - m - s.log2()) * LN_2, (m + s.log2()) * LN_2, h

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, g_logp: Tensor | None, g_lse: Tensor | None, g_h: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, weight, targets, bias, m, s, h = ctx.saved_tensors
        zero = torch.zeros_like(s)
        upstream = _Upstream(
            target=zero if g_logp is None else g_logp,
            lse=zero if g_lse is None else g_lse,
            entropy=g_h if ctx.entropy else None,
        )
        wants = ctx.needs_input_grad
        wanted = (wants[0], wants[1], bias is not None and wants[3])
        dx, dw, db = _backward(Blocks(x, weight, bias, ctx.transform), targets, (m, s, h), upstream, wanted)
        return None if dx is None else dx.to(x.dtype), dw, None, db, None, None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Upstream:
    """Gradients of the loss by the three outputs, (N,) each."""

    target: Tensor
    lse: Tensor
    entropy: Tensor | None


def _to_gradient(u: Tensor, r: slice, state: tuple[Tensor, Tensor, Tensor], g: _Upstream) -> Tensor:
    """In place: u (R, C) to p * (g_lse - g_logp - g_entropy * (log p + H)), the target's own term aside."""
    m, s, h = (part[r].unsqueeze(1) for part in state)
    flow = (g.lse[r] - g.target[r]).unsqueeze(1)
    e = u.sub_(m)
    if g.entropy is None:
        return e.exp2_().mul_(flow / s)
    entropic = (e * LN_2 + (h - s.log())).mul_(g.entropy[r].unsqueeze(1))
    e.exp2_()
    return e.mul_(entropic.masked_fill_(e == 0, 0.0).neg_().add_(flow)).div_(s)


def _backward(
    blocks: Blocks,
    targets: Tensor,
    state: tuple[Tensor, Tensor, Tensor],
    g: _Upstream,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x (N, D), weight (V, D) and bias (V,), in their own dtypes; None where not wanted."""
    want_x, want_w, want_b = wanted
    dx = torch.zeros_like(blocks.x) if want_x else None
    dw = torch.empty_like(blocks.weight) if want_w else None
    db = torch.empty_like(blocks.bias) if want_b and blocks.bias is not None else None
    constant = 1.0 / blocks.transform.temperature
    for v, w, b in blocks.vocabulary():
        local, inside = local_targets(targets, v)
        hit = torch.where(inside, g.target, 0.0).to(blocks.dtype).unsqueeze(1)
        dw_v = torch.zeros_like(w) if want_w else None  # the sums over rows stay in fp32
        db_v = w.new_zeros(len(w)) if want_b else None
        for r in spans(len(targets), blocks.rows):
            u = blocks.logits(r, w, b)
            slope = blocks.transform.slope(u)
            dz = _to_gradient(u, r, state, g).scatter_add_(1, local[r], hit[r])
            if slope is not None:
                dz.mul_(slope)
            if dx is not None:
                dx[r].addmm_(dz, w, alpha=constant)
            if dw_v is not None:
                dw_v.addmm_(dz.T, blocks.x[r], alpha=constant)
            if db_v is not None:
                db_v.add_(dz.sum(0), alpha=constant)
        if dw is not None and dw_v is not None:
            dw[v] = dw_v
        if db is not None and db_v is not None:
            db[v] = db_v
    return dx, dw, db


def blocked_logprob(
    x: Tensor,  # (N, D)
    weight: Tensor,  # (V, D)
    targets: Tensor,  # (N,) int64 in [0, V)
    bias: Tensor | None,  # (V,)
    *,
    temperature: float,
    softcap: float | None,
    entropy: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(logp, logsumexp, entropy), each (N,) fp32, or fp64 for fp64 inputs.

    Memory beyond inputs and outputs: one block (2 MiB), x in fp32, one widened weight block and its gradient. A
    head that takes no gradient is not visited again in backward; then the gradient of x is held from forward on.
    """
    assert math.isfinite(temperature)
    transform = Transform(temperature=temperature, softcap=softcap)
    trained = weight.requires_grad or (bias is not None and bias.requires_grad)
    if torch.is_grad_enabled() and x.requires_grad and not trained and not entropy:
        return *FrozenHeadLogprob.apply(x, weight, targets, bias, transform), None
    logp, lse, h = _BlockedLogprob.apply(x, weight, targets, bias, transform, entropy)
    return logp, lse, h if entropy else None
