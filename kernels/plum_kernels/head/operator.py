"""``linear_preference`` as one operator: forward makes the gradients too, backward scales them.

Letters in shapes: T rows, N scored rows, D width, V vocabulary, S sequences, L losses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plum_kernels.head.chunks import Head, Score, reference_score, run
from plum_kernels.logprob.blocks import Transform
from plum_kernels.logprob.engine import check_range, settle
from plum_kernels.preference.formulas import SPECS, Given


def _parts(backend: str) -> tuple[Any, Score]:
    """The head's class and what scores a chunk."""
    if backend == "reference":
        from plum_kernels.head.reference import ReferenceHead

        return ReferenceHead, reference_score
    if backend == "blocked":
        from plum_kernels.head.blocked import BlockedHead

        return BlockedHead, reference_score
    if backend == "compiled":
        from plum_kernels.head.compiled import CompiledHead

        return CompiledHead, reference_score
    from plum_kernels.head.triton_backend import TritonHead, triton_score  # a second to import

    return TritonHead, triton_score


@torch.library.custom_op("plum_kernels::linear_preference", mutates_args=())
def fused_preference(
    x: Tensor,  # (T, D)
    weight: Tensor,  # (V, D)
    targets: Tensor,  # (T,) int64
    cu_seqlens: Tensor,  # (S + 1,)
    bias: Tensor | None,
    ref_logps: Tensor | None,
    weights: Tensor | None,
    desirable: Tensor | None,
    point: Tensor | None,
    alignment: Tensor | None,
    scale: Tensor,  # (L,)
    ignore_index: int,
    settings: list[float],  # temperature, logit scale, cap or 0
    objective: str,
    values: list[float],
    threshold: float,
    wanted: list[bool],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """loss (), losses (L,), (2, S) shown, logps (T,), dropped (T,), gradients of x, weight and bias (empty if not)."""
    with torch.autocast(x.device.type, enabled=False):
        at = torch.arange(len(targets), device=x.device)
        scored = (targets != ignore_index) & (at >= cu_seqlens[0]) & (at < cu_seqlens[-1])
        index = scored.nonzero().squeeze(1)
        before = torch.cat((scored.new_zeros(1, dtype=torch.int64), scored.cumsum(0)))
        starts = before[cu_seqlens.long()].tolist()  # the one copy to the host beside the number of rows
        y = targets[index]
        check_range(y, len(weight), ignore_index)
        spec = SPECS[objective]
        step = 1 if spec.single else 2
        longest = max((b - a for a, b in zip(starts[:-step:step], starts[step::step], strict=True)), default=1)
        given = Given(
            None if ref_logps is None else ref_logps[index],
            None,
            None if weights is None else weights[index],
            desirable,
            point,
            alignment,
        )
        rows = x[index]
        build, score = _parts("blocked" if threshold and backend == "auto" else settle(backend, rows))
        temperature, logit_scale, softcap = settings
        transform = Transform(temperature=temperature, logit_scale=logit_scale, softcap=softcap or None)
        want = (wanted[0], wanted[1], wanted[2])
        head: Head = build(rows, weight, y, bias, transform, threshold, want, max(longest, 1))
        options = dict(zip(spec.options, values, strict=True))
        out = run(head, starts, given, scale, objective, options, score, any(want), x.device)
        dx, dw, db = head.results()

        def put(part: Tensor) -> Tensor:
            return part.new_zeros(len(targets), *part.shape[1:]).index_copy_(0, index, part)

        nothing = x.new_zeros(0)
        losses, shown, logps, dropped = (part.to(scale.dtype) for part in out)
        return (
            (losses * scale).sum(), losses, shown, put(logps), put(dropped),
            nothing if dx is None else put(dx),
            weight.new_zeros(0) if dw is None else dw,
            nothing.clone() if db is None else db,
        )  # fmt: skip


@fused_preference.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    cu_seqlens: Tensor,
    bias: Tensor | None,
    ref_logps: Tensor | None,
    weights: Tensor | None,
    desirable: Tensor | None,
    point: Tensor | None,
    alignment: Tensor | None,
    scale: Tensor,
    ignore_index: int,
    settings: list[float],
    objective: str,
    values: list[float],
    threshold: float,
    wanted: list[bool],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows, sequences = targets.shape[0], cu_seqlens.shape[0] - 1
    return (
        scale.new_empty(()), scale.new_empty(scale.shape), scale.new_empty(2, sequences),
        scale.new_empty(rows), scale.new_empty(rows),
        x.new_empty(x.shape if wanted[0] else (0,)),
        weight.new_empty(weight.shape if wanted[1] else (0,)),
        x.new_empty(0) if bias is None or not wanted[2] else bias.new_empty(bias.shape),
    )  # fmt: skip


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.wanted = inputs[16]
    ctx.save_for_backward(*output[5:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, of_loss: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    """The loss alone sends gradients; the other outputs are for the books."""
    dx, dw, db = (
        part * of_loss.to(part.dtype) if want and of_loss is not None else None
        for part, want in zip(ctx.saved_tensors, ctx.wanted, strict=True)
    )
    return dx, dw, None, None, db, *[None] * 13


fused_preference.register_autograd(_backward, setup_context=_setup)
