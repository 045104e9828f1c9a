"""The decoder's step as CUDA graphs, one for each bucket of shapes: one launch where there were hundreds.

A graph replays the very addresses that it was captured with, so a step's inputs are copied into buffers of its bucket,
padded: rows without a token write their keys to the pool's scratch block and attend to nothing. Buckets are powers of
two up to 64 and multiples of 64 above; captured at their first use, all in one memory pool. The draw and the check for
ends follow outside. Buffers and logic know nothing of CUDA, which ``capture`` brings: tests give another.

Letters in shapes: R rows, W blocks of a row's own tokens, N entries of K slots and X blocks (see ``pool``), D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from plum_core.sampling.pool import KernelStep, Pool, attend_step
from plum_kernels.decode_attention import Shared
from plum_models.config import DecoderConfig
from plum_models.decoder import Decoder

Work = Callable[[], Tensor]
Capture = Callable[[Work], Work]  # runs the work once or more and returns what replays it, into the same memory
LARGE = 64


def bucket(count: int) -> int:
    """The least size that holds ``count``: 0, a power of two up to LARGE, a multiple of LARGE above."""
    if count > LARGE:
        return -(-count // LARGE) * LARGE
    return 1 << (count - 1).bit_length() if count else 0


def why_not(config: DecoderConfig, device: torch.device, kv_tokens: int | None, speculate: int) -> str | None:
    """Why the step cannot be captured; None where it can."""
    if device.type != "cuda":
        return f"CUDA graphs need a GPU, the decoder is on {device}"
    if kv_tokens is None or speculate:
        return "they need a budget of keys and values and no speculation: give kv_tokens, and speculate=0"
    if config.sparse_layers or config.rope.kind == "dynamic":
        return "sparse layers and dynamic rotary scaling look at numbers on the host: leave graphs off"
    return None


def cuda_capture(work: Work) -> Work:
    """``work`` as a CUDA graph; it runs twice before, so that kernels are compiled and libraries have their memory."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = work()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


@dataclass(frozen=True, slots=True)
class _Captured:
    inputs: list[Tensor]
    replay: Work


class StepGraphs:
    """Replayed steps of one decoder over one pool: for others, make another."""

    def __init__(self, decoder: Decoder, pool: Pool, capture: Capture) -> None:
        self.decoder, self.pool, self.capture = decoder, pool, capture
        self._captured: dict[tuple[torch.Size, ...], _Captured] = {}

    def __len__(self) -> int:
        return len(self._captured)

    def belongs(self, decoder: Decoder, pool: Pool) -> bool:
        return self.decoder is decoder and self.pool is pool

    def __call__(self, ids: Tensor, positions: Tensor, step: KernelStep) -> Tensor:
        """(R, 1) int64 ids and positions to hidden states (R, 1, D)."""
        shared = step.shared
        scratch = self.pool.scratch * self.pool.block
        given = [ids, positions, step.targets, step.own, step.lengths, shared.tables, shared.lengths, shared.members]
        fills = [0, 0, scratch, 0, 0, 0, 0, -1]
        shapes = tuple(torch.Size([bucket(n) for n in x.shape]) for x in given)
        captured = self._captured.get(shapes)
        inputs = (
            [x.new_empty(shape) for x, shape in zip(given, shapes, strict=True)]
            if captured is None
            else captured.inputs
        )
        for buffer, x, fill in zip(inputs, given, fills, strict=True):
            buffer.fill_(fill)
            buffer[tuple(slice(n) for n in x.shape)] = x
        if captured is None:  # its first runs are of these inputs, and write the keys that the replay will write
            captured = self._captured[shapes] = _Captured(inputs, self.capture(lambda: self._forward(*inputs)))
        return captured.replay()[: len(ids)].clone()  # the next replay writes over it

    def _forward(
        self,
        ids: Tensor,
        positions: Tensor,
        targets: Tensor,
        own: Tensor,
        lengths: Tensor,
        tables: Tensor,
        prompt_lengths: Tensor,
        members: Tensor,
    ) -> Tensor:
        step = KernelStep(targets, own, lengths, Shared(tables=tables, lengths=prompt_lengths, members=members))
        return self.decoder(ids, positions, lambda layer, q, k, v: attend_step(self.pool, step, layer, q, k, v))
