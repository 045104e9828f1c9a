"""Keys and values in blocks, and attention over the blocks of rows that share the beginnings of their tables.

What rows share is read once for all of them (the split of Hydragen, Juravsky et al. 2024, with a joint softmax), the
rest row by row. On a CPU blocks are gathered for each layer: a plain way that suits it, where the weights are most of
what a step reads. On a GPU a step of one token a row runs ``plum_kernels.decode_attention``.

Letters in shapes: R rows, Q queries a row, N entries of K slots (see ``arrange``), G key/value heads, J query heads a
key/value head, H = G * J, E head width, S positions in shared blocks, O in own blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from plum_core.sampling.arrange import arrange
from plum_core.sampling.blocks import Table
from plum_kernels.decode_attention import Shared, decode_attention
from plum_models.attention import soft_cap
from plum_models.config import DecoderConfig

FEW_QUERIES = 16  # up to here scores are formed whole; beyond, torch's fused attention does not write them


class Pool:
    """Room for ``blocks`` blocks and one more, which takes what padded rows write. Zeros: all that is read is finite.

    kv: (layers, 2, G, blocks + 1, block, E) in the dtype and on the device of ``like``.
    """

    def __init__(self, config: DecoderConfig, blocks: int, block: int, like: Tensor) -> None:
        self.config, self.block, self.scratch = config, block, blocks
        self.kernel = "triton" if like.is_cuda else None  # a back end of decode_attention
        shape = (config.num_hidden_layers, 2, config.num_key_value_heads, blocks + 1, block, config.head_dim)
        self.kv = like.new_zeros(shape)

    @property
    def block_bytes(self) -> int:
        """Keys and values of one block in all layers."""
        return self.kv[:, :, :, 0].numel() * self.kv.element_size()

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Contents of blocks (from, to); no block is both."""
        if pairs:
            source, to = torch.tensor(pairs, device=self.kv.device).unbind(1)
            self.kv[:, :, :, to] = self.kv[:, :, :, source]

    def read(self, layer: int, which: int, blocks: Tensor) -> Tensor:
        """Keys (0) or values (1) of equally many blocks for each of n sequences, (n, B): (G, n, B * block, E)."""
        groups, width = self.kv.shape[2], self.kv.shape[5]
        flat = self.kv[layer, which].flatten(2).index_select(1, blocks.flatten())
        return flat.view(groups, blocks.shape[0], blocks.shape[1] * self.block, width)

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """k, v: (n, G, E) to ``slots`` (n,): block * block size + place in the block."""
        for which, x in enumerate((k, v)):
            self.kv[layer, which].flatten(1, 2).index_copy_(1, slots, x.transpose(0, 1))


@dataclass(frozen=True, slots=True)
class KernelStep:
    """Where one new token of each of R rows goes and what it attends to, for ``decode_attention``.

    targets: (R,) int64 slots of the new keys; own: (R, W) int32 blocks of each row's own tokens; lengths: (R,) int32
    of them, the new ones included.
    """

    targets: Tensor
    own: Tensor
    lengths: Tensor
    shared: Shared


def attend_step(pool: Pool, step: KernelStep, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The decoder's ``Attend`` of one token a row by ``decode_attention``. Nothing comes to the host."""
    pool.write(layer, step.targets, k.flatten(0, 1), v.flatten(0, 1))
    keys, values = pool.kv[layer]
    out = decode_attention(
        q.squeeze(1),
        keys,
        values,
        step.own,
        step.lengths,
        step.shared,
        softcap=pool.config.attention_softcap or 0.0,
        window=pool.config.window(layer) or 0,
        backend=pool.kernel or "auto",
    )
    return out.unsqueeze(1)


class Pages:
    """The view of one forward: R rows with their tables, each at Q positions of its own.

    shared: blocks at the beginning of each row's table that other rows may have too; read once where equal.
    positions: (R, Q) int64; of row r the first ``counts[r]`` are real, the rest repeat the last and go nowhere. Every
    position of a row that is written stands behind its shared blocks.
    """

    def __init__(
        self,
        pool: Pool,
        tables: Sequence[Table],
        shared: Sequence[tuple[int, ...]],
        positions: Tensor,
        counts: Sequence[int],
    ) -> None:
        self.pool, self.positions = pool, positions
        device, block = positions.device, pool.block
        numbers: dict[tuple[int, ...], int] = {}
        arranged = arrange([numbers.setdefault(blocks, len(numbers)) for blocks in shared])
        prompts = list(numbers)
        self._width = arranged.width
        self._entries = _padded([prompts[p] for p in arranged.prompts], device)
        self._own = _padded([t.blocks[len(s) :] for t, s in zip(tables, shared, strict=True)], device)
        self._slots = torch.tensor(arranged.slots, device=device)
        rows = torch.arange(len(tables), device=device)
        self._rows = self._slots.new_zeros(arranged.size).index_copy_(0, self._slots, rows)
        starts = torch.tensor([len(s) * block for s in shared], device=device).unsqueeze(1)
        inside = positions - starts
        targets = self._own.gather(1, inside // block) * block + inside % block
        real = torch.arange(positions.shape[1], device=device) < torch.tensor(counts, device=device).unsqueeze(1)
        self._targets = torch.where(real, targets, pool.scratch * block).flatten()
        self.step: KernelStep | None = None
        if pool.kernel is None or positions.shape[1] > 1:
            self._masks = self._make_masks(starts)
        else:
            members = self._slots.new_full((arranged.size,), -1).index_copy_(0, self._slots, rows)
            lengths = torch.tensor([len(prompts[p]) * block for p in arranged.prompts], dtype=torch.int32)
            prompts_of = Shared(
                tables=self._entries.int(), lengths=lengths.to(device), members=members.view(-1, self._width).int()
            )
            self.step = KernelStep(self._targets, self._own.int(), (inside + 1).flatten().int(), prompts_of)

    def _make_masks(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """(R, Q, S + O) to be added to scores: of whole attention, and of a sliding window."""
        block, device = self.pool.block, starts.device
        prompt = torch.arange(self._entries.shape[1] * block, device=device).expand(len(starts), -1)
        own = starts + torch.arange(self._own.shape[1] * block, device=device)
        ages = self.positions.unsqueeze(-1) - torch.cat((prompt, own), 1).unsqueeze(1)
        hidden = ages < 0
        hidden[..., : prompt.shape[1]] |= (prompt >= starts).unsqueeze(1)
        window = self.pool.config.sliding_window
        return self._as_mask(hidden), self._as_mask(hidden if window is None else hidden | (ages >= window))

    def _as_mask(self, hidden: Tensor) -> Tensor:
        return torch.zeros_like(hidden, dtype=self.pool.kv.dtype).masked_fill_(hidden, -torch.inf)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The decoder's ``Attend``: q (R, Q, H, E), k and v (R, Q, G, E) to (R, Q, H, E)."""
        if self.step is not None:
            return attend_step(self.pool, self.step, layer, q, k, v)
        self.pool.write(layer, self._targets, k.flatten(0, 1), v.flatten(0, 1))
        config = self.pool.config
        mask = self._masks[0] if config.window(layer) is None else self._masks[1]
        if q.shape[1] > FEW_QUERIES and config.attention_softcap is None and not self._entries.numel():
            return self._attend_fused(layer, q, mask)
        rows, queries, heads, width = q.shape
        groups = k.shape[2]
        grouped = (q * width**-0.5).view(rows, queries, groups, -1, width).permute(2, 0, 1, 3, 4)
        grouped = grouped.reshape(groups, rows, -1, width)  # (G, R, Q * J, E)
        own_scores = grouped @ self.pool.read(layer, 0, self._own).transpose(2, 3)
        prompt_scores = self._from_slots(self._to_slots(grouped) @ self._shared(layer, 0).transpose(2, 3))
        scores = soft_cap(torch.cat((prompt_scores, own_scores), -1), config.attention_softcap)
        by_query = scores.view(groups, rows, queries, -1, scores.shape[-1])
        weights = by_query.add_(mask.unsqueeze(2)).softmax(-1).view(scores.shape)
        split = prompt_scores.shape[-1]
        out = self._from_slots(self._to_slots(weights[..., :split]) @ self._shared(layer, 1))
        out = out + weights[..., split:] @ self.pool.read(layer, 1, self._own)
        return out.view(groups, rows, queries, -1, width).permute(1, 2, 0, 3, 4).reshape(rows, queries, heads, width)

    def _attend_fused(self, layer: int, q: Tensor, mask: Tensor) -> Tensor:
        """Long chunks of rows that share nothing."""
        k, v = (self.pool.read(layer, which, self._own).transpose(0, 1) for which in (0, 1))
        gqa = q.shape[2] != k.shape[1]
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=mask.unsqueeze(1), enable_gqa=gqa)
        return out.transpose(1, 2)

    def _shared(self, layer: int, which: int) -> Tensor:
        """(G, N, S, E)."""
        return self.pool.read(layer, which, self._entries)

    def _to_slots(self, x: Tensor) -> Tensor:
        """(G, R, Q * J, X) to (G, N, K * Q * J, X); an idle slot computes on row 0's numbers, and nobody reads it."""
        entries = len(self._entries)
        return x.index_select(1, self._rows).view(x.shape[0], entries, self._width * x.shape[2], x.shape[3])

    def _from_slots(self, x: Tensor) -> Tensor:
        """(G, N, K * Q * J, X) to (G, R, Q * J, X)."""
        groups, entries, inner, last = x.shape
        return x.reshape(groups, entries * self._width, inner // self._width, last).index_select(1, self._slots)


def _padded(blocks: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """(n, longest) int64; block 0 fills the rest, and masks hide it."""
    longest = max(map(len, blocks))
    return torch.tensor([[*b, *[0] * (longest - len(b))] for b in blocks], dtype=torch.int64, device=device)
