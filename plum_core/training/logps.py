"""Log-probs of completions under a decoder: one code path for the policy and for the reference."""

from __future__ import annotations

from torch import Tensor

from plum_core.training.batches import IGNORED, Batch
from plum_kernels import linear_logprob
from plum_models.decoder import Decoder


def completion_logps(decoder: Decoder, batch: Batch) -> Tensor:
    """(B,) fp32: each row's log-prob, summed over its scored tokens, under the untempered policy.

    The head sees the scored positions alone; prompts and pads are dropped before it.
    """
    hidden = decoder(batch.token_ids)
    return linear_logprob(hidden, decoder.head_weight, batch.labels, ignore_index=IGNORED).logp.sum(1)
