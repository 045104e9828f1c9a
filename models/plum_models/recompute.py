"""Activation checkpointing: layers that keep less in the forward and compute it again in the backward.

none: keep all. full: keep every layer's input alone. every N: so for each N-th layer, from the first on. matmuls: keep
what matrix products and attention gave, and compute norms, rotations and activations again (Korthikanti et al. 2022,
arXiv 2205.05198, section 5): most of the saving for a few per cent of the time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

_ATEN = torch.ops.aten
_KEPT = {
    _ATEN.mm.default,
    _ATEN.addmm.default,
    _ATEN.bmm.default,
    _ATEN.baddbmm.default,
    _ATEN._scaled_dot_product_flash_attention.default,
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default,
    _ATEN._scaled_dot_product_efficient_attention.default,
    _ATEN._scaled_dot_product_cudnn_attention.default,
}


def _keep(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if op in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def check_policy(policy: str) -> int:
    """How many layers lie between two that recompute: 0 for none. Raises ValueError for no policy."""
    if policy == "none":
        return 0
    every = re.fullmatch(r"every ([1-9][0-9]*)", policy)
    if policy not in ("full", "matmuls") and not every:
        raise ValueError(f"checkpointing must be none, full, matmuls or 'every N' with N from 1 on, got {policy!r}")
    return int(every[1]) if every else 1


def call(policy: str, number: int, layer: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """``layer(*arguments)`` for the decoder's layer ``number``, under ``policy``."""
    step = check_policy(policy)
    if not step or number % step or not torch.is_grad_enabled():
        return layer(*arguments)
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": True}
    if policy == "matmuls":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _keep)
    out: Tensor = checkpoint(layer, *arguments, **options)
    return out
