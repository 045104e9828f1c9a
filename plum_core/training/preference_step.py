"""The plan of a round and the gradient of each of its steps.

The loss of a step, over the B pairs (or labels) of its batch and on every rank and micro-batch alike:

    mean over B of the objective
    + nll_weight    * mean over the chosen completions of their nats a token
    + replay_weight * mean over the tokens of the replayed supervised examples of their nats
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plum_core.objectives import balanced_weights, derangement, find_objective, mismatch_kl, sft
from plum_core.seeds import coordinate_seed
from plum_core.training.batches import Example, plan_batches, split
from plum_core.training.logps import completion_logps
from plum_core.training.metrics import StepMetrics
from plum_core.training.optim import OptimConfig
from plum_core.training.options import StepOptions
from plum_core.training.reference import reference_logps
from plum_core.training.world import World
from plum_models.decoder import Decoder
from plum_models.lora import DEFAULT_TARGETS, LoraConfig
from plum_models.recompute import check_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Adapters in place of all weights (``plum_models.lora``); rank 0: all weights are trained."""

    rank: int = 0
    alpha: float = 32.0  # the adapter's share is alpha / rank
    dropout: float = 0.0
    targets: tuple[str, ...] = DEFAULT_TARGETS  # names of linear layers

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ValueError(f"rank must be 0 (train all weights) or more, got {self.rank}")
        LoraConfig(rank=self.rank or 1, alpha=self.alpha, dropout=self.dropout, targets=self.targets)

    @property
    def config(self) -> LoraConfig | None:
        """What ``add_lora`` takes; None where all weights are trained."""
        if not self.rank:
            return None
        return LoraConfig(rank=self.rank, alpha=self.alpha, dropout=self.dropout, targets=self.targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceConfig(StepOptions):
    """Settings of a round. An option that is None is the objective's own default; one it lacks is refused."""

    objective: str = "dpo"  # a name of plum_core.objectives; rft: the likelihood of the chosen alone
    beta: float | None = None
    label_smoothing: float | None = None  # of dpo, robust_dpo, exo, cpo, simpo, aot
    gamma: float | None = None  # of simpo: the margin that is asked for
    penalty: float | None = None  # of dpop
    sums: float | None = None  # of ipo: 1 for log-probs summed over tokens, 0 for a mean
    desirable_weight: float | None = None  # of kto; both None: from the class balance
    undesirable_weight: float | None = None
    nll_weight: float = 2.0
    replay_weight: float = 1.0
    replay_examples_per_step: int = 57
    epochs: int = 2
    tokens_per_batch: int = 8000  # padded tokens of a step, over all ranks
    micro_batch_tokens: int | None = None  # padded tokens of one forward; None: a rank's share at once
    checkpointing: str = "none"  # activations that backward computes again: none, matmuls, every N, full
    average_last: float = 2 / 3
    save_every: int = 20
    keep_last: int = 2
    lora: LoraSettings = field(default_factory=LoraSettings)
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        StepOptions.__post_init__(self)
        find_objective(self.objective, self.options)
        check_policy(self.checkpointing)
        for name in ("nll_weight", "replay_weight", "replay_examples_per_step"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if find_objective(self.objective).whole_batch and self.micro_batch_tokens is not None:
            raise ValueError(
                f"{self.objective} compares a whole batch: leave micro_batch_tokens out, got {self.micro_batch_tokens}"
            )
        if self.objective == "rft" and self.nll_weight == 0:
            raise ValueError("rft is the NLL term alone: nll_weight must be > 0, got 0")
        if self.epochs < 1:
            raise ValueError(f"epochs must be >= 1, got {self.epochs}")

    @property
    def options(self) -> dict[str, float]:
        """The objective's options that were set."""
        names = ("beta", "label_smoothing", "gamma", "penalty", "sums", "desirable_weight", "undesirable_weight")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What is learned from as one: a pair (chosen, rejected), or one labelled completion."""

    examples: tuple[Example, ...]
    desirable: bool = True

    @property
    def cost(self) -> tuple[int, int]:
        """(rows, width in tokens)."""
        return len(self.examples), max(map(len, self.examples))


@lru_cache(maxsize=4)
def _order(seed: int, turn: int, count: int) -> list[int]:
    """The order of the ``turn``-th pass over the replay set."""
    generator = torch.Generator().manual_seed(coordinate_seed(seed, "replay", turn))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


class Round:
    """A round's plan and the gradient of each of its steps."""

    def __init__(
        self,
        decoder: Decoder,
        items: Sequence[Item],
        replay: Sequence[Example],
        config: PreferenceConfig,
        seed: int,
        world: World,
    ) -> None:
        self.decoder, self.items, self.replay = decoder, items, replay
        self.config, self.seed, self.world = config, seed, world
        self.device = next(decoder.parameters()).device
        self.costs = [item.cost for item in items]
        self.plan = [
            batch
            for epoch in range(config.epochs)
            for batch in plan_batches(self.costs, config.tokens_per_batch, coordinate_seed(seed, "epoch", epoch))
        ]
        self.spec = find_objective(config.objective, config.options)
        if self.spec.whole_batch and world.size > 1:
            raise ValueError(f"{config.objective} compares a whole batch: run it on one process, got {world.size}")
        self.options: dict[str, Any] = dict(config.options)
        if config.objective == "kto" and not self.options.keys() & {"desirable_weight", "undesirable_weight"}:
            wanted = sum(item.desirable for item in items)
            weights = balanced_weights(wanted, len(items) - wanted)
            self.options |= zip(("desirable_weight", "undesirable_weight"), weights, strict=True)
        self.mismatched = self._mismatched() if config.objective == "kto" else []
        self.ref: dict[Example, float] = {}

    def _mismatched(self) -> list[list[Example]]:
        """For each step and each item of its batch: its prompt with another item's completion."""
        steps = []
        for step, batch in enumerate(self.plan):
            own = [self.items[i].examples[0] for i in batch]
            given = derangement([e.prompt_ids for e in own], coordinate_seed(self.seed, "kl", step))
            steps.append(
                [
                    Example(prompt_ids=e.prompt_ids, completion_ids=own[j].completion_ids)
                    for e, j in zip(own, given, strict=True)
                ]
                if len(own) > 1
                else []  # a completion with its own prompt says nothing about the KL
            )
        return steps

    def add_reference(self, reference: Decoder, folder: Path) -> None:
        """Log-probs of everything that will be compared; ``reference`` is not needed afterwards."""
        if not self.spec.needs_reference:
            return
        groups = [*(item.examples for item in self.items), *self.mismatched]
        unique = list(dict.fromkeys(e for group in groups for e in group))
        logps = reference_logps(
            reference,
            unique,
            folder / "reference.safetensors",
            tokens_per_batch=self.config.micro_batch_tokens or self.config.tokens_per_batch,
            world=self.world,
        )
        self.ref = dict(zip(unique, logps.tolist(), strict=True))

    def metrics(self) -> StepMetrics:
        means = ["logps/chosen", "nll/chosen", "nll/replay"]
        if self.spec.data != "completions":
            means += ["rewards/chosen", "rewards/rejected", "logps/rejected"]
        if self.spec.data == "pairs":
            means += ["rewards/accuracies", "rewards/margins"]
        totals = ["loss", "tokens", "kl"] if self.config.objective == "kto" else ["loss", "tokens"]
        return StepMetrics(means=means, totals=totals)

    def __call__(self, step: int) -> StepMetrics:
        """Accumulate this rank's part of the gradient of ``step``."""
        metrics = self.metrics()
        batch = self.plan[step]
        if self.config.lora.rank and self.config.lora.dropout:  # its draws are the step's own, also after a resume
            torch.manual_seed(coordinate_seed(self.seed, "dropout", step, self.world.rank))
        kl = self._kl(step, metrics) if self.config.objective == "kto" else None
        chosen = sum(self.items[i].desirable for i in batch)
        for micro in split(self.world.share(batch), self.costs, self.config.micro_batch_tokens):
            self._backward([self.items[i] for i in micro], len(batch), chosen, kl, metrics)
        self._replay(step, metrics)
        return metrics

    def _logps(self, examples: Sequence[Example], metrics: StepMetrics) -> Tensor:
        metrics.total("tokens", sum(map(len, examples)))
        return completion_logps(self.decoder, examples)

    def _lengths(self, examples: Sequence[Example]) -> Tensor:
        return torch.tensor([len(e.completion_ids) for e in examples], device=self.device)

    def _reference(self, examples: Sequence[Example]) -> Tensor:
        return torch.tensor([self.ref[e] for e in examples], dtype=torch.float32, device=self.device)

    @torch.no_grad()
    def _kl(self, step: int, metrics: StepMetrics) -> Tensor:
        """KTO's reference point over the whole batch of ``step``, on every rank the same."""
        examples = self.mismatched[step]
        mine = self.world.share(sorted(range(len(examples)), key=lambda i: len(examples[i])))
        ratios = torch.zeros((), dtype=torch.float64, device=self.device)
        for group in split(mine, [(1, len(e)) for e in examples], self.config.micro_batch_tokens):
            part = [examples[i] for i in group]
            ratios += (self._logps(part, metrics) - self._reference(part)).double().sum()
        total = self.world.all_reduce(ratios) / max(1, len(examples))
        kl = mismatch_kl(total.float().reshape(1), torch.zeros(1, device=self.device))
        metrics.total("kl", float(kl) / self.world.size)
        return kl

    def _backward(
        self, items: Sequence[Item], batch_size: int, chosen: int, kl: Tensor | None, metrics: StepMetrics
    ) -> None:
        """Gradient of one micro-batch, its means taken over the whole step's counts."""
        good = [item.examples[0] for item in items if item.desirable]
        bad = [item.examples[-1] for item in items if len(item.examples) == 2 or not item.desirable]
        good_logps, bad_logps = self._logps(good + bad, metrics).split([len(good), len(bad)])
        nll = sft(good_logps, self._lengths(good))
        loss = self.config.nll_weight * nll.losses.sum() / max(1, chosen)
        if self.spec.data != "completions":
            arguments = [good_logps, bad_logps]
            if self.spec.needs_reference:
                arguments += [self._reference(good), self._reference(bad)]
            given = {} if kl is None else {"kl": kl}
            if self.spec.needs_lengths:
                given = {"chosen_lengths": self._lengths(good), "rejected_lengths": self._lengths(bad)}
            objective = self.spec.compute(*arguments, **given, **self.options)
            loss = loss + objective.losses.sum() / batch_size
            for name, values in objective.metrics.items():
                if name != "kl":
                    metrics.mean(name, values)
        else:
            metrics.mean("logps/chosen", good_logps)
        metrics.mean("nll/chosen", nll.losses)
        metrics.total("loss", loss.detach())
        loss.backward()

    def _replay(self, step: int, metrics: StepMetrics) -> None:
        """Gradient of the supervised examples that come with ``step``."""
        count = self.config.replay_examples_per_step
        if not (self.replay and count and self.config.replay_weight):
            return
        drawn = [self._replayed(step * count + i) for i in range(count)]
        tokens = sum(len(e.completion_ids) for e in drawn)
        mine = self.world.share(sorted(range(count), key=lambda i: len(drawn[i])))
        for group in split(mine, [(1, len(e)) for e in drawn], self.config.micro_batch_tokens):
            examples = [drawn[i] for i in group]
            logps = self._logps(examples, metrics)
            loss = -self.config.replay_weight * logps.sum() / tokens
            metrics.mean("nll/replay", sft(logps, self._lengths(examples)).losses)
            metrics.total("loss", loss.detach())
            loss.backward()

    def _replayed(self, position: int) -> Example:
        """The ``position``-th of endless passes over the replay set, each in an order of its own."""
        turn, place = divmod(position, len(self.replay))
        return self.replay[_order(self.seed, turn, len(self.replay))[place]]
