"""The definition of the head's gradients: all logits, the softmax, and the filter over tiles of them.

Letters in shapes: N rows, D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plum_kernels.head.filter import choose
from plum_kernels.logprob.blocks import Transform

TILE = (64, 2048)  # rows x columns of a tile that is kept or left out


class ReferenceHead:
    """Every row is one chunk."""

    def __init__(
        self,
        x: Tensor,  # (N, D)
        weight: Tensor,  # (V, D)
        targets: Tensor,  # (N,) int64
        bias: Tensor | None,
        transform: Transform,
        threshold: float,
        wanted: tuple[bool, bool, bool],
        sharpest: int,
    ) -> None:
        wide = torch.promote_types(x.dtype, torch.float32)
        self.x, self.weight, self.targets, self.bias = x.to(wide), weight.to(wide), targets, bias
        self.kinds, self.transform, self.threshold, self.wanted = (x, weight, bias), transform, threshold, wanted
        self.rows = max(len(x), 1)
        self.made: tuple[Tensor, Tensor, Tensor] = (
            torch.zeros_like(self.x),
            torch.zeros_like(self.weight),
            self.weight.new_zeros(len(weight)),
        )

    def forward(self, r: slice) -> Tensor:
        z = self.x @ self.weight.T
        if self.bias is not None:
            z = z + self.bias.to(z.dtype)
        z = z * self.transform.logit_scale
        self.slope = torch.ones_like(z)
        if self.transform.softcap is not None:
            tanh = torch.tanh(z / self.transform.softcap)
            z, self.slope = self.transform.softcap * tanh, 1 - tanh**2
        self.log_p = (z / self.transform.temperature).log_softmax(-1)
        return self.log_p.gather(1, self.targets.unsqueeze(1)).squeeze(1)

    def backward(self, r: slice, g: Tensor) -> Tensor:
        p, y = self.log_p.exp(), self.targets.unsqueeze(1)
        rows, columns = TILE
        tiles = torch.stack([part.sum(1) for part in p.split(columns, 1)])
        tile = torch.div(self.targets, columns, rounding_mode="floor")
        log_p = self.log_p.gather(1, y).squeeze(1)
        kept = choose(tiles, log_p.exp(), tile, g, rows, self.threshold)
        keep = kept.active.repeat_interleave(rows, 0)[: len(g)].repeat_interleave(columns, 1)[:, : p.shape[1]]
        dz = torch.where(keep, -p * g.unsqueeze(1), 0.0)
        dz.scatter_(1, y, (-torch.expm1(log_p) * g).unsqueeze(1))
        da = dz * self.slope * self.transform.gain
        self.made = da @ self.weight, da.T @ self.x, da.sum(0)
        return kept.dropped

    def results(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        dx, dw, db = (
            None if kind is None or not want else made.to(kind.dtype)
            for made, kind, want in zip(self.made, self.kinds, self.wanted, strict=True)
        )
        return dx, dw, db
