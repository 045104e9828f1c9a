"""One token a row from logits: penalties, filters and the draw."""

from plum_kernels.sample.interface import sample_tokens

__all__ = ["sample_tokens"]
