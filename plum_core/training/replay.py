"""Supervised examples that come with each step of a round."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from plum_core.objectives import sft
from plum_core.seeds import coordinate_seed
from plum_core.training.batches import Example, split
from plum_core.training.flops import FlopCount
from plum_core.training.logps import completion_logps
from plum_core.training.metrics import StepMetrics
from plum_core.training.preference_config import PreferenceConfig
from plum_core.training.sharding import even, idle
from plum_core.training.world import World
from plum_models.decoder import Decoder


@lru_cache(maxsize=4)
def _order(seed: int, turn: int, count: int) -> list[int]:
    """The order of the ``turn``-th pass over the replay set."""
    generator = torch.Generator().manual_seed(coordinate_seed(seed, "replay", turn))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


class Replay:
    """Endless passes over ``examples``, each in an order of its own, some at each step."""

    def __init__(
        self, decoder: Decoder, examples: Sequence[Example], config: PreferenceConfig, seed: int, world: World
    ) -> None:
        self.decoder, self.examples, self.config, self.seed, self.world = decoder, examples, config, seed, world
        self.flops = FlopCount(decoder)

    def drawn(self, step: int) -> list[Example]:
        """The examples of ``step``."""
        count = self.config.replay_examples_per_step
        return [self._at(step * count + i) for i in range(count)] if self.examples else []

    def backward(self, step: int, metrics: StepMetrics) -> None:
        """Add this rank's part of the gradient: ``replay_weight`` times the mean over tokens of their nats."""
        drawn = self.drawn(step)
        if not (drawn and self.config.replay_weight):
            return
        tokens = sum(len(e.completion_ids) for e in drawn)
        mine = self.world.share(sorted(range(len(drawn)), key=lambda i: len(drawn[i])))
        groups = split(mine, [(1, len(e)) for e in drawn], self.config.micro_batch_tokens)
        for group in even(groups, self.decoder, self.world):
            if not group:
                idle(self.decoder)
                continue
            examples = [drawn[i] for i in group]
            metrics.total("tokens", sum(map(len, examples)))
            metrics.total("flops", self.flops(examples))
            logps = completion_logps(self.decoder, examples)
            loss = -self.config.replay_weight * logps.sum() / tokens
            lengths = torch.tensor([len(e.completion_ids) for e in examples], device=logps.device)
            metrics.mean("nll/replay", sft(logps, lengths).losses)
            metrics.total("loss", loss.detach())
            loss.backward()

    def _at(self, position: int) -> Example:
        turn, place = divmod(position, len(self.examples))
        return self.examples[_order(self.seed, turn, len(self.examples))[place]]
