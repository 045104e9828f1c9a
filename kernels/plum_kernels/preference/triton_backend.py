"""The launches of ``preference_loss``, as an operator that torch.compile sees as one piece.

Letters in shapes: T tokens, S sequences, L losses.
"""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from torch import Tensor

from plum_kernels.preference.formulas import SPECS, Given, Options
from plum_kernels.preference.reference import sequence_of
from plum_kernels.preference.triton_kernels import pair_loss, sequence_loss

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BLOCK = 32 if INTERPRETED else 1024  # tokens that a program reads at a time


def constants(objective: str, options: Options) -> dict[str, float]:
    """The options as the kernels' compile-time numbers: they do not change during a run, and need no copy."""
    spec = SPECS[objective]
    if spec.single:
        weights = options.get("desirable_weight", 1.0), options.get("undesirable_weight", 1.0)
        return {"BETA": options["beta"], "GOOD": weights[0], "BAD": weights[1], "CODE": spec.code}
    e = options.get("label_smoothing", 0.0)
    return {
        "BETA": options["beta"],
        "E": e,
        "LOG_E": math.log(e) if e > 0 else 0.0,
        "LOG_KEPT": math.log1p(-e),
        "EXTRA": options.get("penalty", options.get("sums", options.get("gamma", 0.0))),
        "CODE": spec.code,
        "MEANS": spec.means,
    }


@torch.library.custom_op("plum_kernels::preference_loss", mutates_args=())
def _preference_loss(
    logps: Tensor,
    cu_seqlens: Tensor,
    ref_logps: Tensor | None,
    scored: Tensor | None,
    weights: Tensor | None,
    desirable: Tensor | None,
    point: Tensor | None,
    alignment: Tensor | None,
    objective: str,
    values: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (L,), each token's gradient of its own sequence's loss (T,), and (2, S) as in the reference."""
    spec = SPECS[objective]
    sequences = len(cu_seqlens) - 1
    losses = logps.new_empty(sequences if spec.single else sequences // 2)
    gradient = torch.zeros_like(logps)  # tokens past the last sequence belong to none
    shown = logps.new_empty(2, sequences)
    if len(losses) == 0:
        return losses, gradient, shown

    def given(tensor: Tensor | None) -> Tensor:
        return logps if tensor is None else tensor.to(logps.dtype).contiguous()

    mask = logps if scored is None else scored.contiguous().view(torch.uint8)
    read = (logps, given(ref_logps), mask, given(weights), cu_seqlens)
    written = (losses, gradient, shown)
    fixed = {
        **constants(objective, dict(zip(spec.options, values, strict=True))),
        "HAS_MASK": scored is not None,
        "HAS_WEIGHTS": weights is not None,
        "BLOCK": BLOCK,
        "num_warps": 4,
    }
    grid = (len(losses),)
    if spec.single:
        assert desirable is not None
        verdicts = desirable.contiguous().view(torch.uint8)
        at = logps.new_zeros(1) if point is None else given(point)
        sequence_loss[grid](*read, verdicts, at, *written, sequences, **fixed)
    else:
        has = {"HAS_REF": ref_logps is not None, "HAS_ALIGNMENT": alignment is not None}
        pair_loss[grid](*read, given(alignment), *written, len(losses), **has, **fixed)
    return losses, gradient, shown


@_preference_loss.register_fake
def _(
    logps: Tensor,
    cu_seqlens: Tensor,
    ref_logps: Tensor | None,
    scored: Tensor | None,
    weights: Tensor | None,
    desirable: Tensor | None,
    point: Tensor | None,
    alignment: Tensor | None,
    objective: str,
    values: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    sequences = cu_seqlens.shape[0] - 1
    count = sequences if SPECS[objective].single else sequences // 2
    return logps.new_empty(count), torch.empty_like(logps), logps.new_empty(2, sequences)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[1], output[1])
    ctx.single = SPECS[inputs[8]].single


def _backward(ctx: Any, of_losses: Tensor, of_gradient: Tensor, of_shown: Tensor) -> tuple[Tensor | None, ...]:
    """Each token's gradient times its loss's upstream; the other two outputs are for the books and send nothing."""
    cu_seqlens, gradient = ctx.saved_tensors
    owner = sequence_of(gradient.shape[0], cu_seqlens)
    owner = owner if ctx.single else owner // 2
    if of_losses.shape[0] == 0:
        return (torch.zeros_like(gradient), *[None] * 9)
    upstream = of_losses.index_select(0, owner.clamp(max=of_losses.shape[0] - 1))
    return (gradient * upstream, *[None] * 9)


_preference_loss.register_autograd(_backward, setup_context=_setup)


def triton_preference_loss(
    logps: Tensor, cu_seqlens: Tensor, given: Given, objective: str, options: Options
) -> tuple[Tensor, Tensor]:
    """As the reference. Raises ValueError without a GPU (unless Triton interprets) and for aot, which sorts."""
    if objective in ("aot", "aot_unpaired"):
        raise ValueError(
            f"objective {objective} sorts the whole batch, which one launch cannot: use backend='reference'"
        )
    if not (logps.is_cuda or INTERPRETED):
        raise ValueError(f"backend triton needs a GPU, got tensors on {logps.device}: use backend='reference'")
    values = [float(options[name]) for name in SPECS[objective].options]
    losses, _, shown = _preference_loss(logps.contiguous(), cu_seqlens.contiguous(), *given, objective, values)
    return losses, shown.detach()
