"""K samples of every prompt from the current policy, with the exact ids and log-probs (stage 2a).

``Sampler`` keeps a batch of rows busy: a prompt is prefilled once and its keys and values are copied to the rows of
its samples; a row that finishes is given to the next sample at once. Every draw's seed comes from the caller's
coordinates, so it does not depend on which row or step it fell on.
"""

from plum_core.sampling.params import Completion, Request, SamplingParams
from plum_core.sampling.sampler import Sampler
from plum_core.sampling.stats import SamplerStats

__all__ = ["Completion", "Request", "Sampler", "SamplerStats", "SamplingParams"]
