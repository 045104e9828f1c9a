"""The peers that are installed, as functions of hidden states, head and targets. None is imported that is not there.

Each gives per-row negative log-probs where the peer offers them, else their mean; letters: N rows, D width, V
vocabulary.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Method = Callable[[Tensor, Tensor, Tensor], Tensor]


def has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent of a dotted name
        return False


def naive(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    return -F.linear(x, w).float().log_softmax(-1).gather(1, y.unsqueeze(1)).squeeze(1)


def torch_lce(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    return F.linear_cross_entropy(x, w, y, reduction="mean")


def liger(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    out: Tensor = LigerFusedLinearCrossEntropyLoss()(w, x, y)
    return out


def cut_cross_entropy(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(x, w, y, reduction="none")


def cut_cross_entropy_exact(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(x, w, y, reduction="none", filter_eps=None)


def trl_chunked(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    from trl.kernels import ChunkedLogProbFunction

    return -ChunkedLogProbFunction.apply(x, w, None, y, 1.0, 32768, None, 1.0, ())[0]


def logprob_peers(dry: bool) -> dict[str, Method | str]:
    """Each by name, or why it is not there."""
    found: dict[str, Method | str] = {"naive log_softmax": naive}
    found["torch linear_cross_entropy"] = (
        torch_lce if hasattr(F, "linear_cross_entropy") else f"torch {torch.__version__} has none"
    )
    others: list[tuple[str, str, Method]] = [
        ("Liger fused linear cross entropy", "liger_kernel", liger),
        ("cut-cross-entropy", "cut_cross_entropy", cut_cross_entropy),
        ("cut-cross-entropy, no filter", "cut_cross_entropy", cut_cross_entropy_exact),
        ("TRL chunked log-probs", "trl.kernels", trl_chunked),
    ]
    for name, module, method in others:
        found[name] = "not installed" if not has(module) else "needs a GPU" if dry else method
    return found


def liger_dpo(x: Tensor, w: Tensor, y: Tensor, ref_x: Tensor, ref_w: Tensor) -> Tensor:
    """x (2 B, S, D), chosen first; y (2 B, S). Its loss, without the likelihood term."""
    from liger_kernel.chunked_loss import LigerFusedLinearDPOLoss

    out = LigerFusedLinearDPOLoss(beta=0.1)(w, x, y, None, ref_x, ref_w)
    return out[0] if isinstance(out, tuple) else out
