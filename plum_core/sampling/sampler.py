"""The sampler: keeps a batch of rows busy until every sample of every request is drawn.

Samples enter in cohorts: as soon as a cohort's worth of rows is free (an eighth of ``max_rows``), the next prompts
are prefilled, each once, and their samples join the batch. A finished sample leaves the batch in the same step. So
every product of a step runs on live rows alone, whatever their cohort.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from plum_core.sampling.cache import Cache
from plum_core.sampling.draw import draw_tokens
from plum_core.sampling.params import Completion, Request, SamplingParams
from plum_core.sampling.plan import Piece, plan
from plum_core.sampling.prefill import Prompts, prefill
from plum_models.decoder import Decoder, for_inference
from plum_models.tokenizer import Tokenizer


@dataclass(slots=True)
class SamplerStats:
    """What the latest call of ``sample`` has done so far."""

    decode_steps: int = 0
    decode_tokens: int = 0
    """Rows times steps: tokens fed back to the decoder, none of them idle."""
    prefilled_prompts: int = 0
    prefilled_tokens: int = 0


class Sampler:
    """Samples from the decoder's weights as they are when ``sample`` is called.

    The weights must not change while a call's completions are being drawn: some are copied at its start, some not.

    max_rows: how many samples decode together. Keys and values take max_rows x new tokens x layers x 2 x kv_heads
    x head_dim numbers and as much for the prompts, once a prompt.
    cohort_rows: how many samples enter together; so many rows less one may be idle while samples wait. Default:
    an eighth of max_rows, at least 16.
    """

    def __init__(
        self, decoder: Decoder, tokenizer: Tokenizer, *, max_rows: int = 512, cohort_rows: int | None = None
    ) -> None:
        cohort_rows = min(max_rows, max(16, max_rows // 8)) if cohort_rows is None else cohort_rows
        if not 1 <= cohort_rows <= max_rows:
            raise ValueError(f"cohort_rows must be in [1, max_rows={max_rows}] and max_rows >= 1, got {cohort_rows}")
        self.decoder, self.tokenizer = decoder, tokenizer
        self.max_rows, self.cohort_rows = max_rows, cohort_rows
        self.stats = SamplerStats()

    def sample(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Completion]:
        """Completions as they finish: one for each seed of each request.

        Raises ValueError, before anything is drawn, where a prompt and its answer do not fit into the decoder's
        positions or a prompt's token id is outside its vocabulary.
        """
        _check(requests, params, self.decoder)
        self.stats = SamplerStats()
        return self._drawn(requests, params)

    def _drawn(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Completion]:
        with torch.inference_mode():
            batch = _Batch(self, requests, params)
        while batch.busy:
            with torch.inference_mode():
                done = batch.advance()
            yield from done


def _check(requests: Sequence[Request], params: SamplingParams, decoder: Decoder) -> None:
    limit, vocabulary = decoder.config.max_position_embeddings, decoder.config.vocab_size
    for r in requests:
        if len(r.token_ids) + params.max_new_tokens > limit:
            raise ValueError(
                f"request {r.id!r}: {len(r.token_ids)} prompt tokens and max_new_tokens={params.max_new_tokens} pass "
                f"the policy's {limit} positions: lower max_new_tokens or drop the prompt"
            )
        if not 0 <= min(r.token_ids) <= max(r.token_ids) < vocabulary:
            raise ValueError(
                f"request {r.id!r}: token ids span {min(r.token_ids)} to {max(r.token_ids)}, the policy's vocabulary "
                f"is 0 to {vocabulary - 1}: encode the prompt with the policy's own tokenizer"
            )


class _Batch:
    """The live rows of one call, cohort after cohort, and what was drawn for them."""

    def __init__(self, sampler: Sampler, requests: Sequence[Request], params: SamplingParams) -> None:
        self.sampler, self.params, self.stats = sampler, params, sampler.stats
        self.decoder = for_inference(sampler.decoder)
        device = self.decoder.head_weight.device
        self.waiting = plan(requests, sampler.cohort_rows)
        self.prefilled: dict[int, tuple[Prompts, Tensor]] = {}  # by request, while pieces of it wait
        rows = min(sampler.max_rows, sum(len(r.seeds) for r in requests))
        self.cache = Cache(self.decoder.config, rows, self.decoder.head_weight)
        self.free = list(range(rows))[::-1]  # places in the tables of what was drawn
        self.ids = torch.zeros((rows, params.max_new_tokens), dtype=torch.int64, device=device)
        self.logprobs = torch.zeros((rows, params.max_new_tokens), device=device)
        self.owners: dict[int, tuple[Request, int]] = {}  # by place
        # of each live row: last token, its position, tokens drawn, seed, place
        self.state = torch.zeros((5, 0), dtype=torch.int64, device=device)
        self.ends = torch.tensor(sorted(sampler.tokenizer.eos_token_ids), device=device)

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.cache.owners)

    def advance(self) -> list[Completion]:
        """Let in what fits, then draw one token for every live row; the samples that this finished."""
        done: list[Completion] = []
        while self.waiting and sum(map(len, self.waiting[0])) <= len(self.free):
            done += self._admit(self.waiting.popleft())
        return done + self._step() if self.cache.owners else done

    def _admit(self, pieces: Sequence[Piece]) -> list[Completion]:
        """A cohort joins the batch; its samples' first tokens come from the state after their prompts."""
        prompts, states = self._prefill(pieces)
        owners = [row for row, piece in enumerate(pieces) for _ in piece.indices]
        samples = [(piece.request, index) for piece in pieces for index in piece.indices]
        places = [self.free.pop() for _ in samples]
        self.owners |= zip(places, samples, strict=True)
        rows = torch.tensor(owners, device=self.state.device)
        new = torch.zeros((5, len(owners)), dtype=torch.int64, device=self.state.device)
        new[1] = prompts.lengths[rows] - 1
        new[3] = torch.tensor([request.seeds[index] for request, index in samples])
        new[4] = torch.tensor(places)
        before = self.state.shape[1]
        self.state = torch.cat((self.state, new), 1)
        self.cache.admit(prompts, owners)
        return self._take(states[rows], before)

    def _prefill(self, pieces: Sequence[Piece]) -> tuple[Prompts, Tensor]:
        """The pieces' prompts; a request in several pieces is kept from the first to the last."""
        number = pieces[0].request_number
        prompts = self.prefilled.pop(number, None)
        if prompts is None:
            prompts = prefill(self.decoder, [piece.request for piece in pieces])
            self.stats.prefilled_prompts += len(pieces)
            self.stats.prefilled_tokens += sum(len(piece.request.token_ids) for piece in pieces)
        if pieces[0].more:
            self.prefilled[number] = prompts
        return prompts

    def _step(self) -> list[Completion]:
        self.cache.begin_step()
        hidden = self.decoder(self.state[0].unsqueeze(-1), self.state[1].unsqueeze(-1), self.cache.attend)
        self.stats.decode_steps += 1
        self.stats.decode_tokens += self.state.shape[1]
        return self._take(hidden[:, 0], 0)

    def _take(self, hidden: Tensor, first: int) -> list[Completion]:
        """Draw the next token of the rows from ``first`` on; release those that are finished."""
        state = self.state[:, first:]
        _, _, drawn, seeds, places = state
        cap = self.decoder.config.logit_softcap
        token, logprob = draw_tokens(hidden, self.decoder.head_weight, seeds, drawn, self.params, cap)
        self.ids[places, drawn] = token
        self.logprobs[places, drawn] = logprob
        state[0] = token
        state[1:3] += 1
        ended = torch.isin(token, self.ends)
        finished = ended | (drawn >= self.params.max_new_tokens)
        which = finished.nonzero().squeeze(-1)
        if not len(which):
            return []
        out = self._completions(places[which], ended[which], drawn[which])
        self._release((which + first).tolist())
        return out

    def _completions(self, places: Tensor, ended: Tensor, drawn: Tensor) -> list[Completion]:
        columns = (places, ended, drawn, self.ids[places], self.logprobs[places])
        out = []
        for place, stop, count, ids, logprobs in zip(*(c.tolist() for c in columns), strict=True):
            request, index = self.owners.pop(place)
            self.free.append(place)
            out.append(
                Completion(
                    request_id=request.id,
                    index=index,
                    token_ids=tuple(ids[:count]),
                    logprobs=tuple(logprobs[:count]),
                    text=self.sampler.tokenizer.decode(ids[: count - stop]),
                    finish_reason="stop" if stop else "length",
                    seed=request.seeds[index],
                )
            )
        return out

    def _release(self, finished: list[int]) -> None:
        """Live rows from the end take the places of finished ones."""
        gone = set(finished)
        live = self.state.shape[1] - len(gone)
        holes = [row for row in finished if row < live]
        movers = [row for row in range(live, self.state.shape[1]) if row not in gone]
        if holes:
            self.state[:, holes] = self.state[:, movers]
        self.state = self.state[:, :live]
        self.cache.release(holes, movers, live)
