"""Examples in one stream without padding: a prompt that several completions share is computed once.

Letters in shapes: T tokens of the stream, C scored tokens, N examples, U unique examples, R x S rows x positions
of the padded attention, W width of a token's vector.

The stream holds every prompt once, less its last token, then for every unique example that last token and the
completion less its own last: the positions that are scored are the stream's tail. Norms, projections and the head
run on the stream. Attention alone sees rows, each a prompt with one completion, padded on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plum_core.training.batches import Example
from plum_models.attention import Attend, causal_attention


class _ToRows(torch.autograd.Function):
    """(T, W) to (R * S, W): each token into every row that it is part of."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, copies: list[Tensor]) -> Tensor:
        ctx.copies = copies
        return x.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # one gather a copy and no atomic sum: the same bits on every device
        out = grad.index_select(0, ctx.copies[0])
        for copy in ctx.copies[1:]:
            out[: len(copy)] += grad.index_select(0, copy)
        return out, None, None


class _ToStream(torch.autograd.Function):
    """(R * S, W) to (T, W): each token from the first row that it is part of."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, first: Tensor) -> Tensor:
        ctx.save_for_backward(first)
        ctx.rows = len(x)
        return x.index_select(0, first)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (first,) = ctx.saved_tensors
        return grad.new_zeros(ctx.rows, grad.shape[1]).index_copy_(0, first, grad), None


class Packed:
    """A batch in the stream's form; ``attend`` is what the decoder calls in each layer.

    token_ids, positions: (1, T) int64. targets: (C,) int64, of the stream's last C positions. lengths: (U,) int64,
    how many of them each unique example has. which: (N,) int64, the unique example of each example. weights: (C,)
    fp32, what each target's log-prob counts; None where every example counts its tokens alike.
    """

    def __init__(
        self, examples: Sequence[Example], device: torch.device | str = "cpu", causal: Attend = causal_attention
    ) -> None:
        """``causal``: what the decoder attends to within a row."""
        self._causal = causal
        unique = list(dict.fromkeys(examples))
        sharing: dict[tuple[int, ...], list[int]] = {}
        for u, e in enumerate(unique):
            sharing.setdefault(e.prompt_ids, []).append(u)
        # the most shared first, so that the tokens that have a j-th copy are a prefix of the stream
        prompts = sorted(sharing.items(), key=lambda item: -len(item[1]))
        self.shape = len(unique), max(map(len, unique)) - 1
        stream = [t for prompt, _ in prompts for t in prompt[:-1]]
        positions = [i for prompt, _ in prompts for i in range(len(prompt) - 1)]
        for e in unique:
            stream += (e.prompt_ids[-1], *e.completion_ids[:-1])
            positions += range(len(e.prompt_ids) - 1, len(e) - 1)

        def on_device(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device)

        place = {e: u for u, e in enumerate(unique)}
        self.token_ids, self.positions = on_device(stream).unsqueeze(0), on_device(positions).unsqueeze(0)
        self.targets = on_device([t for e in unique for t in e.completion_ids])
        self.lengths = on_device([len(e.completion_ids) for e in unique])
        self.which = on_device([place[e] for e in examples])
        self.weights: Tensor | None = None
        if any(e.weights is not None for e in unique):
            weights = [w for e in unique for w in e.weights or (1.0,) * len(e.completion_ids)]
            self.weights = torch.tensor(weights, dtype=torch.float32, device=device)
        self._copies = [on_device(copy) for copy in _copies(unique, [members for _, members in prompts])]
        self._rows = torch.zeros(self.shape, dtype=torch.int64, device=device).flatten()  # pads: any token will do
        for copy in self._copies:
            self._rows[copy] = torch.arange(len(copy), device=device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention within each row: (1, T, H, E) in and out."""

        def rows(x: Tensor) -> Tensor:
            return _ToRows.apply(x[0].flatten(1), self._rows, self._copies).view(*self.shape, -1, x.shape[-1])

        out = self._causal(layer, rows(q), rows(k), rows(v))
        return _ToStream.apply(out.reshape(len(self._rows), -1), self._copies[0]).view(q.shape)


def _copies(unique: Sequence[Example], sharing: Sequence[Sequence[int]]) -> list[list[int]]:
    """For each j the place in rows (R * S) of the j-th copy of each token, in the stream's order."""
    width = max(map(len, unique)) - 1
    copies: list[list[int]] = [[] for _ in range(max(map(len, sharing)))]
    for members in sharing:
        for j, u in enumerate(members):
            copies[j] += range(u * width, u * width + len(unique[u].prompt_ids) - 1)
    for u, e in enumerate(unique):
        copies[0] += range(u * width + len(e.prompt_ids) - 1, u * width + len(e) - 1)
    return copies
