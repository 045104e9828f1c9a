"""Kernels of preference learning, each beside its plain-torch reference. Derivations: kernels/README.md."""

from __future__ import annotations

from plum_kernels.logprob.interface import BACKENDS, LinearLogprob, linear_logprob
from plum_kernels.norm import rms_norm

__all__ = ["BACKENDS", "LinearLogprob", "linear_logprob", "rms_norm"]
