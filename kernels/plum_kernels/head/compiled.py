"""The head on a CPU by compiled functions: all rows at once, and the logits again in backward.

8 N D V operations where the blocked head takes 6: it costs no workspace, and a bf16 head is multiplied as it is, so it
is the faster of the two wherever it can be had. It has no filter. Letters: N rows, D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plum_kernels.compiled.head import Head, Inputs
from plum_kernels.logprob.blocks import LN_2, Transform, Upstream

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class CompiledHead:
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
        assert threshold == 0, "the interface sends a filtered head to the blocked one"
        self.head, self.wanted, self.rows = Head(Inputs(x, weight, targets, bias, transform)), wanted, len(x)
        self.source, self.bias = x, bias
        self.made: Gradients = (None, None, None)

    def forward(self, r: slice) -> Tensor:
        assert r == slice(0, self.rows), "one chunk holds all rows"
        picked, m, s, _ = self.head.statistics(False)
        self.state = m, s, m
        return (picked - m - s.log2()) * LN_2

    def backward(self, r: slice, g: Tensor) -> Tensor:
        zero = torch.zeros_like(g)
        dx, dw, db = self.head.gradients(self.state, Upstream(target=g, lse=zero, entropy=None), self.wanted)
        dx = None if dx is None else dx.to(self.source.dtype)
        self.made = dx, dw, None if db is None or self.bias is None else db.to(self.bias.dtype)
        return zero

    def results(self) -> Gradients:
        return self.made
