"""``linear_logprob``: checks, picks the back end and brings the answer into shape."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from plum_kernels.choice import auto
from plum_kernels.logprob.blocks import Transform
from plum_kernels.logprob.engine import check_range, has_expectation
from plum_kernels.logprob.operator import fused_logprob, settings_of
from plum_kernels.logprob.reference import reference_logprob

BACKENDS = ("blocked", "compiled", "reference", "triton", "hybrid")


class LinearLogprob(NamedTuple):
    """Per-token results in the shape of ``targets``; fp32, or fp64 for fp64 inputs. Ignored rows hold 0."""

    logp: Tensor  # log softmax(z)[target], nats
    logsumexp: Tensor  # log sum exp z: logp + logsumexp is the target's z
    entropy: Tensor | None  # -sum p log p, nats; None where it was not asked for


def check_inputs(hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None) -> None:
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


def autocast(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both in autocast's dtype where it is on, as a linear layer casts them; fp64 stays as it is."""
    kind = hidden.device.type
    if not torch.amp.autocast_mode.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return hidden, weight
    dtype = torch.get_autocast_dtype(kind)
    casts = (torch.float32, torch.bfloat16, torch.float16)
    return hidden.to(dtype) if hidden.dtype in casts else hidden, weight.to(dtype) if weight.dtype in casts else weight


def fastest(function: str, x: Tensor) -> str:
    """Backend "auto" of ``function`` for x on a GPU; elsewhere "auto" still, which the operator settles."""
    return "auto" if x.dtype == torch.float64 or not x.is_cuda else auto(function, x.device, "blocked")


def check_options(temperature: float, logit_scale: float, softcap: float | None, backend: str) -> None:
    for name, value in (("temperature", temperature), ("logit_scale", logit_scale)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be finite and > 0, got {value}")
    if softcap is not None and not (math.isfinite(softcap) and softcap > 0):
        raise ValueError(f"softcap must be finite and > 0, got {softcap}; leave it None for no cap")
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"backend must be one of auto, {', '.join(BACKENDS)}, got {backend!r}")


def _reference(
    x: Tensor, weight: Tensor, y: Tensor, bias: Tensor | None, ignore_index: int, transform: Transform, entropy: bool
) -> list[Tensor | None]:
    """The definition over the scored rows of a flat batch, 0 elsewhere.

    Under torch.compile a row that is not scored is computed and blanked: how many there are is not known to it.
    """
    keep = y != ignore_index
    if torch.compiler.is_compiling():
        blank = torch.where(keep.unsqueeze(1), x, 0.0)
        parts = reference_logprob(blank, weight, torch.where(keep, y, 0), bias, transform, entropy)
        return [None if part is None else torch.where(keep, part, 0.0) for part in parts]
    scored = keep.nonzero().squeeze(1)
    check_range(y[scored], len(weight), ignore_index)
    if len(scored) == len(y):
        return list(reference_logprob(x, weight, y, bias, transform, entropy))
    parts = reference_logprob(x.index_select(0, scored), weight, y[scored], bias, transform, entropy)
    return [None if part is None else part.new_zeros(len(y)).index_copy(0, scored, part) for part in parts]


def _fused(
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    bias: Tensor | None,
    ignore_index: int,
    transform: Transform,
    entropy: bool,
    backend: str,
) -> list[Tensor | None]:
    if backend in ("triton", "hybrid"):
        from plum_kernels.logprob.triton_backend import check_device  # a second to import: for those who ask

        check_device(x, backend)
    trained = weight.requires_grad or (bias is not None and bias.requires_grad)
    frozen = torch.is_grad_enabled() and x.requires_grad and not trained and not entropy
    keep = frozen and has_expectation(backend)
    logp, lse, h, _, _ = fused_logprob(x, weight, y, bias, ignore_index, settings_of(transform), entropy, keep, backend)
    return [logp, lse, h if entropy else None]


def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    ignore_index: int = -100,
    entropy: bool = False,
    backend: str = "auto",
) -> LinearLogprob:
    """Log-prob of each target under ``softmax(z)``, never holding the (tokens, V) logits.

    z = softcap * tanh(logit_scale * (hidden @ weight.T + bias) / softcap) / temperature, the tanh only where
    ``softcap`` is given.

    hidden: (..., D) of any strides, fp64, fp32, bf16 or fp16. weight: (V, D), the same dtype. targets: (...)
    int64 in [0, V), or ``ignore_index``: such rows are dropped before any arithmetic, come back as 0 and send
    no gradient. bias: (V,) floating; -inf takes a token out of the vocabulary. softcap as Gemma 2 has it
    (arXiv 2408.00118, section 2).

    Returns fp32 (fp64 for fp64 inputs) tensors in the shape of ``targets``. Gradients reach hidden, weight
    and bias from all three outputs with arbitrary upstream gradients; sums run in fp32. First order only. Under
    autocast hidden and weight are cast as they are for a linear layer, and everything else stays in fp32. The fused
    back ends are operators of torch.library: torch.compile(fullgraph=True) and activation checkpointing see one piece.

    weight may be a DTensor whose rows are split over ranks, [Shard(0)], its bias as well: each rank scores against its
    part, and all get the whole result. hidden, targets and what is made of the results must be the same on every rank.

    backend: "blocked" never holds more than a 2 MiB block of the (tokens, V) logits and makes each block
    again in backward, by torch's operators; "compiled" (a CPU with AVX-512, fp32 and bf16) does so in C++ that is
    compiled at its first use, bf16 multiplied as it is and summed in fp32; "reference" is the definition and holds
    all logits; "triton" (a GPU, no fp64) tiles them in one kernel; "hybrid" (a GPU, no fp64) has the device's own
    product write some rows of them and kernels read those. "auto" is "compiled" on a CPU that can have it, on a GPU the
    fastest by a committed run there (``plum_kernels.choice``), else "blocked"; what a device lacks is said once.

    Raises ValueError for shapes, dtypes, devices or options that do not fit, and for a target outside the
    vocabulary.
    """
    hidden, weight = autocast(hidden, weight)
    check_inputs(hidden, weight, targets, bias)
    check_options(temperature, logit_scale, softcap, backend)
    if hasattr(weight, "device_mesh"):  # a DTensor, whose import is left to those who have one
        from plum_kernels.logprob.parallel import over_ranks

        named: dict[str, Any] = {
            "temperature": temperature,
            "logit_scale": logit_scale,
            "softcap": softcap,
            "backend": backend,
        }
        named |= {"ignore_index": ignore_index, "entropy": entropy}
        whole = over_ranks(linear_logprob, hidden, cast(Any, weight), targets, bias, **named)
        return LinearLogprob(*whole)
    transform = Transform(temperature=temperature, logit_scale=logit_scale, softcap=softcap)
    flat = hidden.reshape(-1, hidden.shape[-1]), weight, targets.reshape(-1), bias, ignore_index, transform, entropy
    if backend == "reference":
        with torch.autocast(hidden.device.type, enabled=False):
            parts = _reference(*flat)
    else:
        parts = _fused(*flat, fastest("linear_logprob", hidden) if backend == "auto" else backend)
    logp, logsumexp, h = (None if part is None else part.view(targets.shape) for part in parts)
    assert logp is not None and logsumexp is not None
    return LinearLogprob(logp, logsumexp, h)
