"""Keys and values of the live rows, and attention over them.

A row attends to its prompt and to its own tokens. Prompts are stored once for all the rows that share them, and
read once for K rows at a time (the split of Hydragen, Juravsky et al. 2024, with a joint softmax). Own tokens stand
in columns that all rows share: each step writes one column, whatever the rows' ages, so a row's own tokens are the
columns from its birth on, and the window starts at the oldest live row's birth.

Letters in shapes: R live rows, N entries of K slots (see ``arrange``), G key/value heads, J query heads a key/value
head, H = G * J, E head width, S prompt positions, C columns, W columns in the window.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from plum_core.sampling.arrange import Arrangement, arrange
from plum_core.sampling.prefill import Prompts
from plum_models.attention import soft_cap
from plum_models.config import DecoderConfig

FIRST_COLUMNS = 31  # odd, as every later size: rows at powers of two of bytes would share few cache sets
REARRANGE_BELOW = 0.7  # share of slots that rows fill


class Cache:
    """Room for ``rows`` live rows; ``like`` gives dtype and device."""

    def __init__(self, config: DecoderConfig, rows: int, like: Tensor) -> None:
        groups, width = config.num_key_value_heads, config.head_dim
        self.config = config
        self.prompts = Prompts.none(config, like)
        # zeros, not empty: columns before a row's birth are read and weighted by zero, so they must be finite
        self.own = like.new_zeros((2, config.num_hidden_layers, rows, groups, FIRST_COLUMNS, width))
        self.owners: list[int] = []  # of each row: its prompt
        # of each row: the column of its first own token, its slot, its prompt's length
        self.births = self._slots = self._lengths = torch.zeros(0, dtype=torch.int64, device=like.device)
        self.first = self.column = 0  # the window is [first, column)
        self._lay_out(Arrangement([], 1, []))

    @property
    def allocated_bytes(self) -> int:
        """Of keys and values, the copies that are laid out for batched products included."""
        parts = (self.own, self.prompts.kv, self._keys, self._values)
        return sum({p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in parts}.values())

    def admit(self, prompts: Prompts, owners: list[int]) -> None:
        """More rows behind the live ones; ``owners``: the prompt of each."""
        known = sorted(set(self.owners))
        place = {prompt: i for i, prompt in enumerate(known)}
        self.prompts = self.prompts.select(known).join(prompts)
        self.owners = [place[o] for o in self.owners] + [len(known) + o for o in owners]
        births = torch.full((len(owners),), self.column, device=self.births.device)
        self.births = torch.cat((self.births, births))
        self._lay_out(arrange(self.owners))

    def release(self, holes: list[int], movers: list[int], live: int) -> None:
        """Forget all rows but ``live``: rows ``movers``, which stand behind, take the places of ``holes``."""
        if holes:
            to, source = (torch.tensor(rows, device=self.births.device) for rows in (holes, movers))
            window = slice(self.first, self.column)
            self.own[:, :, to, :, window] = self.own[:, :, source, :, window]
            for state in (self.births, self._slots, self._lengths):
                state[to] = state[source]
            for hole, mover in zip(holes, movers, strict=True):
                self.owners[hole] = self.owners[mover]
        del self.owners[live:]
        self.births, self._slots, self._lengths = self.births[:live], self._slots[:live], self._lengths[:live]
        if live and live < REARRANGE_BELOW * self._arranged.size:
            after = arrange(self.owners)
            if after.size < self._arranged.size:
                self._lay_out(after)
                return
        self._fill_slots()
        self._aligned = False

    def _lay_out(self, to: Arrangement) -> None:
        device = self.births.device
        keys, values = self.prompts.kv
        if to.prompts != list(range(keys.shape[1])):
            entries = torch.tensor(to.prompts, dtype=torch.int64, device=device)
            keys, values = keys.index_select(1, entries), values.index_select(1, entries)
        self._arranged = to
        self._keys, self._values = keys.flatten(1, 2), values.flatten(1, 2)
        self._slots = torch.tensor(to.slots, dtype=torch.int64, device=device)
        self._lengths = self.prompts.lengths[torch.tensor(self.owners, dtype=torch.int64, device=device)]
        self._fill_slots()
        self._aligned = to.slots == list(range(to.size))  # rows are slots: nothing to gather

    def _fill_slots(self) -> None:
        """The row of each slot; an idle slot computes on row 0's numbers, and nobody reads it."""
        rows = torch.arange(len(self._slots), device=self._slots.device)
        self._rows = self._slots.new_zeros(self._arranged.size).index_copy_(0, self._slots, rows)
        self._changed = True  # who is live: what stays the same from step to step is made again

    def begin_step(self) -> None:
        """A new column, and the mask of this step."""
        if self._changed:
            self.first = int(self.births.min())
            prompt = torch.arange(self._keys.shape[2], device=self.births.device)
            self._behind = self._as_mask(prompt >= self._lengths.unsqueeze(-1))
            self._changed = False
        if self.column == self.own.shape[4]:
            self._make_room()
        self.column += 1
        self._window = slice(self.first, self.column)
        own = torch.arange(self.first, self.column, device=self.births.device)
        mask = torch.cat((self._behind, self._as_mask(own < self.births.unsqueeze(-1))), -1)
        self._mask = self._near_mask = mask.unsqueeze(1)
        if self.config.sliding_window is not None:
            far = self._ages() >= self.config.sliding_window
            self._near_mask = mask.masked_fill(far, -torch.inf).unsqueeze(1)

    def _as_mask(self, hidden: Tensor) -> Tensor:
        """(R, X) bool to what is added to scores."""
        return torch.zeros_like(hidden, dtype=self.own.dtype).masked_fill_(hidden, -torch.inf)

    def _ages(self) -> Tensor:
        """(R, S + W): how many positions each key lies before its row's newest token."""
        now = (self._lengths + self.column - 1 - self.births).unsqueeze(-1)
        prompt = torch.arange(self._keys.shape[2], device=self.births.device)
        own = torch.arange(self.first, self.column, device=self.births.device)
        return torch.cat((now - prompt, (self.column - 1 - own).expand(len(now), -1)), -1)

    def _make_room(self) -> None:
        """Shift the window to the front; enlarge the columns where it fills more than half of them."""
        columns = self.own.shape[4]
        window = self.own[:, :, :, :, self.first :]
        if 2 * window.shape[4] > columns:
            self.own = F.pad(window, (0, 0, 0, 2 * columns + 1 - window.shape[4]))
        else:
            self.own[:, :, :, :, : window.shape[4]] = window.clone()
        self.births -= self.first
        self.column -= self.first
        self.first = 0

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The decoder's ``Attend`` for one new token a row: q (R, 1, H, E), k and v (R, 1, G, E) to (R, 1, H, E)."""
        rows, _, heads, width = q.shape
        groups, split = k.shape[2], self._keys.shape[2]
        own = self.own[:, layer, :rows]
        own[0, :, :, self.column - 1], own[1, :, :, self.column - 1] = k[:, 0], v[:, 0]
        own_k, own_v = own[..., self._window, :].flatten(1, 2)
        q = q[:, 0] * width**-0.5
        own_q = q.view(rows * groups, -1, width)
        own_scores = torch.bmm(own_q, own_k.transpose(1, 2)).view(rows, heads, -1)
        prompt_scores = self._to_rows(torch.bmm(self._to_slots(q), self._keys[layer].transpose(1, 2)))
        mask = self._mask if self.config.window(layer) is None else self._near_mask
        scores = soft_cap(torch.cat((prompt_scores, own_scores), -1), self.config.attention_softcap)
        weights = scores.add_(mask).softmax(-1)
        out = self._to_rows(torch.bmm(self._to_slots(weights[..., :split]), self._values[layer]))
        own_weights = weights.view(rows * groups, heads // groups, -1)[..., split:]
        return out.view(own_q.shape).baddbmm_(own_weights, own_v).view(rows, 1, heads, width)

    def _to_slots(self, x: Tensor) -> Tensor:
        """(R, H, X) to (N * G, K * J, X)."""
        n, k, g = len(self._arranged.prompts), self._arranged.width, self.own.shape[3]
        x = x if self._aligned else x.index_select(0, self._rows)
        x = x.view(n, k, g, -1, x.shape[-1])
        return x.transpose(1, 2).reshape(n * g, -1, x.shape[-1])

    def _to_rows(self, x: Tensor) -> Tensor:
        """(N * G, K * J, X) to (R, H, X)."""
        n, k, g = len(self._arranged.prompts), self._arranged.width, self.own.shape[3]
        x = x.view(n, g, k, -1, x.shape[-1]).transpose(1, 2)
        x = x.reshape(n * k, -1, x.shape[-1])
        return x if self._aligned else x.index_select(0, self._slots)
