"""What a call of ``sample`` has done so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class SamplerStats:
    """Counts of the latest call."""

    decode_steps: int = 0
    decode_tokens: int = 0
    """Rows times steps: tokens fed back to the decoder, none of them idle. With speculation, proposals not counted."""
    prefilled_prompts: int = 0
    prefilled_tokens: int = 0
    """Computed in prefill; with a budget, those of preempted samples again."""
    reused_tokens: int = 0
    """Found in the prefix cache and not computed."""
    preemptions: int = 0
    proposed_tokens: int = 0
    accepted_tokens: int = 0
    """Of ``proposed_tokens``: those that were drawn."""
    peak_kv_bytes: int = 0
    """Most bytes of keys and values that were held at once; of the contiguous cache: allocated."""
