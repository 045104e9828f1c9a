"""Logits a block at a time: rows x vocabulary in pieces that stay in cache.

Letters in shapes: N rows, D width, V vocabulary, R rows of a block, C vocabulary columns of a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

LOG2_E, LN_2 = math.log2(math.e), math.log(2)
WHOLE_VOCABULARY = 4096  # up to here one block spans the vocabulary and nothing has to be merged
BLOCK_COLUMNS = 1024  # 2,048 are no faster, and the widened part of a weight takes twice the memory
BLOCK_ELEMENTS = 1 << 19  # 2 MiB of fp32: a block is made, exponentiated and consumed in the level-2 cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """From raw logits a to u = z * log2(e), z = softcap * tanh(logit_scale * a / softcap) / temperature.

    Base 2: the factor costs nothing inside the matrix product, and exp2 is three times as fast on a CPU
    as exp, which besides slows down thirtyfold where its result is subnormal.
    """

    temperature: float
    softcap: float | None
    logit_scale: float = 1.0

    @property
    def inner(self) -> float:
        """What the matrix product is scaled by."""
        return self.logit_scale * (LOG2_E / self.temperature if self.softcap is None else 1.0 / self.softcap)

    @property
    def gain(self) -> float:
        """dz / da, the slope of the tanh aside."""
        return self.logit_scale / self.temperature

    @property
    def outer(self) -> float:
        """What the tanh is scaled by."""
        assert self.softcap is not None
        return self.softcap * LOG2_E / self.temperature

    def finish(self, scaled: Tensor) -> Tensor:
        """In place, a * inner (R, C) to u."""
        return scaled if self.softcap is None else scaled.tanh_().mul_(self.outer)

    def slope(self, u: Tensor) -> Tensor | None:
        """dz/da less its factor ``gain``: 1 - tanh**2, (R, C); None where it is 1 everywhere."""
        return None if self.softcap is None else (u / self.outer).square_().neg_().add_(1.0)


def block_shape(columns: int) -> tuple[int, int]:
    """(rows, columns) of a block for a vocabulary of ``columns``."""
    width = columns if columns <= WHOLE_VOCABULARY else BLOCK_COLUMNS
    return max(32, BLOCK_ELEMENTS // width), width


def spans(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


class Blocks:
    """Blocks of logits in one reused buffer: the next block overwrites the last.

    lean: a low-precision x is widened rows at a time, again for each span of the vocabulary, and not once as a whole.
    """

    def __init__(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, transform: Transform, *, lean: bool = False
    ) -> None:
        self.rows, self.columns = block_shape(len(weight))
        self.dtype = torch.promote_types(x.dtype, torch.float32)
        self.x = x if lean else x.to(self.dtype)
        self.weight, self.bias, self.transform = weight, bias, transform
        self._span: Tensor | None = None
        self.buffer = x.new_empty(min(self.rows, len(x)) * min(self.columns, len(weight)), dtype=self.dtype)

    def vocabulary(self) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """Each span of the vocabulary with its weight (C, D) widened and its bias (C,) widened and scaled."""
        for v in spans(len(self.weight), self.columns):
            b = None if self.bias is None else self.bias[v].to(self.dtype) * self.transform.inner
            yield v, self._wide(v), b

    def _wide(self, v: slice) -> Tensor:
        """Rows ``v`` of the weight in the products' dtype: as they are, or in one buffer for all spans."""
        w = self.weight[v]
        if w.dtype == self.dtype:
            return w
        if self._span is None:
            self._span = w.new_empty(min(self.columns, len(self.weight)), w.shape[1], dtype=self.dtype)
        return self._span[: len(w)].copy_(w)

    def logits(self, r: slice, w: Tensor, b: Tensor | None) -> Tensor:
        """u (R, C) of rows ``r`` and the weight block ``w``."""
        out = self.buffer[: (r.stop - r.start) * len(w)].view(-1, len(w))
        x = self.x[r].to(self.dtype)
        if b is None:  # beta=0: what the buffer held is not read
            out.addmm_(x, w.T, beta=0, alpha=self.transform.inner)
        else:
            torch.addmm(b, x, w.T, alpha=self.transform.inner, out=out)
        return self.transform.finish(out)


def local_targets(targets: Tensor, v: slice) -> tuple[Tensor, Tensor]:
    """Each target's column within span ``v`` (any column where it lies outside), and if it lies inside."""
    local = targets - v.start
    inside = (local >= 0) & (local < v.stop - v.start)
    return local.clamp_(0, v.stop - v.start - 1).unsqueeze(1), inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Gradients of the loss by the three outputs, (N,) each."""

    target: Tensor
    lse: Tensor
    entropy: Tensor | None
