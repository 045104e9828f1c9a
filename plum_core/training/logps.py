"""Log-probs of completions under a decoder: one code path for the policy and for the reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from plum_core.training.batches import Example
from plum_core.training.packing import Packed
from plum_kernels import linear_logprob
from plum_models.attention import causal
from plum_models.decoder import Decoder


def completion_logps(decoder: Decoder, examples: Sequence[Example]) -> Tensor:
    """(N,) fp32: each completion's log-prob after its prompt, summed over its tokens, untempered.

    Prompts that several completions share and completions that occur twice are computed once; the head sees the
    scored positions alone.
    """
    packed = Packed(examples, decoder.head_weight.device, causal(decoder.config))
    hidden = decoder(packed.token_ids, packed.positions, packed.attend)[0]
    scored = hidden[len(hidden) - len(packed.targets) :]
    cap = decoder.config.logit_softcap
    logps = linear_logprob(scored, decoder.head_weight, packed.targets, softcap=cap).logp
    return torch.segment_reduce(logps, "sum", lengths=packed.lengths).index_select(0, packed.which)
