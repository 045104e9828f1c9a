"""Supervised training from random or given weights, on a stream of prompts and completions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from plum_core.objectives import sft
from plum_core.training.batches import Example, split, stream_batches
from plum_core.training.flops import FlopCount
from plum_core.training.logps import completion_logps
from plum_core.training.loop import LoopConfig, OnMetrics, TrainResult, digest_of, essential, run_steps, weights_digest
from plum_core.training.metrics import StepMetrics
from plum_core.training.optim import OptimConfig
from plum_core.training.options import StepOptions
from plum_core.training.sharding import at_work, even, idle
from plum_core.training.world import World
from plum_models.decoder import Decoder
from plum_models.recompute import check_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class SftConfig(StepOptions):
    """Settings of supervised training."""

    steps: int
    tokens_per_batch: int = 2200  # padded tokens of a step, over all ranks
    micro_batch_tokens: int | None = None  # padded tokens of one forward; None: a rank's share at once
    window: int = 1024  # examples of the stream that are sorted into batches together
    score_prompt: bool = False  # learn the prompt's tokens too
    checkpointing: str = "none"  # activations that backward computes again: none, matmuls, every N, full
    average_last: float = 0.0
    save_every: int = 200
    keep_last: int = 2
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(learning_rate=2e-3, warmup_steps=30, schedule="wsd"))

    def __post_init__(self) -> None:
        StepOptions.__post_init__(self)
        check_policy(self.checkpointing)
        for name in ("steps", "tokens_per_batch", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")


class _Stream:
    """Batches of the stream in order; a resumed run passes over those that were trained on."""

    def __init__(
        self, decoder: Decoder, examples: Iterable[Example], config: SftConfig, seed: int, world: World
    ) -> None:
        self.decoder, self.config, self.world = decoder, config, world
        self.batches = stream_batches(examples, config.tokens_per_batch, seed, window=config.window)
        self.position = 0
        self.flops = FlopCount(decoder)

    def __call__(self, step: int) -> StepMetrics:
        batch = next(islice(self.batches, step - self.position, None), None)
        if batch is None:
            raise ValueError(
                f"the examples ended before step {step + 1} of {self.config.steps}: lower steps, or cycle the examples"
            )
        self.position = step + 1
        metrics = StepMetrics(means=["nll", "lengths"], totals=["loss", "tokens", "flops"])
        if self.config.score_prompt:
            batch = [e.with_scored_prompt() for e in batch]
        scored = sum(len(e.completion_ids) for e in batch)
        mine = self.world.share(list(range(len(batch))))
        groups = split(mine, [(1, len(e)) for e in batch], self.config.micro_batch_tokens)
        for group in even(groups, self.decoder, self.world):
            if not group:
                idle(self.decoder)
                continue
            examples = [batch[i] for i in group]
            logps = completion_logps(self.decoder, examples)
            loss = -logps.sum() / scored
            loss.backward()
            lengths = torch.tensor([len(e.completion_ids) for e in examples], device=logps.device)
            metrics.mean("lengths", lengths)
            metrics.mean("nll", sft(logps, lengths).losses)
            metrics.total("loss", loss.detach())
            metrics.total("tokens", sum(map(len, examples)))
            metrics.total("flops", self.flops(examples))
        return metrics


def train_sft(
    decoder: Decoder,
    examples: Iterable[Example],
    config: SftConfig,
    *,
    seed: int,
    folder: Path,
    on_metrics: OnMetrics | None = None,
    world: World | None = None,
) -> TrainResult:
    """Train ``decoder`` (fp32) in place to write each example's completion after its prompt.

    The loss of a step is the mean over its scored tokens of their nats, over all ranks. examples: a stream
    that begins anew with each call and is the same on every rank and after a kill (``cycle`` makes one of a
    fixed set); it must last for ``config.steps`` steps. Resumes exactly, as ``train_round`` does; the stream
    itself is not part of the checkpoint's fingerprint. Raises ValueError where it ends early.
    """
    world = world or World()
    decoder.checkpointing = config.checkpointing
    fingerprint = digest_of("sft", essential(config), weights_digest(decoder), seed)
    with at_work(decoder, config, world, bf16=config.optim.weights == "bf16-master") as (working, sharers):
        return run_steps(
            working,
            _Stream(working, examples, config, seed, sharers),
            LoopConfig(
                total_steps=config.steps,
                optim=config.optim,
                average_last=config.average_last,
                save_every=config.save_every,
                keep_last=config.keep_last,
                **config.options_of_the_step(),
            ),
            folder=folder,
            fingerprint=fingerprint,
            on_metrics=on_metrics,
            world=world,
        )
