"""What is asked of the sampler and what it answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """temperature 0 is greedy; top_k 0 and top_p 1 are off."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"sampling.temperature must be 0 (greedy) or more, got {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"sampling.top_k must be 0 (off) or more, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sampling.top_p must be in (0, 1], got {self.top_p}")
        if self.max_new_tokens < 1:
            raise ValueError(f"sampling.max_new_tokens must be at least 1, got {self.max_new_tokens}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt and as many samples as it has seeds (each in [0, 2**63))."""

    id: str
    token_ids: tuple[int, ...]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.token_ids:
            raise ValueError(f"request {self.id!r} has no prompt tokens: there is nothing to continue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sample. ``logprobs`` are nats under the untempered, unfiltered policy, one for each of ``token_ids``."""

    request_id: str
    index: int
    token_ids: tuple[int, ...]  # the end-of-sequence id included where it was drawn
    logprobs: tuple[float, ...]
    text: str
    finish_reason: str  # "stop" or "length"
    seed: int
