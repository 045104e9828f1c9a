"""Rotary positions (Su et al. 2021) and the ways in which code models stretch them.

Letters in shapes: B rows, S positions, R rotated channels of a head (R/2 pairs), E head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

KINDS = ("default", "linear", "dynamic", "llama3", "yarn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """How angles grow with the position; ``kind`` says which of the other fields are read.

    default: Su et al. 2021. linear: positions divided by ``factor`` (Chen et al. 2023, arXiv 2306.15595).
    dynamic: the base grows with the row once it is longer than the model's positions ("dynamic NTK"; Peng et al. 2023,
    arXiv 2309.00071, section 3.3). llama3: long wavelengths divided, short ones kept, a ramp between (Llama 3.1's
    release). yarn: the same by turns over the original length, cos and sin scaled (arXiv 2309.00071, section 3.4).
    """

    kind: str = "default"
    factor: float = 1.0
    original_max_position_embeddings: int | None = None  # llama3, yarn: positions before stretching
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0  # yarn: turns over the original length from which a pair is kept as it is
    beta_slow: float = 1.0  # and up to which it is divided by the factor
    attention_factor: float = 1.0  # yarn: of cos and sin
    truncate: bool = True  # yarn: the ramp's ends at whole pairs
    mscale_all_dim: float = 0.0  # yarn: of all scores, in DeepSeek-V2's layout alone

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"rotary scaling {self.kind!r} is not supported; this decoder knows {', '.join(KINDS)}")
        if self.factor < 1:
            raise ValueError(f"rotary scaling {self.kind}: factor must be at least 1, got {self.factor}")
        if self.kind in ("llama3", "yarn") and not (self.original_max_position_embeddings or 0) > 0:
            raise ValueError(
                f"rotary scaling {self.kind}: original_max_position_embeddings must be above 0, got "
                f"{self.original_max_position_embeddings}"
            )
        for low, high in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
            if not 0 < getattr(self, low) < getattr(self, high):
                raise ValueError(
                    f"rotary scaling {self.kind}: 0 < {low} < {high} must hold, got {getattr(self, low)} and "
                    f"{getattr(self, high)}"
                )
        if not self.attention_factor > 0:
            raise ValueError(f"rotary scaling {self.kind}: attention_factor must be > 0, got {self.attention_factor}")

    @property
    def score_scale(self) -> float:
        """What scores are multiplied by: the square of DeepSeek-V2's temperature, 1 where it has none."""
        return yarn_temperature(self.factor, self.mscale_all_dim) ** 2


def yarn_temperature(factor: float, multiplier: float) -> float:
    """0.1 multiplier ln(factor) + 1 (arXiv 2309.00071, eq. 22)."""
    return 0.1 * multiplier * math.log(factor) + 1.0 if factor > 1 else 1.0


def yarn_attention_factor(factor: float, mscale: float | None = None, mscale_all_dim: float | None = None) -> float:
    """0.1 ln(factor) + 1 (arXiv 2309.00071, eq. 22), or the quotient of two such with DeepSeek-V2's multipliers."""
    if mscale and mscale_all_dim:
        return yarn_temperature(factor, mscale) / yarn_temperature(factor, mscale_all_dim)
    return yarn_temperature(factor, 1.0)


def _frequencies(width: int, theta: float | Tensor, device: torch.device) -> Tensor:
    """theta**(-2i/R), (..., R/2) fp32 (Su et al. 2021, eq. 15); theta: a number or (..., 1)."""
    exponent = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
    return 1.0 / (theta**exponent)


def _llama3(plain: Tensor, rope: Rope) -> Tensor:
    """Pairs by turns over the original length: below low_freq_factor divided, above high_freq_factor kept."""
    assert rope.original_max_position_embeddings is not None
    turns = rope.original_max_position_embeddings / (2 * math.pi / plain)
    kept = ((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)).clamp(0, 1)
    return (1 - kept) * plain / rope.factor + kept * plain


def _yarn(plain: Tensor, rope: Rope, theta: float) -> Tensor:
    """NTK-by-parts (arXiv 2309.00071, eqs. 17 to 19), its ramp linear in the pair's number as checkpoints expect."""
    assert rope.original_max_position_embeddings is not None
    width = 2 * len(plain)

    def pair(turns: float) -> float:
        """The number of the pair that makes so many turns over the original length."""
        length = rope.original_max_position_embeddings or 0
        return width * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair(rope.beta_fast), pair(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    span = high - low if high != low else 0.001  # no division by nothing: a step
    numbers = torch.arange(len(plain), dtype=torch.float32, device=plain.device)
    divided = ((numbers - low) / span).clamp(0, 1)
    return plain / rope.factor * divided + plain * (1 - divided)


def _stretched_theta(positions: Tensor, width: int, theta: float, rope: Rope, limit: int) -> Tensor:
    """The base of each row, (..., 1, 1) fp32, from the row's own length alone: no other row of a batch enters."""
    length = (positions.amax(-1, keepdim=True).float() + 1).clamp_min(limit)
    grown = theta * (rope.factor * length / limit - (rope.factor - 1)) ** (width / (width - 2))
    return grown.unsqueeze(-1)


def frequencies(width: int, theta: float, rope: Rope, device: torch.device) -> Tensor:
    """(R/2,) fp32: the turn of each pair from one position to the next, of every kind but ``dynamic``."""
    plain = _frequencies(width, theta, device)
    if rope.kind == "linear":
        return plain / rope.factor
    if rope.kind == "llama3":
        return _llama3(plain, rope)
    return _yarn(plain, rope, theta) if rope.kind == "yarn" else plain


def rotary_tables(positions: Tensor, width: int, theta: float, rope: Rope, limit: int) -> tuple[Tensor, Tensor]:
    """cos and signed sin of the angles position * frequency, each (..., S, R) fp32.

    positions: (S,) or (B, S) int64. width: R, the rotated channels. limit: the model's positions; only ``dynamic``
    reads it. Both halves of the half-split layout side by side; the sine carries the minus sign of its first half.
    """
    if rope.kind == "dynamic":
        turns = _frequencies(width, _stretched_theta(positions, width, theta, rope, limit), positions.device)
    else:
        turns = frequencies(width, theta, rope, positions.device)
    angles = positions.float().unsqueeze(-1) * turns
    cos, sin = angles.cos(), angles.sin()
    if rope.attention_factor != 1:
        cos, sin = cos * rope.attention_factor, sin * rope.attention_factor
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (x[i], x[i + R/2]) of the first R channels: Hugging Face's half-split layout.

    x: (B, S, heads, E). cos, sin: (S, R) or (B, S, R) fp32. The other E - R channels pass as they are.
    """
    width = cos.shape[-1]
    turned, kept = (x, None) if width == x.shape[-1] else (x[..., :width], x[..., width:])
    x32 = turned.float()
    first, second = x32.chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)  # over heads
    out = torch.addcmul(x32 * cos, torch.cat((second, first), dim=-1), sin).to(x.dtype)
    return out if kept is None else torch.cat((out, kept), dim=-1)
