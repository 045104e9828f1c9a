"""Kernels of preference learning, each beside its plain-torch reference. Derivations: kernels/README.md."""

from __future__ import annotations

from plum_kernels.attention.interface import packed_attention
from plum_kernels.decoder.interface import add_rms_norm, norm_rotate, split_qkv, swiglu
from plum_kernels.dense import linear
from plum_kernels.head.interface import LinearPreference, linear_preference
from plum_kernels.logprob.interface import BACKENDS, LinearLogprob, linear_logprob
from plum_kernels.norm import rms_norm
from plum_kernels.preference.interface import PreferenceLoss, preference_loss

__all__ = [
    "BACKENDS",
    "LinearLogprob",
    "LinearPreference",
    "PreferenceLoss",
    "add_rms_norm",
    "linear",
    "linear_logprob",
    "linear_preference",
    "norm_rotate",
    "packed_attention",
    "preference_loss",
    "rms_norm",
    "split_qkv",
    "swiglu",
]
