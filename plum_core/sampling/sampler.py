"""The sampler: keeps a batch of rows busy until every sample of every request is drawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from plum_core.sampling.draw import draw
from plum_core.sampling.params import Completion, Request, SamplingParams
from plum_core.sampling.prefill import Prompts, prefill
from plum_core.sampling.step import Cache, DecodeStep
from plum_models.decoder import Decoder
from plum_models.tokenizer import Tokenizer


class Sampler:
    """Samples from the decoder's weights as they are when ``sample`` is called.

    max_rows: how many samples decode together. The memory is rows x positions x layers x 2 x kv_heads x head_dim.
    prompts_per_prefill: how many prompts are prefilled in one forward.
    """

    def __init__(
        self, decoder: Decoder, tokenizer: Tokenizer, *, max_rows: int = 512, prompts_per_prefill: int = 32
    ) -> None:
        if max_rows < 1 or prompts_per_prefill < 1:
            raise ValueError(
                f"max_rows and prompts_per_prefill must be at least 1, got {max_rows}, {prompts_per_prefill}"
            )
        self.decoder, self.tokenizer = decoder, tokenizer
        self.max_rows, self.prompts_per_prefill = max_rows, prompts_per_prefill
        self.decode_steps = self.prefilled_prompts = 0  # of the last call, for whoever tunes or tests it

    def sample(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Completion]:
        """Completions as they finish: one for each seed of each request.

        Raises ValueError where a prompt and its answer do not fit into the decoder's positions.
        """
        longest = max((len(r.token_ids) for r in requests), default=0) + params.max_new_tokens
        limit = self.decoder.config.max_position_embeddings
        if longest > limit:
            raise ValueError(
                f"the longest prompt and sampling.max_new_tokens need {longest} positions, the policy has {limit}: "
                "lower max_new_tokens or drop the long prompts"
            )
        self.decode_steps = self.prefilled_prompts = 0
        if requests:
            batch = _Batch(self, requests, params, longest)
            while True:
                with torch.inference_mode():
                    done = batch.advance()
                if done is None:
                    return
                yield from done


class _Batch:
    """The live rows of one call: rows [0, live) are busy, and row tensors are indexed by them."""

    def __init__(self, sampler: Sampler, requests: Sequence[Request], params: SamplingParams, positions: int) -> None:
        self.sampler, self.params = sampler, params
        decoder = sampler.decoder
        device = decoder.embed_tokens.weight.device
        self.requests = deque(requests)
        self.waiting: deque[tuple[int, Request, int]] = deque()  # (prompt row in self.prompts, request, sample index)
        self.prompts: Prompts | None = None
        total = sum(len(r.seeds) for r in requests)
        rows = max(1, min(sampler.max_rows, total))
        with torch.inference_mode():
            self.cache = Cache(decoder, rows, positions)
            self.step = DecodeStep(decoder)
            self.tables = self.step.rotary(positions)
            self.ids = torch.zeros((rows, params.max_new_tokens), dtype=torch.int64, device=device)
            self.logprobs = torch.zeros((rows, params.max_new_tokens), device=device)
            self.drawn, self.lengths, self.seeds = (
                torch.zeros(rows, dtype=torch.int64, device=device) for _ in range(3)
            )
            self.ends = torch.tensor(sorted(sampler.tokenizer.eos_token_ids), device=device)
        self.rows = rows
        self.owners: list[tuple[Request, int]] = []  # of row i

    @property
    def live(self) -> int:
        return len(self.owners)

    def advance(self) -> list[Completion] | None:
        """Admit what fits, decode one token for every live row, hand out what is finished; None when all is done."""
        done = self._admit()
        if not self.live:
            return done or (None if not (self.waiting or self.requests) else done)
        live, lengths = self.live, self.lengths[: self.live]
        last = self.ids[torch.arange(live), self.drawn[:live] - 1]
        logits = self.step(last, lengths, int(lengths.max()) + 1, self.cache, self.tables)
        self.lengths[:live] += 1
        self.sampler.decode_steps += 1
        return done + self._take(torch.arange(live), logits)

    def _admit(self) -> list[Completion]:
        """Fill the free rows with waiting samples; each draws its first token from its prompt's logits."""
        done: list[Completion] = []
        while self.live < self.rows and (self.waiting or self.requests):
            if not self.waiting:
                self._prefill()
                continue
            new = [self.waiting.popleft() for _ in range(min(self.rows - self.live, len(self.waiting)))]
            rows = torch.arange(self.live, self.live + len(new))
            prompts = torch.tensor([prompt for prompt, _, _ in new])
            assert self.prompts is not None
            self.cache.fill(rows, self.prompts.kv, prompts)
            self.lengths[rows] = self.prompts.lengths[prompts]
            self.drawn[rows] = 0
            self.seeds[rows] = torch.tensor([request.seeds[index] for _, request, index in new])
            self.owners += [(request, index) for _, request, index in new]
            done += self._take(rows, self.prompts.logits[prompts])
        return done

    def _prefill(self) -> None:
        chunk = [self.requests.popleft() for _ in range(min(self.sampler.prompts_per_prefill, len(self.requests)))]
        self.prompts = prefill(self.sampler.decoder, chunk)
        self.sampler.prefilled_prompts += len(chunk)
        self.waiting.extend((row, request, i) for row, request in enumerate(chunk) for i in range(len(request.seeds)))

    def _take(self, rows: Tensor, logits: Tensor) -> list[Completion]:
        """Draw the next token of these rows; release those that are finished."""
        counts = self.drawn[rows]
        token, logprob = draw(logits, self.seeds[rows], counts, self.params)
        self.ids[rows, counts] = token
        self.logprobs[rows, counts] = logprob
        self.drawn[rows] += 1
        ended = torch.isin(token, self.ends)
        finished = ended | (counts + 1 >= self.params.max_new_tokens)
        if not finished.any():
            return []
        which = finished.nonzero().squeeze(-1)
        out = [
            self._completion(row, stop) for row, stop in zip(rows[which].tolist(), ended[which].tolist(), strict=True)
        ]
        self._release(rows[which].tolist())
        return out

    def _completion(self, row: int, stop: bool) -> Completion:
        request, index = self.owners[row]
        count = int(self.drawn[row])
        ids = self.ids[row, :count].tolist()
        return Completion(
            request_id=request.id,
            index=index,
            token_ids=tuple(ids),
            logprobs=tuple(self.logprobs[row, :count].tolist()),
            text=self.sampler.tokenizer.decode(ids[:-1] if stop else ids),
            finish_reason="stop" if stop else "length",
            seed=request.seeds[index],
        )

    def _release(self, finished: list[int]) -> None:
        """Close the holes with the last live rows, so that live rows stay one contiguous run."""
        gone = set(finished)
        live = self.live - len(gone)
        holes = sorted(row for row in gone if row < live)
        movers = [row for row in range(live, self.live) if row not in gone]
        if holes:
            to, source = torch.tensor(holes), torch.tensor(movers)
            self.cache.move(to, source, int(self.lengths[source].max()) + 1)
            for state in (self.ids, self.logprobs, self.drawn, self.lengths, self.seeds):
                state[to] = state[source]
            for row, mover in zip(holes, movers, strict=True):
                self.owners[row] = self.owners[mover]
        del self.owners[live:]
