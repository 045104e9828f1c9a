"""``linear_logprob``: checks, drops ignored rows, picks the back end and puts the answer back in place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from plum_kernels.logprob.blocked import blocked_logprob
from plum_kernels.logprob.reference import reference_logprob

BACKENDS = ("blocked", "reference", "triton")


class LinearLogprob(NamedTuple):
    """Per-token results in the shape of ``targets``; fp32, or fp64 for fp64 inputs. Ignored rows hold 0."""

    logp: Tensor  # log softmax(z)[target], nats
    logsumexp: Tensor  # log sum exp z: logp + logsumexp is the target's z
    entropy: Tensor | None  # -sum p log p, nats; None where it was not asked for


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None) -> None:
    if weight.dim() != 2 or hidden.dim() < 1 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"hidden (..., D) and weight (V, D) must share D, got {tuple(hidden.shape)} and {tuple(weight.shape)}"
        )
    if targets.shape != hidden.shape[:-1]:
        raise ValueError(f"one target per hidden row: targets {tuple(targets.shape)} for hidden {tuple(hidden.shape)}")
    if targets.dtype != torch.int64:
        raise ValueError(f"targets must be int64, got {targets.dtype}; call targets.long()")
    if not hidden.is_floating_point() or hidden.dtype != weight.dtype:
        raise ValueError(
            f"hidden and weight must share one floating dtype, got {hidden.dtype} and {weight.dtype}; cast one of them"
        )
    if bias is not None and (bias.shape != weight.shape[:1] or not bias.is_floating_point()):
        raise ValueError(f"bias must be floating, ({len(weight)},), got {bias.dtype} {tuple(bias.shape)}")
    devices = {t.device for t in (hidden, weight, targets, bias) if t is not None}
    if len(devices) > 1:
        raise ValueError(f"all tensors must be on one device, got {sorted(map(str, devices))}")


def _check_options(temperature: float, softcap: float | None, backend: str) -> None:
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be finite and > 0, got {temperature}")
    if softcap is not None and not (math.isfinite(softcap) and softcap > 0):
        raise ValueError(f"softcap must be finite and > 0, got {softcap}; leave it None for no cap")
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"backend must be one of auto, {', '.join(BACKENDS)}, got {backend!r}")


def _back_end(name: str) -> Callable[..., tuple[Tensor, Tensor, Tensor | None]]:
    """The function of that name. Triton is imported by those who ask for it: it takes a second."""
    if name == "triton":
        from plum_kernels.logprob.triton_backend import triton_logprob

        return triton_logprob
    return reference_logprob if name == "reference" else blocked_logprob


def _check_range(targets: Tensor, vocabulary: int, ignore_index: int) -> None:
    if len(targets) == 0:
        return
    low, high = (int(edge) for edge in torch.aminmax(targets))
    if low < 0 or high >= vocabulary:
        wrong = low if low < 0 else high
        raise ValueError(
            f"target {wrong} is outside [0, {vocabulary}) and is not ignore_index ({ignore_index}): "
            "mask it, or check that tokenizer and head belong together"
        )


def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    ignore_index: int = -100,
    entropy: bool = False,
    backend: str = "auto",
) -> LinearLogprob:
    """Log-prob of each target under ``softmax(z)``, never holding the (tokens, V) logits.

    z = softcap * tanh((hidden @ weight.T + bias) / softcap) / temperature, the tanh only where ``softcap`` is
    given.

    hidden: (..., D) of any strides, fp64, fp32, bf16 or fp16. weight: (V, D), the same dtype. targets: (...)
    int64 in [0, V), or ``ignore_index``: such rows are dropped before any arithmetic, come back as 0 and send
    no gradient. bias: (V,) floating; -inf takes a token out of the vocabulary. softcap as Gemma 2 has it
    (arXiv 2408.00118, section 2).

    Returns fp32 (fp64 for fp64 inputs) tensors in the shape of ``targets``. Gradients reach hidden, weight
    and bias from all three outputs with arbitrary upstream gradients; sums run in fp32. First order only.

    backend: "blocked" never holds more than a 2 MiB block of the (tokens, V) logits and makes each block
    again in backward; "reference" is the definition and holds them all; "triton" (a GPU, no fp64) tiles them
    in one kernel; "auto" is "blocked", until the Triton kernels have been timed on a GPU.

    Raises ValueError for shapes, dtypes, devices or options that do not fit, and for a target outside the
    vocabulary.
    """
    _check(hidden, weight, targets, bias)
    _check_options(temperature, softcap, backend)
    compute = _back_end(backend)

    x, y = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    scored = (y != ignore_index).nonzero().squeeze(1)
    whole = len(scored) == len(y)
    if not whole:
        x, y = x.index_select(0, scored), y.index_select(0, scored)
    _check_range(y, len(weight), ignore_index)
    parts = compute(x, weight, y, bias, temperature=temperature, softcap=softcap, entropy=entropy)

    def restore(part: Tensor) -> Tensor:
        if not whole:
            part = part.new_zeros(targets.numel()).index_copy(0, scored, part)
        return part.view(targets.shape)

    logp, logsumexp, h = parts
    return LinearLogprob(restore(logp), restore(logsumexp), None if h is None else restore(h))
