"""Decoding from the contiguous cache: no limit on key/value memory but the number of rows, and the fewest small calls.

Samples enter in cohorts: as soon as a cohort's worth of rows is free (an eighth of ``max_rows``), the next prompts
are prefilled, each once, and their samples join the batch. A finished sample leaves the batch in the same step. So
every product of a step runs on live rows alone, whatever their cohort.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from plum_core.sampling.cache import Cache
from plum_core.sampling.native import NativeCache
from plum_core.sampling.params import Completion, Request, SamplingParams
from plum_core.sampling.plan import Piece, plan
from plum_core.sampling.prefill import Prompts, prefill
from plum_core.sampling.rows import Drawn, Rows
from plum_core.sampling.stats import SamplerStats
from plum_core.sampling.weights import Weights
from plum_models.tokenizer import Tokenizer

PREFILL_TOKENS = 2048  # of several cohorts in one forward, pads included: what it holds of each layer stays small


class ContiguousBatch:
    """The live rows of one call, cohort after cohort. alone: every prompt is prefilled by itself."""

    def __init__(
        self,
        weights: Weights,
        tokenizer: Tokenizer,
        requests: Iterable[Request | None],
        params: SamplingParams,
        stats: SamplerStats,
        *,
        max_rows: int,
        cohort_rows: int,
        alone: bool = False,
    ) -> None:
        self.weights, self.decoder, self.stats = weights, weights.decoder, stats
        like = self.decoder.head_weight
        self.alone = alone
        self.waiting, self.exhausted = plan(requests, cohort_rows), False
        self.next: list[Piece] | None = None
        self.prefilled: dict[int, tuple[Prompts, Tensor]] = {}  # by request, while pieces of it wait
        rows = max_rows
        if isinstance(requests, Sequence):
            rows = min(rows, sum(len(r.seeds) for r in requests if r is not None))
        kind = Cache if weights.native is None else NativeCache
        self.cache = kind(self.decoder.config, rows, like)
        self.rows = Rows(tokenizer, params, rows, like.device)
        self.cancelled: set[str] = set()

    @property
    def busy(self) -> bool:
        return bool(not self.exhausted or self.next or len(self.rows))

    def cancel(self, request_id: str) -> None:
        self.cancelled.add(request_id)

    def update(self, weights: Weights, version: int) -> None:
        """The weights are these from the next token on. Live rows keep their keys and values."""
        self.weights, self.decoder = weights, weights.decoder
        self.prefilled.clear()
        self.rows.update(version)

    def sleep(self) -> None:
        raise ValueError(
            "the sampler can sleep in the middle of a call only with a budget: give kv_tokens, or take all completions"
        )

    def advance(self) -> list[Completion]:
        """Let in what fits, then draw one token for every live row; the samples that this finished."""
        done = self._cancel_live() if self.cancelled else []
        while cohort := self._entering():
            done += self._admit(cohort)
        return done + self._step() if len(self.rows) else done

    def _entering(self) -> list[Piece]:
        """Who enters now, with one prefill: cohorts as long as rows are free and their prompts are not too many."""
        pieces: list[Piece] = []
        while (cohort := self._peek()) is not None:
            several = [*pieces, *cohort]
            longest = max(len(piece.request.token_ids) for piece in several)
            if sum(map(len, several)) > len(self.rows.free):
                break
            if pieces and (self._is_part(cohort[0]) or longest * len(several) > PREFILL_TOKENS):
                break
            pieces, self.next = several, None
            if self._is_part(cohort[0]):
                break
        return pieces

    def _is_part(self, piece: Piece) -> bool:
        """Of a request in several pieces, which are prefilled once and enter alone."""
        return len(piece) < len(piece.request.seeds)

    def _peek(self) -> list[Piece] | None:
        if self.next is None and not self.exhausted:
            try:
                self.next = next(self.waiting)
            except StopIteration:
                self.exhausted = True
        return self.next

    def _cancel_live(self) -> list[Completion]:
        owners = (self.rows.owners[place] for place in self.rows.places)
        gone = [row for row, sample in enumerate(owners) if sample.request.id in self.cancelled]
        if not gone:
            return []
        done = [s.completion(self.rows.tokenizer.decode(s.ids), "cancelled") for s in self.rows.withdraw(gone)]
        self.cache.release(*self.rows.release(gone))
        return done

    def _admit(self, cohort: Sequence[Piece]) -> list[Completion]:
        """A cohort joins the batch; its samples' first tokens come from the state after their prompts."""
        done = [
            Drawn(piece.request, index).completion("", "cancelled")
            for piece in cohort
            if piece.request.id in self.cancelled
            for index in piece.indices
        ]
        pieces = [piece for piece in cohort if piece.request.id not in self.cancelled]
        if not pieces:
            return done
        prompts, states = self._prefill(pieces)
        owners = [row for row, piece in enumerate(pieces) for _ in piece.indices]
        first = self.rows.enter([Drawn(piece.request, index) for piece in pieces for index in piece.indices])
        self.cache.admit(prompts, owners)
        self._count_bytes()
        return done + self._take(states[torch.tensor(owners, device=states.device)].unsqueeze(1), first)

    def _prefill(self, pieces: Sequence[Piece]) -> tuple[Prompts, Tensor]:
        """The pieces' prompts; a request in several pieces is kept from the first to the last."""
        number = pieces[0].request_number
        prompts = self.prefilled.pop(number, None)
        if prompts is None:
            prompts = prefill(self.decoder, [piece.request for piece in pieces], self.alone)
            self.stats.prefilled_prompts += len(pieces)
            self.stats.prefilled_tokens += sum(len(piece.request.token_ids) for piece in pieces)
        if pieces[0].more:
            self.prefilled[number] = prompts
        return prompts

    def _step(self) -> list[Completion]:
        state = self.rows.state
        hidden = self.weights.decode(state[0], state[1], self.cache)
        self._count_bytes()
        self.stats.decode_steps += 1
        self.stats.decode_tokens += len(self.rows)
        return self._take(hidden, 0)

    def _take(self, hidden: Tensor, first: int) -> list[Completion]:
        done, finished = self.rows.take(self.weights, hidden, first)
        if finished:
            self.cache.release(*self.rows.release(finished))
        return done

    def _count_bytes(self) -> None:
        self.stats.peak_kv_bytes = max(self.stats.peak_kv_bytes, self.cache.allocated_bytes)
