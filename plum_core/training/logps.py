"""Log-probs of completions under a decoder: one code path for the policy and for the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from plum_core.training.batches import Example
from plum_core.training.packing import Packed
from plum_kernels import linear_logprob
from plum_kernels.logprob.parallel import logsumexp_over
from plum_models.attention import causal
from plum_models.decoder import Decoder

COLLISION_ROWS = 256  # tokens whose logits are held at once for the sum of squares


class Scores(NamedTuple):
    """Of N completions after their prompts, untempered, (N,) fp32 each."""

    logps: Tensor  # log-prob, each token's times its weight where the example has weights
    plain: Tensor  # log-prob, every token alike; the same tensor as ``logps`` where nothing is weighted
    alignment: Tensor | None  # mean over tokens of log(p / sum of p**2), detached; None where it was not asked for


def completion_logps(decoder: Decoder, examples: Sequence[Example]) -> Tensor:
    """(N,) fp32: each completion's log-prob after its prompt, summed over its tokens, untempered.

    An example's token weights are honoured. Prompts that several completions share and completions that occur twice
    are computed once; the head sees the scored positions alone.
    """
    return completion_scores(decoder, examples).logps


def completion_scores(decoder: Decoder, examples: Sequence[Example], *, alignment: bool = False) -> Scores:
    """``completion_logps`` and, from the same forward, what else an objective may want."""
    packed, scored, token_logps = _scored(decoder, examples)

    def per_example(values: Tensor) -> Tensor:
        return torch.segment_reduce(values, "sum", lengths=packed.lengths).index_select(0, packed.which)

    plain = per_example(token_logps)
    logps = plain if packed.weights is None else per_example(token_logps * packed.weights)
    if not alignment:
        return Scores(logps, plain, None)
    aligned = token_logps.detach() - _log_collision(decoder, scored.detach())
    return Scores(logps, plain, per_example(aligned) / packed.lengths.index_select(0, packed.which))


def padded_logps(decoder: Decoder, examples: Sequence[Example]) -> Tensor:
    """(N, T) fp32: the log-prob of each token of each completion, 0 past its end; T is the longest one's."""
    packed, _, token_logps = _scored(decoder, examples)
    rows = token_logps.split(packed.lengths.tolist())
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True).index_select(0, packed.which)


def _scored(decoder: Decoder, examples: Sequence[Example]) -> tuple[Packed, Tensor, Tensor]:
    """The packed batch, (C, D) hidden states of its scored positions, (C,) log-probs of its targets."""
    packed = Packed(examples, decoder.head_weight.device, causal(decoder.config))
    hidden = decoder(packed.token_ids, packed.positions, packed.attend)[0]
    scored = hidden[len(hidden) - len(packed.targets) :]
    cap = decoder.config.logit_softcap
    return packed, scored, linear_logprob(scored, decoder.head_weight, packed.targets, softcap=cap).logp


@torch.no_grad()
def _log_collision(decoder: Decoder, hidden: Tensor) -> Tensor:
    """(C,) fp32: log of the sum over the vocabulary of p**2 at each scored position; (C, D) in."""
    cap, sums, weight = decoder.config.logit_softcap, [], decoder.head_weight
    own = weight.to_local() if isinstance(weight, DTensor) else weight  # of the vocabulary, where ranks share it
    for rows in hidden.split(COLLISION_ROWS):
        logits = (rows @ own.T).float()
        if cap is not None:
            logits = cap * torch.tanh(logits / cap)
        sums.append(torch.stack((torch.logsumexp(2 * logits, -1), torch.logsumexp(logits, -1))))
    twice, once = torch.cat(sums, 1)
    if isinstance(weight, DTensor):
        twice, once = logsumexp_over(torch.stack((twice, once)), weight.device_mesh.get_group())
    return twice - 2 * once
