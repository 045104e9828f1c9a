"""The launches of ``sample_tokens``."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor

from plum_kernels.sample.reference import Draw
from plum_kernels.sample.triton_kernels import draw_row, penalise_row

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BLOCK = 32 if INTERPRETED else 1024  # logits of a row at a time
IDS = 16 if INTERPRETED else 64  # of what a row has seen
WARPS = 1 if INTERPRETED else 8


def launch(
    logits: Tensor, seeds: Tensor, positions: Tensor, draw: Draw, prompt: Tensor, drawn: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``interface.sample_tokens``, which has checked the arguments. No host synchronisation."""
    rows, vocabulary = logits.shape
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    logps, sampled = (torch.empty(rows, dtype=torch.float32, device=logits.device) for _ in range(2))
    if not rows:
        return tokens, logps, sampled
    z = logits
    if draw.penalises:
        z = logits.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        penalise_row[(rows,)](
            logits, z, prompt.contiguous(), drawn.contiguous(), logits.stride(0), vocabulary, prompt.shape[1],
            drawn.shape[1], draw.repetition_penalty, draw.presence_penalty, draw.frequency_penalty,
            BLOCK=IDS, num_warps=min(WARPS, 4),
        )  # fmt: skip
    temperature = draw.temperature or 1.0
    draw_row[(rows,)](
        z, logits, seeds.contiguous(), positions.contiguous(), tokens, logps, sampled,
        z.stride(0), logits.stride(0), vocabulary, float(draw.top_k), temperature, math.log2(math.e) / temperature,
        draw.top_p, temperature * math.log(draw.min_p) if draw.min_p else 0.0,
        GREEDY=draw.temperature == 0, TOP_K=0 < draw.top_k < vocabulary and draw.temperature > 0,
        TOP_P=draw.top_p < 1 and draw.temperature > 0, MIN_P=bool(draw.min_p) and draw.temperature > 0,
        BLOCK=BLOCK, num_warps=WARPS,
    )  # fmt: skip
    return tokens, logps, sampled
