"""The decoder over many sequences in one row and without padding, told apart by ``cu_seqlens``.

Letters in shapes: T tokens of all sequences, S sequences, H query heads, G key/value heads, E head width, D width.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from plum_kernels import packed_attention
from plum_models.attention import Attend, capped_attention
from plum_models.config import DecoderConfig
from plum_models.decoder import Decoder


def packed_forward(
    decoder: Decoder, token_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int | None = None, *, backend: str = "auto"
) -> Tensor:
    """(T, D) hidden states after the final norm, each sequence as if it were alone.

    token_ids: (T,) int64, the sequences one after the other. cu_seqlens: (S + 1,) int32 or int64, from 0 to T: where
    each begins, and the end of the last. max_seqlen: of the longest; where it is left out it is taken from
    ``cu_seqlens``, for which a GPU is waited for. backend: of ``packed_attention``. Raises ValueError where the two do
    not fit; values are looked at on the CPU alone.
    """
    _check(token_ids, cu_seqlens)
    if max_seqlen is None:
        max_seqlen = int(cu_seqlens.diff().max()) if len(cu_seqlens) > 1 else 0
    at = torch.arange(len(token_ids), device=token_ids.device)
    owner = torch.searchsorted(cu_seqlens, at.to(cu_seqlens.dtype), right=True) - 1
    positions = at - cu_seqlens[owner]
    attend = packed(decoder.config, cu_seqlens, max_seqlen, backend=backend)
    return decoder(token_ids.unsqueeze(0), positions.unsqueeze(0), attend)[0]


def packed(config: DecoderConfig, cu_seqlens: Tensor, max_seqlen: int, *, backend: str = "auto") -> Attend:
    """What a decoder of this config attends to in a row (1, T) of sequences; windows and soft caps as in ``causal``."""
    cap = config.attention_softcap

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        window = config.window(layer)
        window = None if window is None or window >= max_seqlen else window
        if cap is None:
            out = packed_attention(q[0], k[0], v[0], cu_seqlens, max_seqlen, window=window, backend=backend)
            return out.unsqueeze(0)
        pairs = itertools.pairwise(cu_seqlens.tolist())
        return torch.cat([capped_attention(q[:, a:b], k[:, a:b], v[:, a:b], cap, window) for a, b in pairs if a < b], 1)

    return attend


def _check(token_ids: Tensor, cu_seqlens: Tensor) -> None:
    if token_ids.dim() != 1 or not len(token_ids):
        raise ValueError(f"token_ids must be (T,) with T above 0, got {tuple(token_ids.shape)}: flatten the sequences")
    if cu_seqlens.dim() != 1 or cu_seqlens.dtype not in (torch.int32, torch.int64) or len(cu_seqlens) < 2:
        raise ValueError(
            f"cu_seqlens must be (S + 1,) int32 or int64, got {tuple(cu_seqlens.shape)} {cu_seqlens.dtype}"
        )
    if cu_seqlens.is_cuda:  # a look would make the host wait
        return
    if cu_seqlens[0] != 0 or cu_seqlens[-1] != len(token_ids) or (cu_seqlens.diff() < 0).any():
        raise ValueError(
            f"cu_seqlens must rise from 0 to the {len(token_ids)} token_ids, got {cu_seqlens.tolist()[:8]}"
        )
