"""Log-probs and their gradients in blocks that stay in cache, without the logits matrix.

Letters in shapes: N rows, D width, V vocabulary, R rows of a block, C vocabulary columns of a block.

Forward keeps a running maximum and a running sum a row (Milakov and Gimelshein 2018, alg. 3). Backward makes
each block of logits again and turns it into their gradient in place; kernels/README.md derives it. The
vocabulary is the outer loop, so that a block of the weight is widened once and its gradient is written once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plum_kernels.logprob.blocks import LN_2, Blocks, Upstream, local_targets, spans


def statistics(blocks: Blocks, targets: Tensor, entropy: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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


def _to_gradient(u: Tensor, r: slice, state: tuple[Tensor, Tensor, Tensor], g: Upstream) -> Tensor:
    """In place: u (R, C) to p * (g_lse - g_logp - g_entropy * (log p + H)), the target's own term aside."""
    m, s, h = (part[r].unsqueeze(1) for part in state)
    flow = (g.lse[r] - g.target[r]).unsqueeze(1)
    e = u.sub_(m)
    if g.entropy is None:
        return e.exp2_().mul_(flow / s)
    entropic = (e * LN_2 + (h - s.log())).mul_(g.entropy[r].unsqueeze(1))
    e.exp2_()
    return e.mul_(entropic.masked_fill_(e == 0, 0.0).neg_().add_(flow)).div_(s)


def gradients(
    blocks: Blocks,
    targets: Tensor,
    state: tuple[Tensor, Tensor, Tensor],
    g: Upstream,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x (N, D), weight (V, D) and bias (V,), in their own dtypes; None where not wanted."""
    want_x, want_w, want_b = wanted
    dx = torch.zeros_like(blocks.x) if want_x else None
    dw = torch.empty_like(blocks.weight) if want_w else None
    db = torch.empty_like(blocks.bias) if want_b and blocks.bias is not None else None
    constant = blocks.transform.gain
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
