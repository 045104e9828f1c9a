"""Decoding under a budget of key/value memory: the scheduler's decisions carried out on a pool of blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from plum_core.sampling.blocks import BlockManager, Table
from plum_core.sampling.graphs import Capture, StepGraphs
from plum_core.sampling.params import Completion, Request, SamplingParams
from plum_core.sampling.pool import Pages, Pool
from plum_core.sampling.rows import Drawn, Rows
from plum_core.sampling.schedule import Scheduler
from plum_core.sampling.speculate import foretell
from plum_core.sampling.stats import SamplerStats
from plum_core.sampling.weights import Weights
from plum_models.tokenizer import Tokenizer


class PagedBatch:
    """One call of ``Sampler.sample``. ahead: tokens at most a step foretells for a row; capture: see ``graphs``."""

    def __init__(
        self,
        weights: Weights,
        tokenizer: Tokenizer,
        requests: Iterable[Request | None],
        params: SamplingParams,
        stats: SamplerStats,
        *,
        max_rows: int,
        blocks: int,
        block: int,
        step_tokens: int,
        ahead: int,
        capture: Capture | None = None,
    ) -> None:
        self._weights: Weights | None = weights
        self.params, self.stats, self.step_tokens, self.ahead = params, stats, step_tokens, ahead
        self.like, self.config = weights.decoder.head_weight, weights.decoder.config
        self.device = self.like.device
        self.scheduler = Scheduler(BlockManager(blocks, block), max_rows, requests)
        self.rows = Rows(tokenizer, params, max_rows, self.device, ahead)
        self.pool: Pool | None = Pool(self.config, blocks, block, self.like)
        self.cancelled: set[str] = set()
        self.capture = capture
        self.graphs: StepGraphs | None = None

    @property
    def busy(self) -> bool:
        return self.scheduler.busy

    def cancel(self, request_id: str) -> None:
        self.cancelled.add(request_id)

    def update(self, weights: Weights, version: int) -> None:
        """The weights are these from the next token on. Live rows keep their keys and values."""
        self._weights = weights
        self.scheduler.manager.forget()
        for job in (*self.scheduler.filling, *self.scheduler.ready):
            self.scheduler.put_back(job)
        self.rows.update(version)

    def sleep(self) -> None:
        """Everything that was computed is given back, the copied weights too; ``update`` goes on from there."""
        self._preempt(list(range(len(self.rows))))
        for job in (*self.scheduler.filling, *self.scheduler.ready):
            self.scheduler.put_back(job)
        self.scheduler.manager.forget()
        self._weights = self.pool = self.graphs = None

    def advance(self) -> list[Completion]:
        """Let in and compute what fits, then draw one token for every live row; the samples that this finished."""
        if self.pool is None:
            manager = self.scheduler.manager
            self.pool = Pool(self.config, len(manager.holders), manager.block_size, self.like)
        done = self._cancel() + self._start()
        self.stats.reused_tokens += self.scheduler.admit()
        done += self._cancel()  # of what has only come now
        self._fill()
        if len(self.rows):
            done += self._step()
        return done

    def _cancel(self) -> list[Completion]:
        if not self.cancelled:
            return []
        gone = [row for row, line in enumerate(self.scheduler.live) if line.sample.request.id in self.cancelled]
        samples = [*self.scheduler.cancel(self.cancelled), *self._withdraw(gone)]
        return [s.completion(self.rows.tokenizer.decode(s.ids), "cancelled") for s in samples]

    def _withdraw(self, rows: Sequence[int]) -> list[Drawn]:
        if not rows:
            return []
        samples = self.rows.withdraw(rows)
        self.scheduler.release(*self.rows.release(rows))
        return samples

    def _preempt(self, rows: Sequence[int]) -> None:
        numbers = [self.scheduler.live[row].number for row in rows]
        for sample, number in zip(self._withdraw(rows), numbers, strict=True):
            self.scheduler.resume(sample, number)

    def _fill(self) -> None:
        """Chunks of the prompts that were let in."""
        work = self.scheduler.chunks(self.step_tokens - len(self.rows) * (1 + self.ahead))
        if not work:
            return
        longest = max(count for _, count in work)
        ids = torch.zeros((len(work), longest), dtype=torch.int64)
        positions = torch.zeros_like(ids)
        for row, (job, count) in enumerate(work):
            ids[row, :count] = torch.tensor(job.ids[job.computed : job.computed + count])
            positions[row] = torch.arange(job.computed, job.computed + longest).clamp_(max=job.computed + count - 1)
        counts = [count for _, count in work]
        hidden = self._forward(ids, positions, [job.table for job, _ in work], [()] * len(work), counts)
        for row, (job, count) in enumerate(work):
            self.scheduler.computed(job, count, hidden[row, count - 1])
            self.stats.prefilled_prompts += job.state is not None
        self.stats.prefilled_tokens += sum(counts)
        self._count_blocks()

    def _forward(
        self,
        ids: Tensor,
        positions: Tensor,
        tables: Sequence[Table],
        shared: Sequence[tuple[int, ...]],
        counts: Sequence[int],
    ) -> Tensor:
        assert self.pool is not None  # awake
        positions = positions.to(self.device)
        pages = Pages(self.pool, tables, shared, positions, counts)
        if self.capture is not None and pages.step is not None:
            if self.graphs is None or not self.graphs.belongs(self.weights.decoder, self.pool):
                self.graphs = StepGraphs(self.weights.decoder, self.pool, self.capture)
            return self.graphs(ids.to(self.device), positions, pages.step)
        return self.weights.decoder(ids.to(self.device), positions, pages.attend)

    def _start(self) -> list[Completion]:
        started = self.scheduler.start()
        if not started:
            return []
        first = self.rows.enter([line.sample for line, _ in started])
        return self._take(torch.stack([state for _, state in started]).unsqueeze(1), first)

    def _step(self) -> list[Completion]:
        proposals = self._make_room(self._foretell())
        if not len(self.rows):  # all were preempted for a prompt that is older
            return []
        live, state = self.scheduler.live, self.rows.state
        longest = max(map(len, proposals))
        foretold = [[*p, *[-1] * (longest - len(p))] for p in proposals]
        foretold_ids = torch.tensor(foretold, dtype=torch.int64, device=self.device).view(len(live), longest)
        ids = torch.cat((state[0].unsqueeze(1), foretold_ids.clamp(min=0)), 1)
        counts = [1 + len(p) for p in proposals]
        last = torch.tensor(counts, device=self.device).unsqueeze(1) - 1
        positions = state[1].unsqueeze(1) + torch.arange(1 + longest, device=self.device).minimum(last)
        hidden = self._forward(ids, positions, [x.table for x in live], [x.shared for x in live], counts)
        self.stats.decode_steps += 1
        self.stats.decode_tokens += len(live)
        if not longest:
            return self._take(hidden, 0)
        return self._take_foretold(hidden, foretold_ids)

    def _foretell(self) -> list[list[int]]:
        """Of each live row: ids that may come after its last token."""
        if not self.ahead:
            return [[] for _ in range(len(self.rows))]
        out = []
        drawn = self.rows.ids[self.rows.state[4]].tolist()
        for line, ids, count in zip(self.scheduler.live, drawn, self.rows.state[2].tolist(), strict=True):
            most = min(self.ahead, self.params.max_new_tokens - count - 1)
            out.append(foretell((*line.sample.request.token_ids, *ids[:count]), most))
        return out

    def _make_room(self, proposals: list[list[int]]) -> list[list[int]]:
        """Blocks for every row's next token, the youngest preempted where they run out; the proposals with room."""
        scheduler = self.scheduler
        rooms, copies, gone = scheduler.grow([len(p) for p in proposals])
        assert self.pool is not None  # awake
        self.pool.copy(copies)
        self._count_blocks()
        fitting = {id(x): p[: room - 1] for x, p, room in zip(scheduler.live, proposals, rooms, strict=True) if room}
        self.stats.preemptions += len(gone)
        self._preempt(gone)
        return [fitting[id(line)] for line in scheduler.live]

    def _take_foretold(self, hidden: Tensor, foretold: Tensor) -> list[Completion]:
        """As ``_take``; blocks that were taken for proposals which did not hold are given back."""
        before = int(self.rows.state[2].sum())
        done, finished = self.rows.take(self.weights, hidden, 0, foretold)
        drawn = int(self.rows.state[2].sum()) - before
        self.stats.proposed_tokens += int((foretold >= 0).sum())
        self.stats.accepted_tokens += drawn - len(self.rows)
        if finished:
            self.scheduler.release(*self.rows.release(finished))
        for line, position in zip(self.scheduler.live, self.rows.state[1].tolist(), strict=True):
            self.scheduler.manager.shrink(line.table, position)
        return done

    def _take(self, hidden: Tensor, first: int) -> list[Completion]:
        done, finished = self.rows.take(self.weights, hidden, first)
        if finished:
            self.scheduler.release(*self.rows.release(finished))
        return done

    @property
    def weights(self) -> Weights:
        assert self._weights is not None, "asleep"
        return self._weights

    def _count_blocks(self) -> None:
        assert self.pool is not None  # awake
        manager = self.scheduler.manager
        held = len(manager.holders) - manager.free
        self.stats.peak_kv_bytes = max(self.stats.peak_kv_bytes, held * self.pool.block_bytes)
