"""One pass over chunks of whole sequences: log-probs, loss, and at once the gradients, while the logits are there.

Letters in shapes: N scored rows, R rows of a chunk, D width, V vocabulary, S sequences, L losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from plum_kernels.preference.formulas import SPECS, Given, Options
from plum_kernels.preference.reference import reference_preference_loss, token_slopes

# (logps (R,), cu_seqlens, what is given, objective, options) -> losses, each token's slope (R,), shown (2, S)
Score = Callable[[Tensor, Tensor, Given, str, Options], tuple[Tensor, Tensor, Tensor]]


class Head(Protocol):
    """Keeps the logits of one chunk between its two calls, and the gradients that have been summed so far."""

    rows: int  # that a chunk may have; a pair with more makes a chunk of its own

    def forward(self, r: slice) -> Tensor:
        """Log-probs (R,) of rows ``r``."""
        ...

    def backward(self, r: slice, g: Tensor) -> Tensor:
        """Add the gradients of rows ``r``, whose log-probs have gradients g (R,); returns what was dropped, (R,)."""
        ...

    def results(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of x (N, D), weight (V, D) and bias (V,) in their own dtypes; None where not wanted."""
        ...


class Outcome(NamedTuple):
    losses: Tensor  # (L,)
    shown: Tensor  # (2, S) rewards and log-probs
    logps: Tensor  # (N,)
    dropped: Tensor  # (N,)


def reference_score(
    logps: Tensor, cu: Tensor, given: Given, objective: str, options: Options
) -> tuple[Tensor, Tensor, Tensor]:
    losses, shown = reference_preference_loss(logps, cu, given, objective, options)
    return losses, token_slopes(logps, cu, given, objective, options), shown


def spans_of_sequences(starts: list[int], rows: int, together: int) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of the sequences of each chunk: as many as fit ``rows``, ``together`` of them inseparable."""
    first = 0
    while first < len(starts) - 1:
        stop = first + together
        while stop + together < len(starts) and starts[stop + together] - starts[first] <= rows:
            stop += together
        yield first, stop
        first = stop


def run(
    head: Head,
    starts: list[int],  # (S + 1,) of the scored rows
    given: Given,  # of the scored rows
    scale: Tensor,  # (L,) what each loss counts
    objective: str,
    options: Options,
    score: Score,
    differentiate: bool,
    device: torch.device,
) -> Outcome:
    single = SPECS[objective].single
    together = 1 if single else 2
    parts: list[Outcome] = []
    for first, stop in spans_of_sequences(starts, head.rows, together):
        r = slice(starts[first], starts[stop])
        cu = torch.tensor(starts[first : stop + 1], device=device) - r.start
        here = given._replace(
            reference=None if given.reference is None else given.reference[r],
            weights=None if given.weights is None else given.weights[r],
            desirable=None if given.desirable is None else given.desirable[first:stop],
            alignment=None if given.alignment is None else given.alignment[first:stop],
        )
        logps = head.forward(r)
        losses, slopes, shown = score(logps, cu, here, objective, options)
        dropped = torch.zeros_like(logps)
        if differentiate:
            counts = scale[first // together : stop // together].repeat_interleave(together)
            upstream = counts.to(logps.dtype).repeat_interleave(cu.diff(), output_size=len(logps))
            dropped = head.backward(r, slopes * upstream)
        parts.append(Outcome(losses, shown, logps, dropped))
    if not parts:
        none = torch.zeros(0, dtype=torch.float32, device=device)
        return Outcome(none, none.new_zeros(2, 0), none, none.clone())
    return Outcome(
        torch.cat([part.losses for part in parts]),
        torch.cat([part.shown for part in parts], 1),
        torch.cat([part.logps for part in parts]),
        torch.cat([part.dropped for part in parts]),
    )
