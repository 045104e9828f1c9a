"""``preference_loss``: checks, fills in the options, picks the back end and names the metrics."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from plum_kernels.choice import auto
from plum_kernels.preference.formulas import SPECS, Given, Options, pair_weights
from plum_kernels.preference.reference import reference_preference_loss

PREFERENCE_BACKENDS = ("reference", "triton")


class PreferenceLoss(NamedTuple):
    """``losses``: (B,) a pair, or (S,) a sequence with a verdict; differentiable. ``metrics``: detached, TRL's names.

    Of verdicts ``rewards`` and ``logps`` are (S,) in the order of the sequences: the split into desirable and not is a
    shape that only the device knows.
    """

    losses: Tensor
    metrics: dict[str, Tensor]


def fill_options(objective: str, given: Options) -> Options:
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


def _check_tokens(logps: Tensor, cu_seqlens: Tensor, a_token: dict[str, Tensor | None]) -> None:
    if logps.dim() != 1 or logps.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"logps must be (T,) fp32 or fp64, got {tuple(logps.shape)} {logps.dtype}")
    if cu_seqlens.dim() != 1 or len(cu_seqlens) < 1 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"cu_seqlens must be (S + 1,) int32 or int64, got {tuple(cu_seqlens.shape)} {cu_seqlens.dtype}"
        )
    for name, tensor in a_token.items():
        if tensor is None:
            continue
        if tensor.shape != logps.shape:
            raise ValueError(f"{name} must be {tuple(logps.shape)} as logps, got {tuple(tensor.shape)}")
        if name == "scored" and tensor.dtype != torch.bool:
            raise ValueError(f"scored must be bool, got {tensor.dtype}; call scored.bool()")
        if name != "scored" and tensor.dtype != logps.dtype:
            raise ValueError(f"{name} must be {logps.dtype} as logps, got {tensor.dtype}")


def _check_needs(objective: str, sequences: int, needs: dict[str, Tensor | None]) -> None:
    """What each objective takes beside log-probs, and in which shape."""
    spec = SPECS[objective]
    for name, tensor in needs.items():
        if name in spec.needs and tensor is None:
            raise ValueError(f"objective {objective} needs {name}")
        if name not in spec.needs and tensor is not None:
            raise ValueError(f"objective {objective} has no place for {name}: leave it out")
    if not spec.single and sequences % 2:
        raise ValueError(f"sequences come chosen, rejected, chosen, ...: their number must be even, got {sequences}")
    for name in ("desirable", "alignment"):
        tensor = needs[name]
        if tensor is not None and tensor.shape != (sequences,):
            raise ValueError(f"{name} must be ({sequences},), one a sequence, got {tuple(tensor.shape)}")
    for name in ("kl", "shift"):
        tensor = needs[name]
        if tensor is not None and tensor.numel() != 1:
            raise ValueError(f"{name} must be one number, (), got {tuple(tensor.shape)}")
    verdicts = needs["desirable"]
    if verdicts is not None and verdicts.dtype != torch.bool:
        raise ValueError(f"desirable must be bool, got {verdicts.dtype}")


def check_preference(objective: str, logps: Tensor, cu_seqlens: Tensor, tensors: dict[str, Tensor | None]) -> None:
    spec = SPECS[objective]
    _check_tokens(logps, cu_seqlens, {name: tensors[name] for name in ("ref_logps", "scored", "weights")})
    if spec.reference != (tensors["ref_logps"] is not None):
        rule = "needs ref_logps" if spec.reference else "has no reference: leave ref_logps out"
        raise ValueError(f"objective {objective} {rule}")
    if "weights" in spec.needs and tensors["weights"] is None:
        raise ValueError(f"objective {objective} needs weights: it is dpo where every token counts alike")
    needs = {name: tensors[name] for name in ("desirable", "kl", "shift", "alignment")}
    _check_needs(objective, len(cu_seqlens) - 1, needs)
    devices = {t.device for t in (logps, cu_seqlens, *tensors.values()) if t is not None}
    if len(devices) > 1:
        raise ValueError(f"all tensors must be on one device, got {sorted(map(str, devices))}")


def preference_loss(
    logps: Tensor,  # (T,) fp32 or fp64, each token's log-prob under the policy, sequences end to end
    cu_seqlens: Tensor,  # (S + 1,) int32 or int64 on the same device: where each starts, and the end of the last
    ref_logps: Tensor | None = None,  # (T,) the same under the reference; no gradient
    *,
    objective: str,
    scored: Tensor | None = None,  # (T,) bool: which tokens count; all where it is left out
    weights: Tensor | None = None,  # (T,) what each token's log-prob counts; alike where it is left out
    desirable: Tensor | None = None,  # (S,) bool, verdicts of kto, apo_zero_unpaired and bco_unpaired
    kl: Tensor | None = None,  # () kto's reference point, nats
    shift: Tensor | None = None,  # () bco_unpaired's running mean of log-ratios, nats
    alignment: Tensor | None = None,  # (S,) wpo's mean over tokens of log(p / sum of p**2), nats
    backend: str = "auto",
    **options: float,
) -> PreferenceLoss:
    """Losses and metrics of a preference objective, straight from ragged per-token log-probs.

    Pairs lie side by side: sequence 2 i is chosen, 2 i + 1 rejected; with verdicts each sequence stands alone. A
    sequence without a scored token counts as length 1 with log-prob 0. ``weights`` may go with any objective; ld_dpo
    and span_dpo are dpo with them, and refuse to go without. rpo's likelihood term is the caller's to add.
    ``cu_seqlens`` is not read by the host, hence not checked: it must rise from >= 0 to <= T. Tokens that belong to no
    sequence get no gradient. Losses of aot come in the order of its sorted margins. First order only.

    backend: "triton" does everything in one launch, gradients of tokens too; "reference" is the definition, and the
    only one for aot and aot_unpaired, which sort; "auto" is "triton" on a GPU where a committed
    run found it faster (``plum_kernels.choice``), else "reference".

    Raises ValueError for shapes, dtypes, devices and options that do not fit.
    """
    filled = fill_options(objective, options)
    beside = {"ref_logps": ref_logps, "scored": scored, "weights": weights, "desirable": desirable}
    check_preference(objective, logps, cu_seqlens, {**beside, "kl": kl, "shift": shift, "alignment": alignment})
    if backend not in ("auto", *PREFERENCE_BACKENDS):
        raise ValueError(f"backend must be one of auto, {', '.join(PREFERENCE_BACKENDS)}, got {backend!r}")
    compute = reference_preference_loss
    if backend == "auto" and objective not in ("aot", "aot_unpaired") and logps.dtype != torch.float64:
        backend = auto("preference_loss", logps.device, "reference")
    if backend == "triton":
        from plum_kernels.preference.triton_backend import triton_preference_loss as compute  # a second to import
    point = kl if kl is not None else shift
    fixed = (ref_logps, scored, weights, desirable, point, alignment)
    given = Given(*(None if tensor is None else tensor.detach() for tensor in fixed))
    losses, (rewards, shown) = compute(logps, cu_seqlens, given, objective, filled)
    return PreferenceLoss(losses, metrics_of(objective, rewards, shown, given, filled["beta"]))


def metrics_of(objective: str, rewards: Tensor, shown: Tensor, given: Given, beta: float) -> dict[str, Tensor]:
    if SPECS[objective].single:
        metrics = {"rewards": rewards, "logps": shown}
        if given.point is not None:
            point = given.point.to(rewards.dtype).reshape(1)
            metrics |= {"kl": point} if objective == "kto" else {"delta": beta * point}
        return metrics
    chosen, rejected = rewards[0::2], rewards[1::2]
    metrics = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": (chosen > rejected).to(rewards.dtype),
        "rewards/margins": chosen - rejected,
        "logps/chosen": shown[0::2],
        "logps/rejected": shown[1::2],
    }
    return metrics if given.alignment is None else metrics | {"weights": pair_weights(given.alignment)}
