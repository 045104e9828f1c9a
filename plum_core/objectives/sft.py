"""Supervised likelihood: plain fine-tuning, and rejection-sampling fine-tuning when fed with what passed."""

from __future__ import annotations

from torch import Tensor

from plum_core.objectives.objective import Objective, check_same_length


def sft(logps: Tensor, lengths: Tensor) -> Objective:
    """Length-normalised negative log-likelihood, (B,): nats a token of each completion.

    logps: (B,) log-prob of each completion, summed over its tokens. lengths: (B,) its scored tokens, >= 1.
    The mean of the losses weighs sequences alike; for the mean over tokens weigh them by length. The same
    term, added to DPO, is the NLL part of RPO (Pang et al. 2024, arXiv 2404.19733, eq. 1).
    """
    check_same_length(logps=logps, lengths=lengths)
    losses = -logps / lengths
    return Objective(losses, {"nll": losses.detach(), "logps/chosen": logps.detach()})
