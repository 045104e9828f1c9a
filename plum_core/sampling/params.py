"""What is asked of the sampler and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 are off. Filters apply in this order, after temperature.

    min_p: tokens less likely than min_p times the most likely one are left out (Nguyen et al. 2024).
    repetition_penalty: logits of ids of the prompt and of the sample are divided by it where positive, multiplied where
    negative; 1 is off. presence_penalty, frequency_penalty: subtracted from logits of ids in the sample, once and once
    for each time it was drawn; 0 is off. Penalties apply before temperature, in this order.
    stop_token_ids: end a sample as the tokenizer's end-of-sequence ids do.
    stop: strings that end a sample, wherever the tokens' borders fall; each step then decodes every live sample.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop_token_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"sampling.temperature must be 0 (greedy) or more, got {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"sampling.top_k must be 0 (off) or more, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sampling.top_p must be in (0, 1], got {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"sampling.min_p must be in [0, 1], got {self.min_p}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"sampling.repetition_penalty must be above 0 (1 is off), got {self.repetition_penalty}")
        for name in ("presence_penalty", "frequency_penalty"):
            if not -2 <= (value := getattr(self, name)) <= 2:
                raise ValueError(f"sampling.{name} must be in [-2, 2] (0 is off), got {value}")
        if isinstance(self.stop, str) or "" in self.stop:
            raise ValueError(f"sampling.stop must be a tuple of strings, none of them empty, got {self.stop!r}")
        if any(i < 0 for i in self.stop_token_ids):
            raise ValueError(f"sampling.stop_token_ids must be 0 or more, got {self.stop_token_ids}")
        if self.max_new_tokens < 1:
            raise ValueError(f"sampling.max_new_tokens must be at least 1, got {self.max_new_tokens}")

    @property
    def filters(self) -> bool:
        """Whether some tokens are left out."""
        return bool(self.top_k or self.top_p < 1 or self.min_p)

    @property
    def penalises(self) -> bool:
        """Whether a draw depends on the ids before it by more than the logits."""
        return self.repetition_penalty != 1 or bool(self.presence_penalty or self.frequency_penalty)


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
    """One sample. ``logprobs`` are nats under the untempered, unfiltered policy, one for each of ``token_ids``.

    text: without the end id, and cut before the first stop string; ``token_ids`` keep every token that was drawn.
    sampled_logprobs: nats under the distribution that was drawn from, after temperature and filters (0 for greedy).
    stop_reason: the id or the string that ended the sample, None at the length limit.
    finish_reason: "cancelled" where ``Sampler.cancel`` came first, with what was drawn until then.
    weights_versions: of each token, how often ``Sampler.update_weights`` had been called before it was drawn.
    """

    request_id: str
    index: int
    token_ids: tuple[int, ...]  # the end-of-sequence id included where it was drawn
    logprobs: tuple[float, ...]
    text: str
    finish_reason: str  # "stop", "length" or "cancelled"
    seed: int
    sampled_logprobs: tuple[float, ...] = ()
    stop_reason: int | str | None = None
    weights_versions: tuple[int, ...] = ()
