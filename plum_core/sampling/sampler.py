"""The sampler: every sample of every request, as fast as the memory allows.

Two batches do the work behind one face. ``contiguous``: as many rows as ``max_rows``, the fewest calls a token.
``paged``: keys and values in blocks under a budget (``kv_tokens``), with chunked prefill, preemption and speculation.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from plum_core.sampling.contiguous import ContiguousBatch
from plum_core.sampling.graphs import cuda_capture
from plum_core.sampling.graphs import why_not as graphs_why_not
from plum_core.sampling.native import why_not
from plum_core.sampling.paged import PagedBatch
from plum_core.sampling.params import Completion, Request, SamplingParams
from plum_core.sampling.stats import SamplerStats
from plum_core.sampling.weights import Kind, Weights, can_pack, weights_of
from plum_kernels.cpu_decode import multiplies
from plum_kernels.cpu_decode.build import library
from plum_models.decoder import Decoder
from plum_models.tokenizer import Tokenizer

Batch = ContiguousBatch | PagedBatch


class Sampler:
    """Samples from the decoder's weights as they are when ``sample`` is called.

    The weights must not change while a call's completions are being drawn, some are copied at its start and some not,
    unless ``update_weights`` follows before the next completion is taken.

    max_rows: how many samples decode together. Without a budget keys and values take max_rows x new tokens x layers
    x 2 x kv_heads x head_dim numbers and as much for the prompts, once a prompt.
    cohort_rows: without a budget, how many samples enter together; so many rows less one may be idle while samples
    wait. Default: an eighth of max_rows, at least 16.
    kv_tokens: the budget: keys and values of so many tokens are held at most, in blocks of kv_block tokens. Samples
    wait for memory, and the youngest are preempted and computed again later where it runs out.
    step_tokens: with a budget, tokens a step may feed to the decoder, prompts in chunks of what the live rows leave.
    Default: what max_rows need and 512.
    speculate: with a budget, how many tokens at most are foretold by copying from the prompt and the sample itself
    where the last ``MATCH`` tokens (``speculate.py``) stood there before. What is drawn stays the same.
    packed: on a CPU, matrices laid out for products of few rows (``weights.py``): faster, for a second copy of some.
    native: on a CPU and without a budget, decode by functions that are compiled where they run (``native.py``): fp32
    and bf16 in the layouts of Llama and Qwen2. Other roundings than torch's operators.
    int8: on a CPU, all matrices but the embedding as whole numbers of 8 bits, quantised at each call and update. It
    pays for one row. Samples and log-probs are those of the quantised policy: a trainer must compute its own.
    invariant: native decoding whose every bit is a function of prompt and seed: prompts are prefilled one by one, and
    products that are not compiled take a fixed number of rows (see the README for what it costs).
    graphs: on a GPU and with a budget, decode steps as CUDA graphs, one a bucket of shapes (``graphs.py``).
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        *,
        max_rows: int = 512,
        cohort_rows: int | None = None,
        kv_tokens: int | None = None,
        kv_block: int = 8,
        step_tokens: int | None = None,
        speculate: int = 0,
        packed: bool = False,
        native: bool = False,
        int8: bool = False,
        invariant: bool = False,
        graphs: bool = False,
    ) -> None:
        cohort_rows = min(max_rows, max(16, max_rows // 8)) if cohort_rows is None else cohort_rows
        if not 1 <= cohort_rows <= max_rows:
            raise ValueError(f"cohort_rows must be in [1, max_rows={max_rows}] and max_rows >= 1, got {cohort_rows}")
        if kv_tokens is None and (speculate or step_tokens is not None):
            raise ValueError("speculate and step_tokens need a budget: give kv_tokens")
        if speculate < 0 or kv_block < 1:
            raise ValueError(f"speculate must be 0 (off) or more and kv_block at least 1, got {speculate}, {kv_block}")
        if kv_tokens is not None and kv_tokens < kv_block:
            raise ValueError(f"kv_tokens must be at least a block of kv_block={kv_block} tokens, got {kv_tokens}")
        rows = max_rows * (1 + speculate)
        if step_tokens is not None and step_tokens <= rows:
            raise ValueError(f"step_tokens must be more than max_rows x (1 + speculate) = {rows}, got {step_tokens}")
        if packed and not can_pack(decoder.head_weight):
            raise ValueError(
                f"packed needs a CPU and torch with oneDNN, the decoder is on {decoder.head_weight.device}"
            )
        if int8 and (packed or decoder.head_weight.device.type != "cpu"):
            raise ValueError(
                f"int8 needs a CPU and no packed weights, got {decoder.head_weight.device} and packed={packed}"
            )
        if invariant and not (native and not packed and not int8):
            raise ValueError(
                "invariant decoding is native, with neither packed nor int8 weights: give native=True alone"
            )
        if native:
            reason = (
                "it has no budget: leave kv_tokens out" if kv_tokens else why_not(decoder.config, decoder.head_weight)
            )
            if reason is not None:
                raise ValueError(f"native decoding cannot run: {reason}")
            library()  # compiled now, or refused
        compiled = native and not packed and not int8 and multiplies(decoder.head_weight.dtype)
        self.kind: Kind = "int8" if int8 else "compiled" if compiled else "tiled" if invariant else "plain"
        self.decoder, self.tokenizer, self.packed, self.native, self.int8 = decoder, tokenizer, packed, native, int8
        if graphs and (reason := graphs_why_not(decoder.config, decoder.head_weight.device, kv_tokens, speculate)):
            raise ValueError(f"graphs cannot be captured: {reason}")
        self.capture = cuda_capture if graphs else None
        self.invariant = invariant
        self.max_rows, self.cohort_rows = max_rows, cohort_rows
        self.kv_tokens, self.kv_block, self.speculate = kv_tokens, kv_block, speculate
        self.step_tokens = rows + 512 if step_tokens is None else step_tokens
        self.stats = SamplerStats()
        self.version = 0
        self.asleep = False
        self._batches: weakref.WeakSet[Batch] = weakref.WeakSet()  # calls whose completions are being taken

    def sample(
        self,
        requests: Iterable[Request | None],
        params: SamplingParams,
        *,
        on_step: Callable[[SamplerStats], None] | None = None,
    ) -> Iterator[Completion]:
        """Completions as they finish: one for each seed of each request.

        requests: a sequence is checked whole before anything is drawn. Any other iterable is pulled as there is room,
        while the batch runs, and checked as it comes; it may give None where nothing has come yet.
        on_step: called between two tokens; may call ``cancel``, ``update_weights`` and ``sleep``.
        Raises ValueError where a prompt and its answer do not fit into the decoder's positions or the budget, or a
        prompt's token id is outside its vocabulary.
        """
        self._awake()
        if isinstance(requests, Sequence):
            for request in requests:
                self._check(request, params)
        if self.speculate and params.penalises:
            raise ValueError("speculate and penalties do not go together: a penalty changes with every token")
        self.stats = SamplerStats()
        return self._drawn(requests, params, on_step)

    def cancel(self, request_id: str) -> None:
        """Draw no more of this request's samples: those not yet finished are answered as "cancelled" with what they
        have. Holds to the end of the calls of ``sample`` that are being taken from now.
        """
        for batch in self._batches:
            batch.cancel(request_id)

    @torch.inference_mode()
    def update_weights(self) -> int:
        """The decoder's weights were changed in place: the next token of every sample is drawn with them.

        Keys and values of live samples stay, as computed by the weights before (as PipelineRL does, Piche et al. 2025);
        prompts that wait to be shared and the prefix cache are dropped. Returns the new version, which ``Completion``
        records by token. Call it between completions, or from ``on_step``.
        """
        self.version += 1
        if self._batches and not self.asleep:
            weights = self._weights()
            for batch in self._batches:
                batch.update(weights, self.version)
        return self.version

    def sleep(self) -> None:
        """Give the memory of keys, values and copied weights back; live samples are computed again after ``wake``.

        Raises ValueError in the middle of a call without a budget.
        """
        for batch in self._batches:
            batch.sleep()
        self.asleep = True

    @torch.inference_mode()
    def wake(self) -> None:
        """Go on with the decoder's weights as they are now. Call ``update_weights`` too where they changed."""
        self.asleep = False
        if self._batches:
            weights = self._weights()
            for batch in self._batches:
                batch.update(weights, self.version)

    def _weights(self) -> Weights:
        return weights_of(
            self.decoder,
            packed_rows=self.max_rows if self.packed else 0,
            native_rows=self.max_rows if self.native else 0,
            kind=self.kind,
        )

    def _awake(self) -> None:
        if self.asleep:
            raise ValueError("the sampler sleeps: call wake before it is asked for completions")

    def _drawn(
        self,
        requests: Iterable[Request | None],
        params: SamplingParams,
        on_step: Callable[[SamplerStats], None] | None,
    ) -> Iterator[Completion]:
        with torch.inference_mode():
            batch = self._batch(requests, params)
        batch.rows.version = self.version
        self._batches.add(batch)
        try:
            while batch.busy:
                self._awake()
                with torch.inference_mode():
                    done = batch.advance()
                yield from done
                if on_step is not None:
                    on_step(batch.stats)
        finally:
            self._batches.discard(batch)

    def _batch(self, requests: Iterable[Request | None], params: SamplingParams) -> Batch:
        if not isinstance(requests, Sequence):
            requests = self._checked(requests, params)
        if self.kv_tokens is None:
            return ContiguousBatch(
                self._weights(),
                self.tokenizer,
                requests,
                params,
                self.stats,
                max_rows=self.max_rows,
                cohort_rows=self.cohort_rows,
                alone=self.invariant,
            )
        return PagedBatch(
            self._weights(),
            self.tokenizer,
            requests,
            params,
            self.stats,
            max_rows=self.max_rows,
            blocks=self.kv_tokens // self.kv_block,
            block=self.kv_block,
            step_tokens=self.step_tokens,
            ahead=self.speculate,
            capture=self.capture,
        )

    def _checked(self, requests: Iterable[Request | None], params: SamplingParams) -> Iterator[Request | None]:
        for request in requests:
            self._check(request, params)
            yield request

    def _check(self, request: Request | None, params: SamplingParams) -> None:
        if request is None:
            return
        limit, vocabulary = self.decoder.config.max_position_embeddings, self.decoder.config.vocab_size
        ids, tokens = request.token_ids, len(request.token_ids) + params.max_new_tokens
        if tokens > limit:
            raise ValueError(
                f"request {request.id!r}: {len(ids)} prompt tokens and max_new_tokens={params.max_new_tokens} pass "
                f"the policy's {limit} positions: lower max_new_tokens or drop the prompt"
            )
        if not 0 <= min(ids) <= max(ids) < vocabulary:
            raise ValueError(
                f"request {request.id!r}: token ids span {min(ids)} to {max(ids)}, the policy's vocabulary "
                f"is 0 to {vocabulary - 1}: encode the prompt with the policy's own tokenizer"
            )
        if self.kv_tokens is not None and -(-tokens // self.kv_block) > self.kv_tokens // self.kv_block:
            raise ValueError(
                f"request {request.id!r}: {len(ids)} prompt tokens and max_new_tokens={params.max_new_tokens} need "
                f"more than kv_tokens={self.kv_tokens} in blocks of {self.kv_block}: raise it or drop the prompt"
            )
