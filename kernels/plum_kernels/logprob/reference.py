"""The definition: all logits at once, log_softmax, gather. Slow and obvious; every back end is held to it.

Letters in shapes: N rows, D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plum_kernels.logprob.blocks import Transform


def reference_logprob(
    x: Tensor,  # (N, D)
    weight: Tensor,  # (V, D)
    targets: Tensor,  # (N,) int64 in [0, V)
    bias: Tensor | None,  # (V,)
    transform: Transform,
    entropy: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(logp, logsumexp, entropy), each (N,) fp32, or fp64 for fp64 inputs."""
    accurate = torch.promote_types(x.dtype, torch.float32)  # a low-precision logit would cost 2**-8 of its size
    z = x.to(accurate) @ weight.to(accurate).T
    if bias is not None:
        z = z + bias.to(accurate)
    z = z * transform.logit_scale
    if transform.softcap is not None:
        z = transform.softcap * torch.tanh(z / transform.softcap)
    z = z / transform.temperature
    log_p = torch.log_softmax(z, dim=-1)
    logp = log_p.gather(1, targets.unsqueeze(1)).squeeze(1)
    plogp = log_p.exp() * log_p.masked_fill(log_p.isneginf(), 0.0)  # 0 log 0 = 0
    return logp, torch.logsumexp(z, dim=-1), -plogp.sum(-1) if entropy else None
