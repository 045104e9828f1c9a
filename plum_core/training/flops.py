"""The arithmetic that a step needs, and the share of the machine's peak that it is done at (MFU).

Model FLOP utilisation as PaLM defines it (arXiv 2204.02311, appendix B): operations that the mathematics asks for, over
those that the device could have done in the same time. What is computed a second time (activation checkpointing) does
not count, nor does padding; a prompt that several completions of a micro-batch share counts once, as it is computed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from plum_core.training.batches import Example
from plum_models.decoder import Decoder

PROBE_S = 0.05  # how long the probe of the peak goes on


class FlopCount:
    """Counts for one decoder, in operations (a multiplication and an addition are two).

    A weight of a matrix product takes 2 a token forward, 2 for its inputs' gradient and 2 for its own where it is
    trained; attention takes 4 of its heads' width a pair of positions forward and twice that backward.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self._known: dict[bool, float] = {}

    def _layers(self, backward: bool) -> float:
        """A token's share in the layers' matrices."""
        if backward not in self._known:
            self._known[backward] = sum(
                weight.numel() * self._share(name) * self._per_weight(weight, backward)
                for name, weight in self.decoder.layers.named_parameters()
                if weight.dim() == 2
            )
        return self._known[backward]

    def _share(self, name: str) -> float:
        """Of an expert's weights those that a token meets, on average."""
        c = self.decoder.config
        return c.num_experts_per_tok / c.num_experts if ".experts." in name else 1.0

    def __call__(self, examples: Sequence[Example], *, backward: bool = True) -> float:
        """What scoring the completions of ``examples`` takes, each unique prompt and completion once."""
        c, unique = self.decoder.config, list(dict.fromkeys(examples))
        prompts = [len(p) - 1 for p in dict.fromkeys(e.prompt_ids for e in unique)]
        scored = sum(len(e.completion_ids) for e in unique)
        pairs = sum(n * (n + 1) / 2 for n in prompts)
        for e in unique:
            before, own = len(e.prompt_ids) - 1, len(e.completion_ids)
            pairs += own * before + own * (own + 1) / 2
        width = c.num_attention_heads * (c.head_dim + (c.v_head_dim or c.head_dim))
        attention = 2 * width * c.num_hidden_layers * pairs
        layers, head = self._layers(backward), self.decoder.head_weight
        per_head = head.numel() * self._per_weight(head, backward)
        return layers * (sum(prompts) + scored) + per_head * scored + attention * (3 if backward else 1)

    @staticmethod
    def _per_weight(weight: Tensor, backward: bool) -> int:
        return 2 + 2 * backward + 2 * (backward and weight.requires_grad)


@lru_cache(maxsize=8)
def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the best of some products of square matrices: what ``device`` was seen to reach.

    As many threads as torch uses now. Once a process, for about ``PROBE_S`` seconds.
    """
    size = 8192 if device.type == "cuda" else 512
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + PROBE_S
    for turn in range(1000):
        _synchronize(device)
        start = time.perf_counter()
        a @ b
        _synchronize(device)
        now = time.perf_counter()
        if turn:  # the first one starts libraries
            best = min(best, now - start)
        if turn > 1 and now > end:
            break
    return 2 * size**3 / best


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(row: dict[str, float], seconds: float, given_tflops: float, at: Tensor, ranks: int) -> dict[str, float]:
    """``row`` with what follows from its time; the first step of a run also says what mfu is measured against.

    row: with ``tokens`` and ``flops`` of all ranks; the second is used up. at: a weight of the products, for its device
    and type. given_tflops: the peak of one device, 0 to have it measured.
    """
    peak = given_tflops * 1e12 or measured_peak(at.device, at.dtype)
    out = {name: value for name, value in row.items() if name != "flops"}
    out |= {"step_s": seconds, "tokens_per_s": row["tokens"] / seconds, "mfu": row["flops"] / seconds / peak / ranks}
    if row["step"] == 1:
        out[f"peak_tflops/{'given' if given_tflops else 'measured'}"] = peak / 1e12
    return out
