"""Random weights to start from."""

from __future__ import annotations

import torch
from torch import nn

from plum_models.config import DecoderConfig
from plum_models.decoder import Decoder


def initial_decoder(config: DecoderConfig, seed: int) -> Decoder:
    """A decoder with normal weights: embeddings 0.02, matrices 1/sqrt(inputs), those that write to the residual
    stream half as wide, so that the first layers' sums do not drown the embeddings (after GPT-2's scaling)."""
    generator = torch.Generator().manual_seed(seed)
    decoder = Decoder(config)
    for name, weight in decoder.named_parameters():
        if weight.dim() != 2:
            continue
        std = 0.02 if "embed_tokens" in name else weight.shape[1] ** -0.5
        if name.endswith(("o_proj.weight", "down_proj.weight", "c_proj.weight")):
            std *= 0.5
        nn.init.normal_(weight, std=std, generator=generator)
    return decoder
