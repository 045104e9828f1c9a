"""Our functions under the peers' names and signatures, for the peers' own published tests."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from plum_kernels import linear_logprob, linear_preference

LOSS_TYPES = {
    "sigmoid": "dpo",
    "hinge": "hinge",
    "bco_pair": "bco",
    "robust": "robust_dpo",
    "exo_pair": "exo",
    "apo_zero": "apo_zero",
    "apo_down": "apo_down",
    "sppo_hard": "sppo",
    "nca_pair": "nca",
}
SMOOTHED = ("sigmoid", "robust", "exo_pair")


def linear_cross_entropy(
    e: Tensor,
    c: Tensor,
    targets: Tensor,
    ignore_index: int = -100,
    softcap: float | None = None,
    reduction: str = "mean",
    shift: bool = False,
    impl: str = "cce",
) -> Tensor:
    """cut-cross-entropy's function."""
    assert impl == "cce"
    if shift:
        e, targets = e[:, :-1], targets[:, 1:]
    loss = -linear_logprob(e, c, targets, softcap=softcap, ignore_index=ignore_index).logp
    if reduction == "none":
        return loss
    return loss.sum() / (targets != ignore_index).sum() if reduction == "mean" else loss.sum()


def cce_lse_forward_kernel(e: Tensor, c: Tensor, softcap: float | None = None) -> Tensor:
    y = torch.zeros(len(e), dtype=torch.int64)
    return linear_logprob(e, c, y, softcap=softcap).logsumexp


class LigerFusedLinearCrossEntropyLoss:
    """Liger's class, for the arguments that concern log-probs."""

    def __init__(self, *, ignore_index: int, reduction: str, softcap: float | None, **others: Any) -> None:
        assert not any(others.values()), f"no part of a log-prob: {others}"
        self.options = {"ignore_index": ignore_index, "softcap": softcap}
        self.reduction = reduction

    def __call__(self, weight: Tensor, x: Tensor, y: Tensor, bias: Tensor | None) -> Tensor:
        loss = -linear_logprob(x, weight, y, bias=bias, **self.options).logp
        return loss.sum() / ((y != self.options["ignore_index"]).sum() if self.reduction == "mean" else 1)


class LigerFusedLinearDPOLoss:
    """Liger's class: chosen in the first half, means over tokens, a likelihood term of the chosen beside the loss."""

    def __init__(
        self,
        *,
        ignore_index: int,
        beta: float,
        compute_nll_loss: bool,
        average_log_prob: bool,
        use_ref_model: bool,
        loss_type: str = "sigmoid",
        label_smoothing: float = 0.0,
        **_: float,
    ) -> None:
        assert average_log_prob and use_ref_model
        self.ignore_index, self.nll, self.objective = ignore_index, compute_nll_loss, LOSS_TYPES[loss_type]
        self.options = {"beta": beta} | ({"label_smoothing": label_smoothing} if loss_type in SMOOTHED else {})

    def __call__(
        self,
        weight: Tensor,
        x: Tensor,  # (2 B, T, H)
        y: Tensor,  # (2 B, T)
        bias: Tensor | None,
        ref_x: Tensor,
        ref_weight: Tensor,
        ref_bias: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        sequences, length = y.shape
        pairs = torch.arange(sequences).view(2, -1).T.flatten()  # chosen, rejected, chosen, ...
        hidden, targets = x[pairs].flatten(0, 1), y[pairs].flatten()
        scored = y[pairs] != self.ignore_index
        mean = (scored / scored.sum(1, keepdim=True)).flatten()  # a token's weight: the sums become means
        head = {"ignore_index": self.ignore_index}
        with torch.no_grad():
            ref = linear_logprob(ref_x[pairs].flatten(0, 1), ref_weight, targets, bias=ref_bias, **head).logp
        cu = torch.arange(0, sequences * length + 1, length)
        got = linear_preference(
            hidden, weight, targets, cu, ref, bias=bias, objective=self.objective, weights=mean, **head, **self.options
        )
        loss, nll = got.loss, torch.tensor(0.0)
        if self.nll:
            half = sequences // 2
            logp = linear_logprob(x[:half].flatten(0, 1), weight, y[:half].flatten(), bias=bias, **head).logp
            nll = -logp.sum() / (y[:half] != self.ignore_index).sum()
            loss = loss + nll
        with torch.no_grad():  # what Liger reports besides
            means = [F.linear(half, weight, bias).float().mean() for half in x.chunk(2)]
        m = got.metrics
        beside = (m["logps/chosen"], m["logps/rejected"], *means, nll, m["rewards/chosen"], m["rewards/rejected"])
        return loss, beside
