"""Packed attention by Triton as an operator of ``torch.library``: launches, tiles, gradient.

Letters in shapes: T tokens, S sequences, H query heads, G key/value heads, E head width.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from plum_kernels.attention import triton_kernels as kernels
from plum_kernels.choice import tile
from plum_kernels.logprob.triton_backend import target_of

PARTS = ("forward", "query_gradient", "key_gradient")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionTile:
    """BM queries x BN keys, and how a multiprocessor works on them."""

    BM: int
    BN: int
    warps: int
    stages: int


# (forward, query gradient, key gradient) without register spills by ahead-of-time compilation at E = 128; not tuned
TILES = {
    "sm_80": (
        AttentionTile(BM=128, BN=32, warps=8, stages=3),
        AttentionTile(BM=64, BN=64, warps=8, stages=2),
        AttentionTile(BM=64, BN=64, warps=8, stages=1),
    ),
    "sm_90": (
        AttentionTile(BM=128, BN=128, warps=8, stages=2),
        AttentionTile(BM=128, BN=64, warps=8, stages=2),
        AttentionTile(BM=32, BN=128, warps=8, stages=2),
    ),
    "sm_100": (
        AttentionTile(BM=128, BN=128, warps=8, stages=2),
        AttentionTile(BM=128, BN=64, warps=8, stages=2),
        AttentionTile(BM=64, BN=128, warps=8, stages=1),
    ),
    "gfx942": (
        AttentionTile(BM=128, BN=32, warps=8, stages=1),
        AttentionTile(BM=64, BN=32, warps=4, stages=1),
        AttentionTile(BM=32, BN=64, warps=4, stages=1),
    ),
}
WIDE = (AttentionTile(BM=32, BN=32, warps=4, stages=1),) * 3  # of heads up to 256 wide
INTERPRETER_TILES = (
    AttentionTile(BM=16, BN=8, warps=1, stages=1),
    AttentionTile(BM=8, BN=16, warps=1, stages=1),
    AttentionTile(BM=16, BN=16, warps=1, stages=1),
)


def tiles_for(q: Tensor) -> tuple[AttentionTile, AttentionTile, AttentionTile]:
    if INTERPRETED:
        return INTERPRETER_TILES
    if q.shape[2] > 128:
        return WIDE
    measured = [tile(f"attention_{kernel}", q.device) for kernel in PARTS]
    usual = TILES[target_of(q.device)]
    forward, of_queries, of_keys = (
        u if m is None else AttentionTile(**m) for m, u in zip(measured, usual, strict=True)
    )
    return forward, of_queries, of_keys


def tile_tables(cu_seqlens: Tensor, tokens: int, size: int) -> tuple[Tensor, Tensor]:
    """Sequence and place in it of each tile of ``size`` rows, int32; -1 behind the last. Nothing comes to the host.

    There are at most tokens / size whole tiles and one more a sequence. The longest work comes first: a tile's work
    grows with its place, and programs start in order.
    """
    counts = (cu_seqlens.diff() + size - 1) // size
    ends = counts.cumsum(0)
    tile = torch.arange(tokens // size + len(counts), dtype=torch.int64, device=cu_seqlens.device)
    sequence = torch.searchsorted(ends, tile, right=True)
    inside = sequence < len(counts)
    owner = sequence.clamp(max=len(counts) - 1)
    place = tile - (ends - counts)[owner]
    order = torch.where(inside, place, -1).argsort(descending=True, stable=True)
    return torch.where(inside, owner, -1)[order].int(), torch.where(inside, place, 0)[order].int()


class _Launch:
    """What the three kernels share."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, window: int, scale: float) -> None:
        self.tensors, self.shape, self.groups = (q, k, v), q.shape, k.shape[1]
        self.cu = cu_seqlens.to(torch.int32)
        self.strides = [x.stride(i) for x in self.tensors for i in (0, 1)]
        self.scale, self.window = scale, window

    def __call__(
        self, kernel: Any, shape: AttentionTile, size: int, heads: int, *arrays: Tensor, gradient: bool = False
    ) -> None:
        tokens, all_heads, width = self.shape
        tables = tile_tables(self.cu, tokens, size)
        scales = [self.scale * math.log2(math.e), *([self.scale] if gradient else [])]
        kernel[(len(tables[0]), heads)](
            *self.tensors, *arrays, self.cu, *tables, *self.strides, tokens, all_heads, *scales,
            J=all_heads // self.groups, E=width, E_PAD=max(16, triton.next_power_of_2(width)), BM=shape.BM,
            BN=shape.BN, WINDOW=self.window, WIDEN=INTERPRETED, num_warps=shape.warps, num_stages=shape.stages,
        )  # fmt: skip


def _dense(*tensors: Tensor) -> list[Tensor]:
    return [x if x.stride(2) == 1 else x.contiguous() for x in tensors]


def _like(x: Tensor) -> Tensor:
    """What a kernel writes; the interpreter narrows to bf16 by truncation, so there torch narrows."""
    return torch.empty(x.shape, dtype=torch.float32 if INTERPRETED else x.dtype, device=x.device)


@torch.library.custom_op("plum_kernels::packed_attention", mutates_args=())
def packed_attention_op(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, window: int, scale: float
) -> tuple[Tensor, Tensor]:
    """(T, H, E) attended, and (H, T) fp32 logsumexp of the scaled scores, nats. window: 0 for none."""
    q, k, v = _dense(q, k, v)
    out, lse = _like(q), torch.empty(q.shape[1], q.shape[0], dtype=torch.float32, device=q.device)
    if out.numel():
        forward = tiles_for(q)[0]
        launch = _Launch(q, k, v, cu_seqlens, window, scale)
        launch(kernels.attention_forward, forward, forward.BM, q.shape[1], out, lse)
    return out.to(q.dtype), lse


@torch.library.custom_op("plum_kernels::packed_attention_gradient", mutates_args=())
def packed_attention_gradient(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_seqlens: Tensor, window: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k and v, dense."""
    q, k, v = _dense(q, k, v)
    dout, out = dout.contiguous(), out.contiguous()
    dq, dk, dv, delta = _like(q), _like(k), _like(v), torch.empty_like(lse)
    if dq.numel():
        _, of_queries, of_keys = tiles_for(q)
        launch = _Launch(q, k, v, cu_seqlens, window, scale)
        launch(
            kernels.attention_query_gradient, of_queries, of_queries.BM, q.shape[1], out, dout, lse, delta, dq,
            gradient=True,
        )  # fmt: skip
        launch(kernels.attention_key_gradient, of_keys, of_keys.BN, k.shape[1], dout, lse, delta, dk, dv, gradient=True)
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


@packed_attention_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, window: int, scale: float) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)


@packed_attention_gradient.register_fake
def _(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_seqlens: Tensor, window: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, cu_seqlens, ctx.window, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, cu_seqlens)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, dout: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *packed_attention_gradient(dout, *ctx.saved_tensors, ctx.window, ctx.scale), None, None, None


packed_attention_op.register_autograd(_backward, setup_context=_save)
