"""One face of the three fused back ends: statistics of rows, and gradients from them. All targets are scored here.

Letters in shapes: N rows, D width, V vocabulary.
"""

from __future__ import annotations

import functools
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from plum_kernels.compiled import head as compiled
from plum_kernels.logprob import blocked, frozen
from plum_kernels.logprob.blocks import Blocks, Transform, Upstream

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class Problem(NamedTuple):
    """What is asked: x (N, D), weight (V, D), targets (N,) int64 in [0, V), bias (V,), and how logits become z."""

    x: Tensor
    weight: Tensor
    targets: Tensor
    bias: Tensor | None
    transform: Transform


def settle(backend: str, x: Tensor) -> str:
    """What "auto" is for x: "compiled" on a CPU that can have it, else "blocked", which is announced once.

    Raises ValueError where "compiled" is asked for by name and cannot be had. Asked inside the operators, where
    torch.compile does not look.
    """
    if backend not in ("auto", "compiled"):
        return backend
    if backend == "compiled":
        reason = "the tensors are not on a CPU" if x.device.type != "cpu" else compiled.missing(x.dtype)
        if reason is not None:
            raise ValueError(f"backend='compiled' cannot run here: {reason}; use 'auto' or 'blocked'")
    fits = x.device.type == "cpu" and x.dtype in compiled.DTYPES and len(x) > 0
    return "compiled" if fits and not _without(x.dtype) else "blocked"


@functools.cache
def _without(dtype: torch.dtype) -> bool:
    reason = compiled.missing(dtype)
    if reason is not None:
        warnings.warn(f"linear_logprob of {dtype} runs in torch operators, not compiled: {reason}", stacklevel=2)
    return reason is not None


def _head(p: Problem) -> compiled.Head:
    return compiled.Head(compiled.Inputs(p.x, p.weight, p.targets, p.bias, p.transform))


def statistics(p: Problem, entropy: bool, backend: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N,) each: the target's u, the maximum m of u, s = sum 2**(u - m), t = sum 2**(u - m) (u - m) ln 2."""
    if backend == "compiled":
        return _head(p).statistics(entropy)
    if backend == "blocked":
        return blocked.statistics(Blocks(p.x, p.weight, p.bias, p.transform), p.targets, entropy)
    if backend == "hybrid":
        from plum_kernels.logprob import hybrid

        return hybrid.statistics(hybrid.Rows(p.x.contiguous(), p.weight, p.bias, p.transform, entropy), p.targets)
    from plum_kernels.logprob import triton_backend as tiles  # a second to import

    x, weight = p.x.contiguous(), p.weight.contiguous()
    return tiles.statistics(tiles.Launch(x, weight, p.bias, p.transform, entropy), x, p.targets)


def gradients(
    p: Problem,
    state: tuple[Tensor, Tensor, Tensor],  # m, s and the entropy, (N,) each
    upstream: Upstream,
    wanted: tuple[bool, bool, bool],
    backend: str,
) -> Gradients:
    """Gradients of x, weight and bias, in their own dtypes; None where not wanted."""
    if backend in ("blocked", "compiled"):
        if backend == "compiled":
            dx, dw, db = _head(p).gradients(state, upstream, wanted)
        else:
            blocks = Blocks(p.x, p.weight, p.bias, p.transform)
            dx, dw, db = blocked.gradients(blocks, p.targets, state, upstream, wanted)
        db = None if db is None or p.bias is None else db.to(p.bias.dtype)
        return None if dx is None else dx.to(p.x.dtype), dw, db
    if backend == "hybrid":
        from plum_kernels.logprob import hybrid

        rows = hybrid.Rows(p.x.contiguous(), p.weight, p.bias, p.transform, upstream.entropy is not None)
        return hybrid.gradients(rows, p.targets, state, upstream, wanted)
    from plum_kernels.logprob import triton_backend as tiles

    x, weight = p.x.contiguous(), p.weight.contiguous()
    launch = tiles.Launch(x, weight, p.bias, p.transform, upstream.entropy is not None)
    return tiles.gradients(launch, x, p.targets, state, upstream, wanted)


def expectation(p: Problem, backend: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The target's u, m and s, (N,) each, and sum_j p_j slope_j W_j, (N, D), in one visit of the logits."""
    if backend == "compiled":
        return _head(p).expectation()
    return frozen.expectation(Blocks(p.x, p.weight, p.bias, p.transform, lean=True), p.targets)


def has_expectation(backend: str) -> bool:
    """Whether a frozen head is visited once. The GPU's logits are made twice: its products read whole rows."""
    return backend not in ("triton", "hybrid")


def check_range(targets: Tensor, vocabulary: int, ignore_index: int) -> None:
    """ValueError where a target (N,) lies outside [0, vocabulary)."""
    if len(targets) == 0:
        return
    low, high = (int(edge) for edge in torch.aminmax(targets))
    if low < 0 or high >= vocabulary:
        wrong = low if low < 0 else high
        raise ValueError(
            f"target {wrong} is outside [0, {vocabulary}) and is not ignore_index ({ignore_index}): "
            "mask it, or check that tokenizer and head belong together"
        )
