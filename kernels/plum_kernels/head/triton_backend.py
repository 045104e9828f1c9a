"""The head on a GPU: one launch keeps a chunk's exponentials, one turns them into gradients, two products end it.

With everything kept the products are the device's own; with a filter they visit the kept tiles alone. dW is summed
over chunks in fp32. Letters: R rows of a chunk, D width, V vocabulary, C tiles of the vocabulary.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from plum_kernels.head.filter import Kept, choose
from plum_kernels.head.triton_kernels import kept_dw, kept_dx, tile_exponentials, tile_finish
from plum_kernels.logprob.blocks import LN_2, Transform, spans
from plum_kernels.logprob.products import product
from plum_kernels.logprob.triton_backend import INTERPRETED, Launch
from plum_kernels.preference.formulas import SPECS, Given, Options
from plum_kernels.preference.triton_backend import _preference_loss

CHUNK_BYTES = 1 << 30
SLAB = 8192  # columns of dW that one product makes: what it holds beside dW is SLAB x D
# width tile, depth, vocabulary tile of dW, warps, stages
PRODUCT = (16, 16, 16, 1, 1) if INTERPRETED else (128, 32, 128, 8, 3)
FINISH_ROWS = 16  # rows that tile_finish holds at once


def triton_score(
    logps: Tensor, cu: Tensor, given: Given, objective: str, options: Options
) -> tuple[Tensor, Tensor, Tensor]:
    values = [float(options[name]) for name in SPECS[objective].options]
    losses, slopes, shown = _preference_loss(logps, cu, *given, objective, values)
    return losses, slopes, shown


class TritonHead:
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
        self.x, self.weight, self.targets, self.bias = x.contiguous(), weight.contiguous(), targets, bias
        self.threshold, self.transform = threshold, transform
        self.launch = Launch(self.x, self.weight, bias, transform, False)
        self.stride = triton.cdiv(len(weight), 8) * 8  # rows of the buffer start on 16 bytes
        self.rows = max(sharpest, min(len(x), CHUNK_BYTES // (self.stride * x.element_size())))
        # the interpreter narrows to bf16 by truncation, so there the kernels store fp32
        kind = torch.float32 if INTERPRETED else x.dtype
        self.buffer = x.new_empty(self.rows, self.stride, dtype=kind)
        self.dx = torch.empty_like(self.x) if wanted[0] else None
        self.dw = torch.zeros_like(self.weight, dtype=torch.float32) if wanted[1] else None
        self.db = torch.zeros(len(weight), dtype=torch.float32, device=x.device) if wanted[2] else None

    def forward(self, r: slice) -> Tensor:
        y = self.targets[r]
        picked = torch.empty(len(y), dtype=torch.float32, device=y.device)
        tops, self.sums = (picked.new_empty(self.launch.columns, len(y)) for _ in range(2))
        if len(y):
            arrays = (picked, tops, self.sums, self.buffer, self.stride)
            self.launch(tile_exponentials, self.x[r], y, *arrays)
        m = tops.amax(0) if len(y) else picked
        self.scale = (tops - m).exp2_()
        s = (self.scale * self.sums).sum(0)
        self.scale.div_(s)
        self.logp = (picked - m - s.log2()) * LN_2
        slope = self.transform.slope(picked.clone())
        self.slope = torch.ones_like(picked) if slope is None else slope
        return self.logp

    def backward(self, r: slice, g: Tensor) -> Tensor:
        y, gain, tile = self.targets[r], self.transform.gain, self.launch.tile
        if len(y) == 0:
            return torch.zeros_like(g)
        own = -torch.expm1(self.logp) * g * self.slope * gain  # (1 - p) g: exact also where p is nearly 1
        at = torch.div(y, tile.BV, rounding_mode="floor")
        kept = choose(self.scale * self.sums, self.logp.exp(), at, g, tile.BM, self.threshold)
        factor = self.scale.mul_(g * -gain)
        grid = (triton.cdiv(len(y), tile.BM), self.launch.columns)
        tile_finish[grid](
            self.buffer, y, factor, own, kept.active.view(torch.uint8), self.stride, len(y), len(self.weight),
            self.launch.columns, BM=tile.BM, BV=tile.BV, SUB=min(tile.BM, FINISH_ROWS), num_warps=4,
        )  # fmt: skip
        da = self.buffer[: len(y), : len(self.weight)]
        if self.threshold > 0:
            self._kept_products(r, da, kept)
            self._targets_alone(r, kept.target_lost, own)
        else:
            self._whole_products(r, da.to(self.x.dtype))
        if self.db is not None:
            self.db += da.sum(0, dtype=torch.float32)
        return kept.dropped

    def _whole_products(self, r: slice, da: Tensor) -> None:
        if self.dx is not None:
            torch.mm(da, self.weight, out=self.dx[r])
        if self.dw is not None:
            for v in spans(len(self.weight), SLAB):
                self.dw[v] += product(da[:, v].T, self.x[r])

    def _kept_products(self, r: slice, da: Tensor, kept: Kept) -> None:
        tile, (rows, width), vocabulary = self.launch.tile, self.x[r].shape, len(self.weight)
        side, deep, narrow, warps, stages = PRODUCT
        fixed = {"WIDEN": INTERPRETED, "BM": tile.BM, "BV": tile.BV, "BD": side, "num_warps": warps}
        fixed["num_stages"] = stages
        if self.dx is not None:
            tiles, counts = _lists(kept.active)
            kept_dx[(triton.cdiv(width, side), len(tiles))](
                da, self.weight, self.dx[r], tiles, counts, self.stride, rows, vocabulary, width, tiles.shape[1],
                BK=min(deep, tile.BV), **fixed,
            )  # fmt: skip
        if self.dw is not None:
            blocks, counts = _lists(kept.active.T)
            narrow = min(narrow, tile.BV)
            kept_dw[(triton.cdiv(width, side), triton.cdiv(vocabulary, narrow))](
                da, self.x[r], self.dw, blocks, counts, self.stride, rows, vocabulary, width, blocks.shape[1],
                BN=narrow, BK=min(deep, tile.BM), **fixed,
            )  # fmt: skip

    def _targets_alone(self, r: slice, lost: Tensor, own: Tensor) -> None:
        """The terms of targets whose tile is left out; index_put_ sorts, so that no sum depends on a race."""
        y = self.targets[r]
        value = torch.where(lost, own, 0.0).unsqueeze(1)
        if self.dx is not None:
            self.dx[r] = (self.dx[r] + value * self.weight[y]).to(self.dx.dtype)
        if self.dw is not None:
            self.dw.index_put_((y,), value * self.x[r], accumulate=True)
        if self.db is not None:
            self.db.index_put_((y,), value.squeeze(1), accumulate=True)

    def results(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        return (
            self.dx,
            None if self.dw is None else self.dw.to(self.weight.dtype),
            None if self.db is None or self.bias is None else self.db.to(self.bias.dtype),
        )


def _lists(active: Tensor) -> tuple[Tensor, Tensor]:
    """(A, B) bool to (A, B) int32 with the kept ones of each row first, in order, and (A,) int32 how many."""
    order = (~active).to(torch.uint8).argsort(dim=1, stable=True)
    return order.to(torch.int32).contiguous(), active.sum(1, dtype=torch.int32)
