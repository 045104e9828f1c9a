"""The fused back ends as operators of ``torch.library``: what compile, checkpointing and opcheck see as one piece.

Rows that are ignored are taken out inside, before any arithmetic, since how many they are is only known there; every
result comes back in its place, 0 where nothing is scored. Letters in shapes: N rows, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plum_kernels.logprob import engine, frozen
from plum_kernels.logprob.blocks import LN_2, Transform, Upstream


class _Scored:
    """The rows of a flat batch whose target is not ``ignore_index``."""

    def __init__(self, targets: Tensor, ignore_index: int) -> None:
        self.rows = len(targets)
        self.index = (targets != ignore_index).nonzero().squeeze(1)
        self.whole = len(self.index) == self.rows

    def take(self, values: Tensor) -> Tensor:
        return values if self.whole else values.index_select(0, self.index)

    def put(self, values: Tensor) -> Tensor:
        if self.whole:
            return values
        return values.new_zeros(self.rows, *values.shape[1:]).index_copy_(0, self.index, values)


def _transform(settings: list[float]) -> Transform:
    temperature, logit_scale, softcap = settings
    return Transform(temperature=temperature, logit_scale=logit_scale, softcap=softcap or None)


def settings_of(transform: Transform) -> list[float]:
    """The transform as an operator's argument: temperature, logit scale, and the cap or 0."""
    return [transform.temperature, transform.logit_scale, transform.softcap or 0.0]


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


@torch.library.custom_op("plum_kernels::linear_logprob", mutates_args=())
def fused_logprob(
    x: Tensor,  # (N, D)
    weight: Tensor,  # (V, D)
    targets: Tensor,  # (N,) int64
    bias: Tensor | None,  # (V,)
    ignore_index: int,
    settings: list[float],
    entropy: bool,
    keep: bool,  # keep what the gradient of x will need, for a head without one
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """logp, logsumexp (N,), entropy (N,) or (0,), then for backward (3, N) and (N, D) or (0, D)."""
    with torch.autocast(x.device.type, enabled=False):
        scored = _Scored(targets, ignore_index)
        y = scored.take(targets)
        engine.check_range(y, len(weight), ignore_index)
        problem = engine.Problem(scored.take(x), weight, y, bias, _transform(settings))
        backend = engine.settle(backend, problem.x)
        nothing = x.new_zeros(0, dtype=_wide(x))
        h, mean = nothing, nothing.new_zeros(0, x.shape[1])
        if keep:
            picked, m, s, mean = engine.expectation(problem, backend)
            mean = scored.put(mean)
        else:
            picked, m, s, t = engine.statistics(problem, entropy, backend)
            if entropy:
                h = scored.put(s.log() - t / s)
        # picked - m first: at large logits the difference is exact where picked - logsumexp is not
        logp, lse = (picked - m - s.log2()) * LN_2, (m + s.log2()) * LN_2
        state = torch.stack([scored.put(part) for part in (m, s, picked)])
        return scored.put(logp), scored.put(lse), h, state, mean


@fused_logprob.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    ignore_index: int,
    settings: list[float],
    entropy: bool,
    keep: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows, width = x.shape
    wide = x.new_empty(0, dtype=_wide(x))
    mean = wide.new_empty(rows if keep else 0, width)
    return wide.new_empty(rows), wide.new_empty(rows), wide.new_empty(rows * entropy), wide.new_empty(3, rows), mean


@torch.library.custom_op("plum_kernels::linear_logprob_gradient", mutates_args=())
def fused_gradient(
    g_logp: Tensor,  # (N,)
    g_lse: Tensor,  # (N,)
    g_entropy: Tensor | None,  # (N,)
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    state: Tensor,  # (3, N)
    h: Tensor,  # (N,) or (0,)
    ignore_index: int,
    settings: list[float],
    wanted: list[bool],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, each empty where it is not wanted."""
    with torch.autocast(x.device.type, enabled=False):
        scored = _Scored(targets, ignore_index)
        problem = engine.Problem(scored.take(x), weight, scored.take(targets), bias, _transform(settings))
        backend = engine.settle(backend, problem.x)
        m, s = scored.take(state[0]), scored.take(state[1])
        entropy = None if g_entropy is None else scored.take(g_entropy)
        upstream = Upstream(target=scored.take(g_logp), lse=scored.take(g_lse), entropy=entropy)
        known = (m, s, m if entropy is None else scored.take(h))
        dx, dw, db = engine.gradients(problem, known, upstream, (wanted[0], wanted[1], wanted[2]), backend)
        nothing = x.new_zeros(0)
        return (
            nothing if dx is None else scored.put(dx),
            weight.new_zeros(0) if dw is None else dw,
            nothing.clone() if db is None else db,
        )


@fused_gradient.register_fake
def _(
    g_logp: Tensor,
    g_lse: Tensor,
    g_entropy: Tensor | None,
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    state: Tensor,
    h: Tensor,
    ignore_index: int,
    settings: list[float],
    wanted: list[bool],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    dx = x.new_empty(x.shape) if wanted[0] else x.new_empty(0)
    dw = weight.new_empty(weight.shape) if wanted[1] else weight.new_empty(0)
    return dx, dw, bias.new_empty(bias.shape) if wanted[2] and bias is not None else x.new_empty(0)


@torch.library.custom_op("plum_kernels::frozen_head_gradient", mutates_args=())
def frozen_gradient(
    g_logp: Tensor,
    g_lse: Tensor,
    weight: Tensor,
    targets: Tensor,
    state: Tensor,
    mean: Tensor,
    ignore_index: int,
    settings: list[float],
) -> Tensor:
    """Gradient of x (N, D) in the weight's dtype, from what forward kept."""
    with torch.autocast(weight.device.type, enabled=False):
        keep = targets != ignore_index
        transform = _transform(settings)
        slope = transform.slope(state[2])
        target, lse = (torch.where(keep, g, 0.0) for g in (g_logp, g_lse))
        slope = torch.ones_like(state[2]) if slope is None else slope
        y = torch.where(keep, targets, 0)
        return frozen.gradient(target, lse, weight, y, slope, mean, transform)


@frozen_gradient.register_fake
def _(
    g_logp: Tensor,
    g_lse: Tensor,
    weight: Tensor,
    targets: Tensor,
    state: Tensor,
    mean: Tensor,
    ignore_index: int,
    settings: list[float],
) -> Tensor:
    return weight.new_empty(mean.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, targets, bias, ctx.ignore_index, ctx.settings, ctx.entropy, ctx.keep, ctx.backend = inputs
    _, _, h, state, mean = output
    ctx.set_materialize_grads(False)
    if ctx.keep:  # x is not needed again
        ctx.save_for_backward(weight, targets, state, mean)
    else:
        ctx.save_for_backward(x, weight, targets, bias, state, h)


def _backward(
    ctx: Any, g_logp: Tensor | None, g_lse: Tensor | None, g_h: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The last two outputs are for backward alone and send nothing."""
    if ctx.keep:
        weight, targets, state, mean = ctx.saved_tensors
    else:
        x, weight, targets, bias, state, h = ctx.saved_tensors
    zero = torch.zeros_like(state[0])
    target, lse = (zero if g is None else g for g in (g_logp, g_lse))
    if ctx.keep:
        dx = frozen_gradient(target, lse, weight, targets, state, mean, ctx.ignore_index, ctx.settings)
        return (dx, *[None] * 8)
    wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], bias is not None and ctx.needs_input_grad[3]]
    entropy = g_h if ctx.entropy else None
    made = fused_gradient(
        target, lse, entropy, x, weight, targets, bias, state, h, ctx.ignore_index, ctx.settings, wanted, ctx.backend
    )
    dx, dw, db = (value if want else None for value, want in zip(made, wanted, strict=True))
    return dx, dw, None, db, *[None] * 5


fused_logprob.register_autograd(_backward, setup_context=_setup)
