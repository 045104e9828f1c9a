"""``linear_preference``: from hidden states and head to a preference loss, for a head that is trained."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from plum_kernels.head.operator import fused_preference
from plum_kernels.logprob.blocks import Transform
from plum_kernels.logprob.interface import autocast, check_inputs, check_options, fastest
from plum_kernels.logprob.operator import settings_of
from plum_kernels.preference.formulas import SPECS, Given
from plum_kernels.preference.interface import check_preference, fill_options, metrics_of


class LinearPreference(NamedTuple):
    loss: Tensor  # () sum of losses times ``scale``; the one output that sends gradients
    losses: Tensor  # (L,) a pair, or a sequence with a verdict
    logps: Tensor  # (T,) nats, 0 where nothing is scored
    dropped: Tensor  # (T,) what the filter left out of each row's gradient, 0 without one: see the function
    metrics: dict[str, Tensor]  # as preference_loss names them


def linear_preference(
    hidden: Tensor,  # (T, D) fp64, fp32, bf16 or fp16, sequences end to end
    weight: Tensor,  # (V, D)
    targets: Tensor,  # (T,) int64, ``ignore_index`` where nothing is scored
    cu_seqlens: Tensor,  # (S + 1,) int32 or int64: where each sequence starts, and the end of the last
    ref_logps: Tensor | None = None,  # (T,) fp32 (fp64 for fp64 inputs)
    *,
    objective: str,
    bias: Tensor | None = None,  # (V,)
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    ignore_index: int = -100,
    weights: Tensor | None = None,  # the next five as preference_loss has them
    desirable: Tensor | None = None,
    kl: Tensor | None = None,
    shift: Tensor | None = None,
    alignment: Tensor | None = None,
    scale: Tensor | None = None,  # (L,) what each loss counts; 1 / L each where it is left out
    threshold: float = 0.0,
    backend: str = "auto",
    **options: float,
) -> LinearPreference:
    """``preference_loss`` of ``linear_logprob``, with the gradients made while the logits are there.

    A pair's gradients need nothing of other pairs, so a chunk of whole pairs is finished at once: 6 T D V operations
    with a trained head where the two functions apart take 8, and a chunk of logits as workspace (256 MiB on a CPU, 1
    GiB on a GPU, more only for a pair that is longer). aot and aot_unpaired compare pairs of a whole batch and are
    refused.

    ``threshold`` > 0 leaves tiles of the logits' gradient out: those where for no row |g| q reaches it, with g the
    gradient by the row's log-prob and q the tile's share of the probability, the target's aside, which always counts.
    ``dropped`` is what each row lost; ``plum_kernels.head.filter`` states the bound on the gradients that follows.

    backend: "reference" holds all logits; "blocked" and "triton" a chunk; "compiled" (a CPU with AVX-512, fp32 and
    bf16, no filter) only a block, 8 T D V operations at a higher rate; "auto" is "compiled" where that can be had and
    nothing is filtered, on a GPU the fastest by a committed run there, else "blocked". First order only.
    Raises ValueError for shapes, dtypes, devices and options that do not fit.
    """
    filled = fill_options(objective, options)
    hidden, weight = autocast(hidden, weight)
    check_inputs(hidden, weight, targets, bias)
    check_options(temperature, logit_scale, softcap, backend)
    if objective in ("aot", "aot_unpaired"):
        raise ValueError(f"objective {objective} sorts the whole batch: use linear_logprob and preference_loss")
    if hasattr(weight, "device_mesh"):
        raise ValueError("a head weight in parts over ranks: use linear_logprob and preference_loss")
    if hidden.dim() != 2:
        raise ValueError(f"hidden must be (T, D), sequences end to end, got {tuple(hidden.shape)}")
    if not (math.isfinite(threshold) and threshold >= 0):
        raise ValueError(f"threshold must be finite and >= 0, got {threshold}")
    wide = torch.promote_types(hidden.dtype, torch.float32)
    logps = torch.zeros(hidden.shape[0], dtype=wide, device=hidden.device)  # for its shape and dtype
    beside = {"ref_logps": ref_logps, "scored": None, "weights": weights, "desirable": desirable}
    check_preference(objective, logps, cu_seqlens, {**beside, "kl": kl, "shift": shift, "alignment": alignment})
    count = (len(cu_seqlens) - 1) // (1 if SPECS[objective].single else 2)
    if scale is None:
        scale = torch.full((count,), 1.0 / max(count, 1), dtype=wide, device=hidden.device)
    if scale.shape != (count,):
        raise ValueError(f"scale must be ({count},), one a loss, got {tuple(scale.shape)}")
    if backend == "compiled" and threshold:
        raise ValueError(f"backend='compiled' has no filter, got threshold {threshold}: use 'blocked', or 0")
    if backend == "hybrid":
        raise ValueError("backend hybrid is of linear_logprob alone: use backend='triton'")
    backend = fastest("linear_preference", hidden) if backend == "auto" else backend
    if backend == "triton":
        from plum_kernels.logprob.triton_backend import check_device  # a second to import: for those who ask

        check_device(hidden)
    learns = torch.is_grad_enabled()
    wanted = [learns and t is not None and t.requires_grad for t in (hidden, weight, bias)]
    point = kl if kl is not None else shift
    fixed = (ref_logps, weights, desirable, point, alignment)
    transform = Transform(temperature=temperature, logit_scale=logit_scale, softcap=softcap)
    loss, losses, shown, logps, dropped, *_ = fused_preference(
        hidden, weight, targets, cu_seqlens, bias, *(None if t is None else t.detach() for t in fixed),
        scale.detach().to(logps.dtype), ignore_index, settings_of(transform), objective,
        [float(filled[name]) for name in SPECS[objective].options], threshold, wanted, backend,
    )  # fmt: skip
    rewards, of_logps = shown.detach()
    given = Given(point=point, alignment=alignment)
    metrics = metrics_of(objective, rewards, of_logps, given, filled["beta"])
    return LinearPreference(loss, losses.detach(), logps.detach(), dropped.detach(), metrics)
