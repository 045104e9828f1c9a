"""The live rows: what was drawn for each, when it ends, and what it is answered with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from plum_core.sampling.draw import draw_tokens
from plum_core.sampling.params import Completion, Request, SamplingParams
from plum_core.sampling.penalties import History
from plum_core.sampling.stops import first_stop
from plum_core.sampling.weights import Weights
from plum_models.tokenizer import Tokenizer

Marks = list[tuple[int, int]]  # (tokens drawn, version): from that many tokens on, the weights are of that version


@dataclass(slots=True)
class Drawn:
    """A sample that is not in the batch: one that waits, or was preempted with what it had."""

    request: Request
    index: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[list[float]] = field(default_factory=lambda: [[], []])  # untempered, sampled
    marks: Marks = field(default_factory=list)

    def completion(self, text: str, finish_reason: str, stop_reason: int | str | None = None) -> Completion:
        cuts = [*(count for count, _ in self.marks[1:]), len(self.ids)]
        versions: list[int] = []
        for (_, version), end in zip(self.marks, cuts, strict=False):
            versions += [version] * (end - len(versions))
        return Completion(
            request_id=self.request.id,
            index=self.index,
            token_ids=tuple(self.ids),
            logprobs=tuple(self.logprobs[0]),
            text=text,
            finish_reason=finish_reason,
            seed=self.request.seeds[self.index],
            sampled_logprobs=tuple(self.logprobs[1]),
            stop_reason=stop_reason,
            weights_versions=tuple(versions),
        )


class Rows:
    """Room for ``capacity`` samples. Row r of ``state`` is row r of the cache; its place in the tables never moves.

    ahead: how many tokens more than one a step may draw for a row.
    """

    def __init__(
        self, tokenizer: Tokenizer, params: SamplingParams, capacity: int, device: torch.device, ahead: int = 0
    ) -> None:
        self.tokenizer, self.params, self.version = tokenizer, params, 0
        self.free = list(range(capacity))[::-1]  # places in the tables of what was drawn
        self.ids = torch.zeros((capacity, params.max_new_tokens + ahead), dtype=torch.int64, device=device)
        self.logprobs = torch.zeros((2, *self.ids.shape), device=device)  # untempered, sampled
        self.owners: dict[int, Drawn] = {}  # by place; its ids and log-probs are in the tables while it is live
        # of each live row: last token, its position, tokens drawn, seed, place
        self.state = torch.zeros((5, 0), dtype=torch.int64, device=device)
        self.ends = torch.tensor(sorted({*tokenizer.eos_token_ids, *params.stop_token_ids}), device=device)
        self.history = History(params, capacity, device) if params.penalises else None

    def __len__(self) -> int:
        return self.state.shape[1]

    @property
    def places(self) -> list[int]:
        return self.state[4].tolist()

    def enter(self, samples: Sequence[Drawn]) -> int:
        """New rows behind the live ones, to be drawn for at once; the first of them."""
        before, device = len(self), self.state.device
        places = [self.free.pop() for _ in samples]
        new = torch.zeros((5, len(samples)), dtype=torch.int64)
        new[1] = torch.tensor([len(s.request.token_ids) + len(s.ids) - 1 for s in samples])
        new[2] = torch.tensor([len(s.ids) for s in samples])
        new[3] = torch.tensor([s.request.seeds[s.index] for s in samples])
        new[4] = torch.tensor(places)
        self.state = torch.cat((self.state, new.to(device)), 1)
        for place, sample in zip(places, samples, strict=True):
            self.owners[place] = sample
            self.mark(sample, len(sample.ids))
            if sample.ids:
                self.ids[place, : len(sample.ids)] = torch.tensor(sample.ids, device=device)
                self.logprobs[:, place, : len(sample.ids)] = torch.tensor(sample.logprobs, device=device)
            if self.history is not None:
                self.history.enter(place, sample.request.token_ids)
        return before

    def mark(self, sample: Drawn, count: int) -> None:
        """From ``count`` drawn tokens on, this version of the weights draws."""
        if sample.marks and sample.marks[-1][0] == count:
            sample.marks.pop()
        if not sample.marks or sample.marks[-1][1] != self.version:
            sample.marks.append((count, self.version))

    def update(self, version: int) -> None:
        """The next token of every live row is of ``version``."""
        self.version = version
        for place, drawn in zip(self.places, self.state[2].tolist(), strict=True):
            self.mark(self.owners[place], drawn)

    def take(
        self, weights: Weights, hidden: Tensor, first: int, proposed: Tensor | None = None
    ) -> tuple[list[Completion], list[int]]:
        """Draw for the rows from ``first`` on: what is finished, and which rows those are.

        hidden: (R, 1 + P, D). proposed: (R, P) int64 ids that stood at the last P of the positions, -1 for none. A
        proposal holds where it equals the draw before it, and then the next draw counts too (``speculate``).
        """
        state = self.state[:, first:]
        _, _, drawn, seeds, places = state
        head, cap, params = weights.decoder.head_weight, weights.decoder.config.logit_softcap, self.params
        past = None if self.history is None else self.history.of(places, drawn, self.ids)
        if proposed is None:
            token, *logprobs = draw_tokens(
                hidden[:, 0], head, seeds, drawn, params, cap, past, weights.product, weights.native is not None
            )
            at = places * self.ids.shape[1] + drawn
            self.ids.view(-1).scatter_(0, at, token)
            for kind, logprob in zip(self.logprobs, logprobs, strict=True):
                kind.view(-1).scatter_(0, at, logprob)
            state[0] = token
            state[1:3] += 1
        else:
            self._take_several(state, hidden, proposed, weights)
            token = state[0]
        ended = self._ended(token)
        if params.stop:
            finished = ended | self._stopped_by_string(places, drawn) | (drawn >= params.max_new_tokens)
        else:
            finished = ended | (drawn >= params.max_new_tokens)
        which = finished.nonzero().squeeze(-1)
        if not len(which):
            return [], []
        return self._completions(places[which], ended[which], drawn[which]), (which + first).tolist()

    def _ended(self, token: Tensor) -> Tensor:
        """(R,) bool: which ids are ends."""
        if len(self.ends) > 2:
            return torch.isin(token, self.ends)
        ended = torch.zeros_like(token, dtype=torch.bool)
        for end in self.ends:  # one or two, as usual: comparisons are cheaper than isin
            ended |= token == end
        return ended

    def _take_several(self, state: Tensor, hidden: Tensor, proposed: Tensor, weights: Weights) -> None:
        _, _, drawn, seeds, places = state
        rows, width, _ = hidden.shape
        columns = drawn.unsqueeze(1) + torch.arange(width, device=drawn.device)
        token, *logprobs = draw_tokens(
            hidden.flatten(0, 1),
            weights.decoder.head_weight,
            seeds.repeat_interleave(width),
            columns.flatten(),
            self.params,
            weights.decoder.config.logit_softcap,
            product=weights.product,
        )
        token = token.view(rows, width)
        self.ids[places.unsqueeze(1), columns] = token
        for kind, logprob in enumerate(logprobs):
            self.logprobs[kind, places.unsqueeze(1), columns] = logprob.view(rows, width)
        # a draw counts where all before it were foretold and none of them ended the sample
        goes_on = (token[:, :-1] == proposed) & ~torch.isin(token[:, :-1], self.ends)
        kept = 1 + goes_on.long().cumprod(1).sum(1)
        kept = torch.minimum(kept, self.params.max_new_tokens - drawn)
        if self.params.stop:
            kept = self._until_string(places, drawn, kept)
        state[0] = token.gather(1, kept.unsqueeze(1) - 1).squeeze(1)
        state[1:3] += kept

    def _until_string(self, places: Tensor, drawn: Tensor, kept: Tensor) -> Tensor:
        """(R,) as ``kept``, but no token after the one with which a stop string is there."""
        out = []
        for ids, count, more in zip(self.ids[places].tolist(), drawn.tolist(), kept.tolist(), strict=True):
            cuts = range(count + 1, count + more)
            texts = ((cut - count, self.tokenizer.decode(ids[:cut])) for cut in cuts)
            out.append(next((n for n, text in texts if first_stop(text, self.params.stop)), more))
        return torch.tensor(out, device=places.device)

    def _stopped_by_string(self, places: Tensor, drawn: Tensor) -> Tensor:
        """(R,) bool. The whole text is decoded: a token's text may depend on what stands before it."""
        decode, stop = self.tokenizer.decode, self.params.stop
        rows = zip(self.ids[places].tolist(), drawn.tolist(), strict=True)
        found = [first_stop(decode(ids[:count]), stop) is not None for ids, count in rows]
        return torch.tensor(found, device=places.device)

    def _completions(self, places: Tensor, ended: Tensor, drawn: Tensor) -> list[Completion]:
        out = []
        for sample, end in zip(self._leave(places, drawn), ended.tolist(), strict=True):
            text = self.tokenizer.decode(sample.ids[: len(sample.ids) - end])
            stopped = first_stop(text, self.params.stop)
            if stopped is not None:
                text = text[: stopped[0]]
            reason = stopped[1] if stopped is not None else sample.ids[-1] if end else None
            out.append(sample.completion(text, "length" if reason is None else "stop", reason))
        return out

    def _leave(self, places: Tensor, drawn: Tensor) -> list[Drawn]:
        """The samples of ``places``, with what the tables hold of them; the places are free."""
        columns = (places, drawn, self.ids[places], *self.logprobs[:, places])
        out = []
        for place, count, ids, *logprobs in zip(*(c.tolist() for c in columns), strict=True):
            sample = self.owners.pop(place)
            self.free.append(place)
            sample.ids, sample.logprobs = ids[:count], [kind[:count] for kind in logprobs]
            out.append(sample)
        return out

    def withdraw(self, rows: Sequence[int]) -> list[Drawn]:
        """Rows that leave before their end. ``release`` follows."""
        which = torch.tensor(rows, dtype=torch.int64, device=self.state.device)
        return self._leave(self.state[4, which], self.state[2, which])

    def release(self, gone: Sequence[int]) -> tuple[list[int], list[int], int]:
        """Rows from the end take the places of those ``gone``: (holes, movers, how many are live)."""
        out = set(gone)
        live = len(self) - len(out)
        holes = [row for row in sorted(out) if row < live]
        movers = [row for row in range(live, len(self)) if row not in out]
        if holes:
            self.state[:, holes] = self.state[:, movers]
        self.state = self.state[:, :live]
        return holes, movers, live
