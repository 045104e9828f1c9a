"""The plan of a policy-gradient round on graded samples, and the gradient of each of its steps.

The loss of a step over the B samples of its batch, on every rank and micro-batch alike:

    mean over B of the objective (dapo: mean over the batch's tokens)
    + replay_weight * mean over the tokens of the replayed supervised examples of their nats

Ratios are to the log-probs that were stored with the samples, so they are 1 at the first step up to rounding where
the policy in training drew them; ``ratio`` in the metrics says so. With ``groups.rescore`` they are to what the same
forward says of the same micro-batches before the first step, and 1 to the bit: what the sampler rounds otherwise, or
computes in fewer bits, is then no step of the policy; ``kl/sampler`` still tells it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from plum_core.objectives import Objective, find_objective
from plum_core.seeds import coordinate_seed
from plum_core.training.batches import Example, split
from plum_core.training.flops import FlopCount
from plum_core.training.groups import GroupItem
from plum_core.training.items import plan_epochs
from plum_core.training.logps import padded_logps
from plum_core.training.metrics import StepMetrics
from plum_core.training.preference_config import PreferenceConfig
from plum_core.training.reference import reference_logps
from plum_core.training.replay import Replay
from plum_core.training.sharding import even, idle
from plum_core.training.world import World
from plum_models.decoder import Decoder


class GroupRound:
    """A round's plan and the gradient of each of its steps."""

    def __init__(
        self,
        decoder: Decoder,
        items: Sequence[GroupItem],
        replay: Sequence[Example],
        config: PreferenceConfig,
        seed: int,
        world: World,
    ) -> None:
        self.decoder, self.items = decoder, items
        self.config, self.seed, self.world = config, seed, world
        self.replay = Replay(decoder, replay, config, seed, world)
        self.device = next(decoder.parameters()).device
        self.costs = [item.cost for item in items]
        self.plan = plan_epochs(self.costs, config.tokens_per_batch, config.epochs, seed)
        self.spec = find_objective(config.objective, config.options)
        self.options: dict[str, Any] = dict(config.options)
        self.needs_reference = bool(self.options.get("beta"))  # what weighs the KL
        self.ref: dict[Example, Tensor] = {}
        self.old = [torch.tensor(item.old, dtype=torch.float32) for item in items]
        self.flops = FlopCount(decoder)

    @torch.no_grad()
    def rescore(self) -> None:
        """``old`` anew, by the decoder as it is; of each item in the first micro-batch that it will be part of."""
        if not self.config.groups.rescore:
            return
        sizes, seen = [len(row) for row in self.old], set[int]()
        rows = list(torch.zeros(sum(sizes)).split(sizes))
        for batch in self.plan:
            if seen.issuperset(batch):
                continue
            for micro in even(self._micros(batch), self.decoder, self.world):
                if not micro:
                    idle(self.decoder)
                    continue
                logps = padded_logps(self.decoder, [self.items[i].example for i in micro]).cpu()
                for i, row in zip(micro, logps, strict=True):
                    if i not in seen:
                        rows[i].copy_(row[: sizes[i]])
            seen.update(batch)
        self.old = list(self.world.all_reduce(torch.cat(rows)).split(sizes))

    def _micros(self, batch: list[int]) -> list[list[int]]:
        """This rank's share of a step's items, a forward each."""
        return split(self.world.share(batch), self.costs, self.config.micro_batch_tokens)

    def add_reference(self, reference: Decoder, folder: Path) -> None:
        """Log-probs of every token, where the objective weighs a KL; ``reference`` is not needed afterwards."""
        if not self.needs_reference:
            return
        unique = list(dict.fromkeys(item.example for item in self.items))
        logps = reference_logps(
            reference,
            unique,
            folder / "reference.safetensors",
            tokens_per_batch=self.config.micro_batch_tokens or self.config.tokens_per_batch,
            world=self.world,
            per_token=True,
        )
        parts = logps.split([len(e.completion_ids) for e in unique])
        self.ref = dict(zip(unique, parts, strict=True))

    def tensors(self) -> dict[str, Tensor]:
        """Nothing is carried from step to step."""
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Nothing to go on from."""

    def metrics(self) -> StepMetrics:
        names = ["reward", "ratio", "completions/mean_length", "logps", "kl/sampler", "nll/replay"]
        own = self.spec.on_nothing(self.config.options).metrics
        return StepMetrics(means=[*names, *own], totals=["loss", "tokens", "flops"])

    def __call__(self, step: int) -> StepMetrics:
        """Accumulate this rank's part of the gradient of ``step``."""
        metrics = self.metrics()
        batch = self.plan[step]
        if self.config.lora.rank and self.config.lora.dropout:  # its draws are the step's own, also after a resume
            torch.manual_seed(coordinate_seed(self.seed, "dropout", step, self.world.rank))
        mean_length = sum(len(self.items[i].old) for i in batch) / len(batch)
        for micro in even(self._micros(batch), self.decoder, self.world):
            if micro:
                self._backward(micro, len(batch), mean_length, metrics)
            else:
                idle(self.decoder)
        self.replay.backward(step, metrics)
        return metrics

    def _padded(self, rows: Sequence[Sequence[float] | Tensor]) -> Tensor:
        """(N, T) fp32, 0 past each row's end."""
        return pad_sequence([torch.as_tensor(row, dtype=torch.float32) for row in rows], batch_first=True).to(
            self.device
        )

    def _backward(self, micro: Sequence[int], batch_size: int, mean_length: float, metrics: StepMetrics) -> None:
        """Gradient of one micro-batch, its means taken over the whole step's counts."""
        items = [self.items[i] for i in micro]
        metrics.total("tokens", sum(len(item.example) for item in items))
        metrics.total("flops", self.flops([item.example for item in items]))
        logps = padded_logps(self.decoder, [item.example for item in items])
        old, drawn = self._padded([self.old[i] for i in micro]), self._padded([item.old for item in items])
        lengths = torch.tensor([len(item.old) for item in items], device=self.device)
        mask = torch.arange(logps.shape[1], device=self.device) < lengths.unsqueeze(1)
        advantages = torch.tensor([item.advantage for item in items], dtype=torch.float32, device=self.device)
        objective = self._objective(items, logps, old, advantages, mask, mean_length)
        for name, values in objective.metrics.items():
            metrics.mean(name, values)
        metrics.mean("reward", torch.tensor([item.reward for item in items]))
        metrics.mean("ratio", torch.exp((logps.detach() - old)[mask].clamp(max=20)))
        metrics.mean("completions/mean_length", lengths)
        metrics.mean("logps", logps.detach().sum(1))
        gaps = (drawn - logps.detach())[mask].clamp(max=20)
        metrics.mean("kl/sampler", torch.exp(gaps) - gaps - 1)  # Schulman's third estimator, never below 0
        loss = objective.losses.sum() / batch_size
        metrics.total("loss", loss.detach())
        loss.backward()

    def _objective(
        self,
        items: Sequence[GroupItem],
        logps: Tensor,
        old: Tensor,
        advantages: Tensor,
        mask: Tensor,
        mean_length: float,
    ) -> Objective:
        if self.config.objective == "rloo":
            return self.spec.compute(logps.sum(1), old.sum(1), advantages, **self.options)
        if self.config.objective == "dapo":
            length = torch.tensor(mean_length, device=self.device)
            return self.spec.compute(logps, old, advantages, mask, length, **self.options)
        reference = self._padded([self.ref[item.example] for item in items]) if self.needs_reference else None
        return self.spec.compute(logps, old, advantages, mask, reference, **self.options)
