"""Kernels of preference learning, each beside its plain-torch reference. Derivations: kernels/README.md."""

from __future__ import annotations

from plum_kernels.head.interface import LinearPreference, linear_preference
from plum_kernels.logprob.interface import BACKENDS, LinearLogprob, linear_logprob
from plum_kernels.norm import rms_norm
from plum_kernels.preference.interface import PreferenceLoss, preference_loss

__all__ = [
    "BACKENDS",
    "LinearLogprob",
    "LinearPreference",
    "PreferenceLoss",
    "linear_logprob",
    "linear_preference",
    "preference_loss",
    "rms_norm",
]
