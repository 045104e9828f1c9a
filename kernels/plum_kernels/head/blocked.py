"""The head on a CPU: a chunk's exponentials are kept block by block and consumed by the gradient's two products.

6 N D V operations, a chunk of logits as workspace. Letters: R rows of a chunk, C columns of a block, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plum_kernels.head.filter import Kept, choose
from plum_kernels.logprob.blocks import LN_2, Blocks, Transform, local_targets, spans

CHUNK_BYTES = 1 << 28
FILTER_ROWS = 64  # of a tile that is kept or left out


class BlockedHead:
    def __init__(
        self,
        x: Tensor,  # (N, D)
        weight: Tensor,  # (V, D)
        targets: Tensor,  # (N,) int64
        bias: Tensor | None,
        transform: Transform,
        threshold: float,
        wanted: tuple[bool, bool, bool],
        sharpest: int,  # rows of the longest inseparable piece
    ) -> None:
        self.blocks = Blocks(x, weight, bias, transform)
        self.dtype, self.targets, self.threshold = self.blocks.dtype, targets, threshold
        size = torch.empty(0, dtype=self.dtype).element_size()
        self.rows = max(sharpest, min(len(x), CHUNK_BYTES // (size * len(weight))))
        self.buffer = x.new_empty(self.rows * len(weight), dtype=self.dtype)
        self.dx = torch.zeros_like(self.blocks.x) if wanted[0] else None
        self.dw = torch.zeros_like(weight, dtype=self.dtype) if wanted[1] else None
        self.db = x.new_zeros(len(weight), dtype=self.dtype) if wanted[2] else None
        self.source, self.weight, self.bias = x, weight, bias

    def _block(self, rows: int, v: slice) -> Tensor:
        return self.buffer[rows * v.start : rows * v.stop].view(rows, v.stop - v.start)

    def forward(self, r: slice) -> Tensor:
        y = self.targets[r]
        rows = len(y)
        picked = self.blocks.x.new_zeros(rows)
        tops, sums = [], []
        for v, w, b in self.blocks.vocabulary():
            local, inside = local_targets(y, v)
            u = self._block(rows, v)
            if b is None:
                u.addmm_(self.blocks.x[r], w.T, beta=0, alpha=self.blocks.transform.inner)
            else:
                torch.addmm(b, self.blocks.x[r], w.T, alpha=self.blocks.transform.inner, out=u)
            u = self.blocks.transform.finish(u)
            picked = torch.where(inside, u.gather(1, local).squeeze(1), picked)
            top = u.amax(1).clamp_(min=torch.finfo(self.dtype).min)
            slope = self.blocks.transform.slope(u)
            e = u.sub_(top.unsqueeze(1)).exp2_()
            tops.append(top)
            sums.append(e.sum(1))
            if slope is not None:
                e.mul_(slope)
        self.tops, self.sums = torch.stack(tops), torch.stack(sums)
        m = self.tops.amax(0)
        self.scale = (self.tops - m).exp2_()
        s = (self.scale * self.sums).sum(0)
        self.scale.div_(s)
        self.logp = (picked - m - s.log2()) * LN_2
        slope = self.blocks.transform.slope(picked.clone())
        self.slope = torch.ones_like(picked) if slope is None else slope
        return self.logp

    def backward(self, r: slice, g: Tensor) -> Tensor:
        y, gain = self.targets[r], self.blocks.transform.gain
        rows = len(y)
        own = -torch.expm1(self.logp) * g * self.slope * gain  # (1 - p) g: exact also where p is nearly 1
        mass, tile = self.scale * self.sums, torch.div(y, self.blocks.columns, rounding_mode="floor")
        kept = choose(mass, self.logp.exp(), tile, g, FILTER_ROWS, self.threshold)
        for c, (v, w, _) in enumerate(self.blocks.vocabulary()):
            local, inside = local_targets(y, v)
            da = self._block(rows, v).mul_((self.scale[c] * g * -gain).unsqueeze(1))
            hit = da.gather(1, local).squeeze(1)
            da.scatter_(1, local, torch.where(inside, own, hit).unsqueeze(1))
            for part in _active_spans(kept, c, rows):
                self._add(slice(r.start + part.start, r.start + part.stop), v, w, da[part])
        if bool(kept.target_lost.any()):
            self._targets_alone(r, kept.target_lost, own)
        return kept.dropped

    def _add(self, r: slice, v: slice, w: Tensor, da: Tensor) -> None:
        if self.dx is not None:
            self.dx[r].addmm_(da, w)
        if self.dw is not None:
            self.dw[v].addmm_(da.T, self.blocks.x[r])
        if self.db is not None:
            self.db[v].add_(da.sum(0))

    def _targets_alone(self, r: slice, lost: Tensor, own: Tensor) -> None:
        """The terms of targets whose tile is left out."""
        at = lost.nonzero().squeeze(1)
        y, value = self.targets[r][at], own[at].unsqueeze(1)
        if self.dx is not None:
            self.dx.index_add_(0, at + r.start, value * self.weight[y].to(self.dtype))
        if self.dw is not None:
            self.dw.index_add_(0, y, value * self.blocks.x[r][at])
        if self.db is not None:
            self.db.index_add_(0, y, value.squeeze(1))

    def results(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        kinds = (self.source, self.weight, self.bias)
        made = (self.dx, self.dw, self.db)
        dx, dw, db = (None if t is None or k is None else t.to(k.dtype) for t, k in zip(made, kinds, strict=True))
        return dx, dw, db


def _active_spans(kept: Kept, c: int, rows: int) -> list[slice]:
    """Runs of adjacent row blocks that keep tile ``c``."""
    runs: list[slice] = []
    for active, part in zip(kept.active[:, c].tolist(), spans(rows, FILTER_ROWS), strict=True):
        if not active:
            continue
        if runs and runs[-1].stop == part.start:
            runs[-1] = slice(runs[-1].start, part.stop)
        else:
            runs.append(part)
    return runs
