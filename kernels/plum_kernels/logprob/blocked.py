"""Rows x vocabulary in blocks that stay in cache: log-probs and their gradients without the logits matrix.

Letters in shapes: N rows, D width, V vocabulary, R rows of a block, C vocabulary columns of a block.

Forward keeps a running maximum and a running sum a row (Milakov and Gimelshein 2018, alg. 3). Backward makes
each block of logits again and turns it into their gradient in place; kernels/README.md derives it. The
vocabulary is the outer loop, so that a block of the weight is widened once and its gradient is written once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOG2_E, LN_2 = math.log2(math.e), math.log(2)
WHOLE_VOCABULARY = 4096  # up to here one block spans the vocabulary and nothing has to be merged
BLOCK_COLUMNS = 2048
BLOCK_ELEMENTS = 1 << 19  # 2 MiB of fp32: a block is made, exponentiated and consumed in the level-2 cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """From raw logits a to u = z * log2(e), z = softcap * tanh(a / softcap) / temperature.

    Base 2: the factor costs nothing inside the matrix product, and exp2 is three times as fast on a CPU
    as exp, which besides slows down thirtyfold where its result is subnormal.
    """

    temperature: float
    softcap: float | None

    @property
    def inner(self) -> float:
        """What the matrix product is scaled by."""
        return LOG2_E / self.temperature if self.softcap is None else 1.0 / self.softcap

    @property
    def outer(self) -> float:
        """What the tanh is scaled by."""
        assert self.softcap is not None
        return self.softcap * LOG2_E / self.temperature

    def finish(self, scaled: Tensor) -> Tensor:
        """In place, a * inner (R, C) to u."""
        return scaled if self.softcap is None else scaled.tanh_().mul_(self.outer)

    def slope(self, u: Tensor) -> Tensor | None:
        """dz/da less its factor ``1/temperature``: 1 - tanh**2, (R, C); None where it is 1 everywhere."""
        return None if self.softcap is None else (u / self.outer).square_().neg_().add_(1.0)


def block_shape(columns: int) -> tuple[int, int]:
    """(rows, columns) of a block for a vocabulary of ``columns``."""
    width = columns if columns <= WHOLE_VOCABULARY else BLOCK_COLUMNS
    return max(32, BLOCK_ELEMENTS // width), width


def spans(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


class _Blocks:
    """Blocks of logits in one reused buffer: the next block overwrites the last."""

    def __init__(self, x: Tensor, weight: Tensor, bias: Tensor | None, transform: Transform) -> None:
        self.rows, self.columns = block_shape(len(weight))
        self.dtype = torch.promote_types(x.dtype, torch.float32)
        self.x = x.to(self.dtype)
        self.weight, self.bias, self.transform = weight, bias, transform
        self.buffer = x.new_empty(min(self.rows, len(x)) * min(self.columns, len(weight)), dtype=self.dtype)

    def vocabulary(self) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """Each span of the vocabulary with its weight (C, D) widened and its bias (C,) widened and scaled."""
        for v in spans(len(self.weight), self.columns):
            b = None if self.bias is None else self.bias[v].to(self.dtype) * self.transform.inner
            yield v, self.weight[v].to(self.dtype), b

    def logits(self, r: slice, w: Tensor, b: Tensor | None) -> Tensor:
        """u (R, C) of rows ``r`` and the weight block ``w``."""
        out = self.buffer[: (r.stop - r.start) * len(w)].view(-1, len(w))
        if b is None:  # beta=0: what the buffer held is not read
            out.addmm_(self.x[r], w.T, beta=0, alpha=self.transform.inner)
        else:
            torch.addmm(b, self.x[r], w.T, alpha=self.transform.inner, out=out)
        return self.transform.finish(out)


def _local_targets(targets: Tensor, v: slice) -> tuple[Tensor, Tensor]:
    """Each target's column within span ``v`` (any column where it lies outside), and if it lies inside."""
    local = targets - v.start
    inside = (local >= 0) & (local < v.stop - v.start)
    return local.clamp_(0, v.stop - v.start - 1).unsqueeze(1), inside


def _forward(blocks: _Blocks, targets: Tensor, entropy: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N,) each: the target's u, the maximum m of u, s = sum 2**(u - m), t = sum 2**(u - m) (u - m) ln 2."""
    picked, s, t = (blocks.x.new_zeros(len(targets), dtype=blocks.dtype) for _ in range(3))
    m = torch.full_like(s, torch.finfo(blocks.dtype).min)  # finite, so that m - m is 0 and never NaN
    for v, w, b in blocks.vocabulary():
        local, inside = _local_targets(targets, v)
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
        picked, m, s, t = _forward(_Blocks(x, weight, bias, transform), targets, entropy)
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
        dx, dw, db = _backward(_Blocks(x, weight, bias, ctx.transform), targets, (m, s, h), upstream, wanted)
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
    blocks: _Blocks,
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
        local, inside = _local_targets(targets, v)
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

    Memory beyond inputs and outputs: one block (2 MiB), x in fp32, one widened weight block and its gradient.
    """
    assert math.isfinite(temperature)
    transform = Transform(temperature=temperature, softcap=softcap)
    logp, lse, h = _BlockedLogprob.apply(x, weight, targets, bias, transform, entropy)
    return logp, lse, h if entropy else None
