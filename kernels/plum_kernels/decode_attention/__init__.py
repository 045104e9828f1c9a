"""Attention of one new token a row over blocks of keys and values, shared prompts read once for all their rows."""

from __future__ import annotations

from plum_kernels.decode_attention.interface import decode_attention
from plum_kernels.decode_attention.reference import Shared

__all__ = ["Shared", "decode_attention"]
