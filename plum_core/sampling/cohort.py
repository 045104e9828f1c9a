"""Samples that were admitted together, their keys and values, and their attention.

Rows of one cohort have drawn equally many tokens. So each step writes one column of the cohort's cache, the window
is exact, and no mask is needed but for prompts of different length. A prompt's keys and values are stored and read
once for all the rows that share it (the split of Hydragen, Juravsky et al. 2024, with a joint softmax).

Letters in shapes: n rows, N entries of K slots (see ``arrange``), G key/value heads, J query heads a key/value head,
E head width, S prompt positions, L capacity in own positions, T own positions in use.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from plum_core.sampling.arrange import Arrangement, arrange
from plum_core.sampling.prefill import Prompts

ROOM = 32  # own positions by which the cache grows
REPACK_BELOW = 0.8  # share of slots that are filled


class Cohort:
    """``owners``: the row in ``prompts`` of every sample, grouped."""

    def __init__(self, prompts: Prompts, owners: Sequence[int]) -> None:
        self.prompts, self.owners = prompts, list(owners)
        self.age = 0  # own positions written, the one of the step in hand included
        layers, _, groups, _, width = prompts.keys.shape
        self.own = prompts.keys.new_empty((2, layers, 0, groups, 0, 0, width))  # keys and values (N, G, K, L, E)
        self._lay_out(arrange(self.owners), None)

    def __len__(self) -> int:
        return len(self.owners)

    def begin_step(self) -> None:
        """Room for one more position of every row."""
        if self.age == self.own.shape[-2]:
            self.own = torch.nn.functional.pad(self.own, (0, 0, 0, ROOM))
        self.age += 1

    def keep(self, rows: list[int]) -> None:
        """Forget all rows but these (rising, at least one)."""
        self.owners = [self.owners[row] for row in rows]
        slots = self._slots[torch.tensor(rows, device=self._slots.device)]
        if len(rows) < REPACK_BELOW * self._size:
            after = arrange(self.owners)
            if after.size < self._size:
                self._lay_out(after, slots)
                return
        self._set_slots(slots)

    def _set_slots(self, slots: Tensor) -> None:
        self._slots = slots
        self._fill: Tensor | None = None
        if len(slots) < self._size:  # an idle slot computes on the first row's numbers, and nobody reads it
            self._fill = slots.new_zeros(self._size).index_copy_(0, slots, torch.arange(len(slots), device=slots.device))

    def _lay_out(self, to: Arrangement, slots: Tensor | None) -> None:
        """Move to an arrangement; ``slots``: where the rows stand now, None where nothing is stored yet."""
        device = self.own.device
        entries = torch.tensor(to.prompts, device=device)
        lengths = self.prompts.lengths[entries]
        longest = int(lengths.max())
        self.keys, self.values = (
            t[..., :longest, :].index_select(1, entries).flatten(1, 2) for t in (self.prompts.keys, self.prompts.values)
        )
        self._mask = _length_mask(lengths, self.keys)
        self._size, width = to.size, to.width
        new = torch.tensor(to.slots, device=device)
        if slots is None:
            shape = (*self.own.shape[:2], len(entries), self.own.shape[3], width, ROOM, self.own.shape[-1])
            self.own = self.own.new_zeros(shape)
        else:
            source = slots.new_zeros(self._size).index_copy_(0, new, slots)
            self.own = _take_slots(self.own, source, len(entries), width)
        self._set_slots(new)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(n, H, E): the rows' queries, scaled already, over their prompts and their own positions.

        q: (n, H, E); k, v: (n, G, E), of the newest position, which is stored first.
        """
        if self._fill is not None:
            q, k, v = (t.index_select(0, self._fill) for t in (q, k, v))
        entries, groups, width, _, head = self.own.shape[2:]
        per_group = q.shape[1] // groups
        own_k, own_v = self.own[:, layer].flatten(1, 3)[:, :, : self.age]  # (N * G * K, T, E)
        for own, new in ((own_k, k), (own_v, v)):
            own[:, -1] = new.view(entries, width, groups, head).transpose(1, 2).reshape(-1, head)
        q = q.view(entries, width, groups, per_group, head).transpose(1, 2)
        shared = q.reshape(entries * groups, width * per_group, head)
        out = _joint(shared, self.keys[layer], self.values[layer], own_k, own_v, self._mask)
        out = out.view(entries, groups, width, per_group, head).transpose(1, 2).reshape(self._size, -1, head)
        return out if self._fill is None else out.index_select(0, self._slots)


def _joint(q: Tensor, k: Tensor, v: Tensor, own_k: Tensor, own_v: Tensor, mask: Tensor | None) -> Tensor:
    """One softmax over shared and own positions. q: (N*G, K*J, E); k, v: (N*G, S, E); own: (N*G*K, T, E)."""
    rows, shared = len(own_k), k.shape[1]
    own_q = q.view(rows, -1, q.shape[-1])
    scores = torch.cat(
        (
            torch.bmm(q, k.transpose(1, 2)).view(rows, -1, shared),
            torch.bmm(own_q, own_k.transpose(1, 2)),
        ),
        -1,
    )
    if mask is not None:
        scores.view(len(mask), -1, scores.shape[-1])[..., :shared] += mask
    weights = scores.softmax(-1)
    out = torch.bmm(weights.view(*q.shape[:2], -1)[..., :shared], v)
    return out.view(own_q.shape).baddbmm_(weights[..., shared:], own_v)


def _length_mask(lengths: Tensor, keys: Tensor) -> Tensor | None:
    """(N, 1, S): minus infinity behind the end of each entry's prompt, None where all are equally long."""
    behind = torch.arange(keys.shape[-2], device=keys.device) >= lengths.unsqueeze(-1)
    if not behind.any():
        return None
    return torch.zeros(behind.shape, dtype=keys.dtype, device=keys.device).masked_fill_(behind, -torch.inf)[:, None]


def _take_slots(own: Tensor, source: Tensor, entries: int, width: int) -> Tensor:
    """(2, layers, N, G, K, L, E) for new N and K: slot i of the new one is slot ``source[i]`` of the old."""
    old_entry, old_slot = source // own.shape[4], source % own.shape[4]
    taken = own.permute(2, 4, 0, 1, 3, 5, 6)[old_entry, old_slot]  # (N * K, 2, layers, G, L, E)
    return taken.unflatten(0, (entries, width)).permute(2, 3, 0, 4, 1, 5, 6).contiguous()
