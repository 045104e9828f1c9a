"""The draw on a GPU: ``plum_kernels.sample``, one launch for all rows instead of sorts and sums."""

from __future__ import annotations

import torch
from torch import Tensor

from plum_core.sampling.params import SamplingParams
from plum_core.sampling.penalties import Past
from plum_kernels.sample import sample_tokens


def gpu_draw(
    logits: Tensor, seeds: Tensor, positions: Tensor, params: SamplingParams, past: Past | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``draw.draw_`` with the same uniforms, the logits of any floating dtype and unchanged; fp64 is narrowed.

    Of logits that tie at top-p's border all are kept, where a sort keeps the first.
    """
    return sample_tokens(
        logits.float() if logits.dtype == torch.float64 else logits,
        seeds,
        positions,
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        prompt=None if past is None else past.prompt,
        drawn=None if past is None else past.drawn,
        backend="triton",
    )
