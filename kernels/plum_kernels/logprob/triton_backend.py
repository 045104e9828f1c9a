"""Host side of the Triton back end: launches, the merge of the tiles' statistics, and the two last products.

Forward is one launch over all tiles of logits and keeps three numbers a row and tile. Backward takes rows in chunks:
a launch makes each tile again and writes its gradient into the chunk's buffer, from which the device's own matrix
products give dx and dW. The buffer is the only thing of the vocabulary's width.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from plum_kernels import choice
from plum_kernels.logprob.blocks import LN_2, Transform, Upstream
from plum_kernels.logprob.products import products, row_stride
from plum_kernels.logprob.triton_kernels import tile_gradient, tile_statistics

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BUFFER_BYTES = 1 << 30  # of one chunk's gradient of the logits


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """Shape of a tile and how a multiprocessor works on it."""

    BM: int
    BV: int
    BK: int
    warps: int
    stages: int


# Without register spills by ahead-of-time compilation, see kernels/README.md; not tuned on a device.
TILES = {
    "sm_80": Tile(BM=128, BV=128, BK=32, warps=8, stages=3),
    "sm_90": Tile(BM=128, BV=256, BK=64, warps=8, stages=3),
    "sm_100": Tile(BM=128, BV=256, BK=64, warps=8, stages=3),
    "gfx942": Tile(BM=128, BV=128, BK=64, warps=8, stages=2),
}
INTERPRETER_TILE = Tile(BM=16, BV=32, BK=16, warps=1, stages=1)


def target_of(device: torch.device | str) -> str:
    """Which of the targets a device is nearest to."""
    if torch.version.hip:
        return "gfx942"
    major = torch.cuda.get_device_capability(device)[0]
    return "sm_100" if major >= 10 else "sm_90" if major == 9 else "sm_80"


def tile_for(x: Tensor) -> Tile:
    """The tile of x's device; half as wide and deep for fp32, whose elements are twice as large."""
    if INTERPRETED:
        return INTERPRETER_TILE
    if x.element_size() < 4:
        measured = choice.tile("linear_logprob", x.device)
        return TILES[target_of(x.device)] if measured is None else Tile(**measured)
    return Tile(BM=64, BV=64, BK=32, warps=4, stages=2)


def has_descriptors(x: Tensor, weight: Tensor) -> bool:
    """Whether rows start on 16 bytes, as tensor descriptors need."""
    return (x.shape[1] * x.element_size()) % 16 == 0 and x.data_ptr() % 16 == 0 and weight.data_ptr() % 16 == 0


def _allocate(size: int, alignment: int, stream: int | None) -> Tensor:
    """What a kernel keeps its descriptors in."""
    return torch.empty(size, dtype=torch.int8, device="cuda")


class Launch:
    """The arguments that both kernels share."""

    def __init__(self, x: Tensor, weight: Tensor, bias: Tensor | None, transform: Transform, entropy: bool) -> None:
        self.weight, self.bias, self.transform, self.entropy = weight, bias, transform, entropy
        self.set_tile(tile_for(x))
        if not INTERPRETED:
            triton.set_allocator(_allocate)

    def set_tile(self, tile: Tile) -> None:
        self.tile, self.columns = tile, triton.cdiv(len(self.weight), tile.BV)

    def __call__(
        self, kernel: Any, x: Tensor, targets: Tensor, *arrays: Tensor | int, scale: float | None = None
    ) -> None:
        rows = triton.cdiv(len(x), self.tile.BM)
        if rows == 0:
            return
        softcap = self.transform.softcap is not None
        kernel[(rows * self.columns,)](
            x, self.weight, self.weight if self.bias is None else self.bias, targets, *arrays,
            len(x), len(self.weight), x.shape[1], rows, self.columns,
            self.transform.inner, self.transform.outer if softcap else 1.0, *([] if scale is None else [scale]),
            HAS_BIAS=self.bias is not None, SOFTCAP=softcap, ENTROPY=self.entropy,
            DESCRIPTORS=has_descriptors(x, self.weight), WIDEN=INTERPRETED,
            BM=self.tile.BM, BV=self.tile.BV, BK=self.tile.BK, GROUP=8,
            num_warps=self.tile.warps, num_stages=self.tile.stages, enable_fp_fusion=True,
        )  # fmt: skip


def statistics(launch: Launch, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N,) each: the target's u, and m, s, t of the whole row, as the blocked path has them."""
    picked = torch.empty(len(x), dtype=torch.float32, device=x.device)
    m_tiles, s_tiles, t_tiles = (picked.new_empty(launch.columns, len(x)) for _ in range(3))
    launch(tile_statistics, x, targets, picked, m_tiles, s_tiles, t_tiles)
    m = m_tiles.amax(0)
    shift = m_tiles - m
    scale = shift.exp2()
    s = (scale * s_tiles).sum(0)
    t = (scale * (t_tiles + shift * LN_2 * s_tiles)).sum(0) if launch.entropy else torch.zeros_like(s)
    return picked, m, s, t


def chunk_rows(rows: int, stride: int, element_size: int) -> int:
    """Rows of a chunk: what the buffer holds, in whole tiles of the largest kind, at least one."""
    return min(max(1, rows), max(128, BUFFER_BYTES // (stride * element_size) // 128 * 128))


def of_rows(state: tuple[Tensor, Tensor, Tensor], g: Upstream) -> tuple[Tensor, ...]:
    """What ``tile_gradient`` reads of each row, (N,) each: m, flow, target, spread, level."""
    m, s, h = state
    spread = None if g.entropy is None else g.entropy / s
    level = m if spread is None else h - s.log()
    return m, (g.lse - g.target) / s, g.target.contiguous(), m if spread is None else spread, level


def gradients(
    launch: Launch,
    x: Tensor,
    targets: Tensor,
    state: tuple[Tensor, Tensor, Tensor],
    g: Upstream,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """As ``blocked.gradients``. Sums over chunks are fp32."""
    rows = of_rows(state, g)
    stride = row_stride(launch.weight)

    def make(r: slice, buffer: Tensor) -> None:
        part = [values[r] for values in rows]
        launch(tile_gradient, x[r], targets[r], *part, buffer, stride, scale=launch.transform.gain)

    size = chunk_rows(len(x), stride, x.element_size())
    return products(make, x, launch.weight, launch.bias, wanted, size)


def check_device(x: Tensor, backend: str = "triton") -> None:
    """Raises ValueError for fp64 and for tensors that are not on a GPU (unless Triton interprets)."""
    if x.dtype == torch.float64:
        raise ValueError(f"backend {backend} has no fp64: use backend='blocked'")
    if not (x.is_cuda or INTERPRETED):
        raise ValueError(f"backend {backend} needs a GPU, got tensors on {x.device}: use backend='blocked'")
