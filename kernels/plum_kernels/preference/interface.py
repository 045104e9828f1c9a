"""``preference_loss``: checks, fills in the options, picks the back end and names the metrics."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from plum_kernels.preference.formulas import SPECS, Options
from plum_kernels.preference.reference import reference_preference_loss

PREFERENCE_BACKENDS = ("reference", "triton")


class PreferenceLoss(NamedTuple):
    """``losses``: (B,) a pair, or (S,) a sequence for kto; differentiable. ``metrics``: detached, TRL's names.

    For kto ``rewards`` and ``logps`` are (S,) in the order of the sequences: the split into desirable and not is a
    shape that only the device knows.
    """

    losses: Tensor
    metrics: dict[str, Tensor]


def _options(objective: str, given: Options) -> Options:
    """The objective's options with its defaults; ValueError for others and for values outside their range."""
    if objective not in SPECS:
        raise ValueError(f"unknown objective {objective!r}, known: {', '.join(sorted(SPECS))}")
    known = SPECS[objective].options
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"objective {objective} cannot honour {name}={value!r}: it takes {', '.join(known)}")
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")
    options = {**known, **given}
    if not options["beta"] > 0:
        raise ValueError(f"beta must be > 0, got {options['beta']}")
    share = options.get("label_smoothing", 0.0)
    if not 0 <= share < 0.5 or (objective == "exo" and share == 0):
        rule = "(0, 0.5), because its logarithm is taken" if objective == "exo" else "[0, 0.5)"
        raise ValueError(f"label_smoothing must be in {rule}, got {share}")
    if options.get("sums", 0) not in (0, 1):
        raise ValueError(f"sums must be 0 (a token) or 1 (summed), got {options['sums']}")
    for name in ("penalty", "desirable_weight", "undesirable_weight"):
        if not options.get(name, 0) >= 0:
            raise ValueError(f"{name} must be >= 0, got {options[name]}")
    return options


def _check(
    objective: str,
    logps: Tensor,
    cu_seqlens: Tensor,
    a_token: dict[str, Tensor | None],
    desirable: Tensor | None,
    kl: Tensor | None,
) -> None:
    if logps.dim() != 1 or logps.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"logps must be (T,) fp32 or fp64, got {tuple(logps.shape)} {logps.dtype}")
    if cu_seqlens.dim() != 1 or len(cu_seqlens) < 1 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"cu_seqlens must be (S + 1,) int32 or int64, got {tuple(cu_seqlens.shape)} {cu_seqlens.dtype}"
        )
    for name, tensor in a_token.items():
        if tensor is not None and tensor.shape != logps.shape:
            raise ValueError(f"{name} must be {tuple(logps.shape)} as logps, got {tuple(tensor.shape)}")
    scored, reference = a_token["scored"], a_token["ref_logps"]
    if scored is not None and scored.dtype != torch.bool:
        raise ValueError(f"scored must be bool, got {scored.dtype}; call scored.bool()")
    if reference is not None and reference.dtype != logps.dtype:
        raise ValueError(f"ref_logps must be {logps.dtype} as logps, got {reference.dtype}")
    if SPECS[objective].reference != (reference is not None):
        rule = "needs ref_logps" if SPECS[objective].reference else "has no reference: leave ref_logps out"
        raise ValueError(f"objective {objective} {rule}")
    sequences = len(cu_seqlens) - 1
    if objective != "kto":
        if desirable is not None or kl is not None:
            raise ValueError(f"objective {objective} is of pairs: leave desirable and kl out")
        if sequences % 2:
            raise ValueError(
                f"sequences come chosen, rejected, chosen, ...: their number must be even, got {sequences}"
            )
    elif desirable is None or kl is None or desirable.shape != (sequences,) or kl.numel() != 1:
        raise ValueError(f"objective kto needs desirable ({sequences},) and kl ()")
    elif desirable.dtype != torch.bool:
        raise ValueError(f"desirable must be bool, got {desirable.dtype}")
    devices = {t.device for t in (logps, cu_seqlens, scored, reference, desirable, kl) if t is not None}
    if len(devices) > 1:
        raise ValueError(f"all tensors must be on one device, got {sorted(map(str, devices))}")


def preference_loss(
    logps: Tensor,  # (T,) fp32 or fp64, each token's log-prob under the policy, sequences end to end
    cu_seqlens: Tensor,  # (S + 1,) int32 or int64 on the same device: where each starts, and the end of the last
    ref_logps: Tensor | None = None,  # (T,) the same under the reference; no gradient
    *,
    objective: str,
    scored: Tensor | None = None,  # (T,) bool: which tokens count; all where it is left out
    desirable: Tensor | None = None,  # (S,) bool, kto's verdicts
    kl: Tensor | None = None,  # () kto's reference point
    backend: str = "auto",
    **options: float,
) -> PreferenceLoss:
    """Losses and metrics of a preference objective, straight from ragged per-token log-probs.

    Pairs lie side by side: sequence 2 i is chosen, 2 i + 1 rejected; of kto each sequence stands alone. A sequence
    without a scored token counts as length 1 with log-prob 0. ``cu_seqlens`` is not read by the host, hence not
    checked: it must rise from >= 0 to <= T. Tokens that belong to no sequence get no gradient. Losses of aot come in
    the order of its sorted margins. First order only.

    backend: "triton" does everything in one launch, gradients of tokens too; "reference" is the definition, and the
    only one for aot and aot_unpaired, which sort; "auto" is "reference", until the kernel has been timed on a GPU.

    Raises ValueError for shapes, dtypes, devices and options that do not fit.
    """
    filled = _options(objective, options)
    _check(objective, logps, cu_seqlens, {"scored": scored, "ref_logps": ref_logps}, desirable, kl)
    if backend not in ("auto", *PREFERENCE_BACKENDS):
        raise ValueError(f"backend must be one of auto, {', '.join(PREFERENCE_BACKENDS)}, got {backend!r}")
    compute = reference_preference_loss
    if backend == "triton":
        from plum_kernels.preference.triton_backend import triton_preference_loss as compute  # a second to import
    fixed = (None if ref_logps is None else ref_logps.detach(), scored, desirable, None if kl is None else kl.detach())
    losses, (rewards, shown) = compute(logps, cu_seqlens, *fixed, objective, filled)
    if objective == "kto":
        assert kl is not None
        return PreferenceLoss(losses, {"rewards": rewards, "logps": shown, "kl": kl.detach().reshape(1)})
    chosen, rejected = rewards[0::2], rewards[1::2]
    return PreferenceLoss(
        losses,
        {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/accuracies": (chosen > rejected).to(losses.dtype),
            "rewards/margins": chosen - rejected,
            "logps/chosen": shown[0::2],
            "logps/rejected": shown[1::2],
        },
    )
