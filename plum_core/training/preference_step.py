"""The plan of a round and the gradient of each of its steps.

The loss of a step, over the B pairs (or labels) of its batch and on every rank and micro-batch alike:

    mean over B of the objective
    + nll_weight    * mean over the chosen completions of their nats a token
    + replay_weight * mean over the tokens of the replayed supervised examples of their nats

Where the objective of one item depends on the others of its batch (``ObjectiveSpec.coupled``), a first pass without
gradients collects every log-prob, and the second propagates the objective's gradient with respect to each (the
gradient cache of Gao et al. 2021, arXiv 2101.06983): exact for any number of micro-batches and ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plum_core.objectives import Objective, RunningMean, balanced_weights, find_objective, mismatch_kl, sft
from plum_core.objectives.table import CLASS_WEIGHTS
from plum_core.seeds import coordinate_seed
from plum_core.training.batches import Example, split
from plum_core.training.flops import FlopCount
from plum_core.training.items import Item, Side, mismatched, plan_epochs, sides_of
from plum_core.training.logps import Scores, completion_logps, completion_scores
from plum_core.training.metrics import StepMetrics
from plum_core.training.moving import MovingReference
from plum_core.training.preference_config import PreferenceConfig
from plum_core.training.reference import reference_logps
from plum_core.training.replay import Replay
from plum_core.training.sharding import even, idle
from plum_core.training.world import World
from plum_models.decoder import Decoder

OF_THE_STEP = ("kl", "delta")  # metrics that a step has one of


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
        self.decoder, self.items = decoder, items
        self.config, self.seed, self.world = config, seed, world
        self.replay = Replay(decoder, replay, config, seed, world)
        self.device = next(decoder.parameters()).device
        self.costs = [item.cost for item in items]
        self.plan = plan_epochs(self.costs, config.tokens_per_batch, config.epochs, seed)
        self.spec = find_objective(config.objective, config.options)
        self.options: dict[str, Any] = {
            name: value for name, value in config.options.items() if name not in self.spec.weigh_options
        }
        if self.spec.options >= set(CLASS_WEIGHTS) and not self.options.keys() & set(CLASS_WEIGHTS):
            wanted = sum(item.desirable for item in items)
            self.options |= zip(CLASS_WEIGHTS, balanced_weights(wanted, len(items) - wanted), strict=True)
        self.mismatched = mismatched(items, self.plan, seed) if "kl" in self.spec.needs else []
        self.ref: dict[Example, float] = {}
        self.moving: MovingReference | None = None
        self.shift = RunningMean()
        self.flops = FlopCount(decoder)

    @property
    def needs_reference(self) -> bool:
        return self.spec.needs_reference

    def add_reference(self, reference: Decoder, folder: Path) -> None:
        """Log-probs of everything that will be compared, or a copy of ``reference`` where it moves.

        ``reference`` itself is not needed afterwards.
        """
        if not self.needs_reference:
            return
        if self.config.moving.every:
            self.moving = MovingReference(reference, self.config.moving)
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

    def tensors(self) -> dict[str, Tensor]:
        """What is carried from step to step beside the weights, for a checkpoint."""
        carried = {f"reference.{k}": w for k, w in self.moving.tensors().items()} if self.moving else {}
        return carried | ({"shift": self.shift.state} if "shift" in self.spec.needs else {})

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's ``tensors``."""
        if self.moving:
            self.moving.restore({k.removeprefix("reference."): w for k, w in tensors.items()})
        self.shift.state = tensors.get("shift", self.shift.state)

    def metrics(self) -> StepMetrics:
        means = ["logps/chosen", "lengths/chosen", "nll/chosen", "nll/replay"]
        totals = ["loss", "tokens", "flops"]
        if self.spec.data != "completions":
            means += ["rewards/chosen", "rewards/rejected", "logps/rejected", "lengths/rejected"]
            means += ["kl/reference"] if self.needs_reference else []
            own = self.spec.on_nothing(self.config.options).metrics
            means += [name for name in own if name not in (*means, *OF_THE_STEP)]
            totals += [name for name in OF_THE_STEP if name in own]
        return StepMetrics(means=means, totals=totals)

    def __call__(self, step: int) -> StepMetrics:
        """Accumulate this rank's part of the gradient of ``step``."""
        metrics = self.metrics()
        batch = self.plan[step]
        if self.moving:
            self.moving.follow(step, self.decoder)
        if self.config.lora.rank and self.config.lora.dropout:  # its draws are the step's own, also after a resume
            torch.manual_seed(coordinate_seed(self.seed, "dropout", step, self.world.rank))
        given = {"kl": self._kl(step, metrics)} if "kl" in self.spec.needs else {}
        micros = split(self.world.share(batch), self.costs, self.config.micro_batch_tokens)
        in_one = self.world.size == 1 and len(micros) == 1
        slopes = self._slopes(batch, metrics) if self.spec.coupled and not in_one else None
        for micro in even(micros, self.decoder, self.world):
            if micro:
                self._backward(micro, batch, given, slopes, metrics)
            else:
                idle(self.decoder)
        self.replay.backward(step, metrics)
        return metrics

    def _scores(self, examples: Sequence[Example], metrics: StepMetrics) -> Scores:
        metrics.total("tokens", sum(map(len, examples)))
        metrics.total("flops", self.flops(examples))
        return completion_scores(self.decoder, examples, alignment="alignment" in self.spec.needs)

    def _lengths(self, examples: Sequence[Example]) -> Tensor:
        return torch.tensor([len(e.completion_ids) for e in examples], device=self.device)

    @torch.no_grad()
    def _reference(self, examples: Sequence[Example]) -> Tensor:
        if self.moving:
            return completion_logps(self.moving.decoder, examples)
        return torch.tensor([self.ref[e] for e in examples], dtype=torch.float32, device=self.device)

    @torch.no_grad()
    def _kl(self, step: int, metrics: StepMetrics) -> Tensor:
        """KTO's reference point over the whole batch of ``step``, on every rank the same."""
        examples = self.mismatched[step]
        mine = self.world.share(sorted(range(len(examples)), key=lambda i: len(examples[i])))
        ratios = torch.zeros((), dtype=torch.float64, device=self.device)
        groups = split(mine, [(1, len(e)) for e in examples], self.config.micro_batch_tokens)
        for group in even(groups, self.decoder, self.world):
            if not group:
                idle(self.decoder)
                continue
            part = [examples[i] for i in group]
            ratios += (self._scores(part, metrics).logps - self._reference(part)).double().sum()
        total = self.world.all_reduce(ratios) / max(1, len(examples))
        kl = mismatch_kl(total.float().reshape(1), torch.zeros(1, device=self.device))
        metrics.total("kl", float(kl) / self.world.size)
        return kl

    def _objective(
        self, good: list[Example], bad: list[Example], logps: Tensor, given: dict[str, Any], metrics: StepMetrics
    ) -> Objective:
        """The objective of some items, the chosen of ``logps`` first; its metrics are taken in."""
        counts = [len(good), len(bad)]
        arguments = [*logps.split(counts)]
        if self.spec.needs_reference:
            reference = self._reference(good + bad)
            arguments += reference.split(counts)
            metrics.mean("kl/reference", logps.detach() - reference)
            if "shift" in self.spec.needs:  # coupled: called once a step, with all of it
                given = given | {"shift": self.shift.add(logps.detach() - reference)}
        if "lengths" in self.spec.needs:
            given = given | {"lengths": (self._lengths(good), self._lengths(bad))}
        objective = self.spec.compute(*arguments, **self.spec.named(given), **self.options)
        for name, values in objective.metrics.items():
            if name == "delta":
                metrics.total(name, float(values))
            elif name not in OF_THE_STEP:
                metrics.mean(name, values)
        return objective

    def _slopes(self, batch: Sequence[int], metrics: StepMetrics) -> dict[Side, float]:
        """A coupled objective's gradient with respect to each log-prob of the whole step, on every rank the same.

        Its tokens are not counted: the second pass counts them.
        """
        good, bad = sides_of(self.items, batch)
        place = {side: k for k, side in enumerate(good + bad)}
        logps = torch.zeros(len(place), device=self.device)
        with torch.no_grad():
            micros = split(self.world.share(list(batch)), self.costs, self.config.micro_batch_tokens)
            for micro in even(micros, self.decoder, self.world):
                if not micro:
                    idle(self.decoder)
                    continue
                sides = [side for part in sides_of(self.items, micro) for side in part]
                examples = [self.items[i].examples[which] for i, which in sides]
                logps[[place[side] for side in sides]] = completion_logps(self.decoder, examples)
        logps = self.world.all_reduce(logps).requires_grad_()
        examples = [self.items[i].examples[which] for i, which in place]
        # the other ranks know it too, and would count it again
        counted = metrics if self.world.is_main else self.metrics()
        objective = self._objective(examples[: len(good)], examples[len(good) :], logps, {}, counted)
        loss = objective.losses.sum() / len(batch)
        counted.total("loss", loss.detach())
        (slopes,) = torch.autograd.grad(loss, logps)
        return dict(zip(place, slopes.tolist(), strict=True))

    def _backward(
        self,
        items: Sequence[int],
        batch: Sequence[int],
        given: dict[str, Any],
        slopes: dict[Side, float] | None,
        metrics: StepMetrics,
    ) -> None:
        """Gradient of one micro-batch, its means taken over the whole step's counts."""
        sides = sides_of(self.items, items)
        good, bad = ([self.items[i].examples[which] for i, which in part] for part in sides)
        scores = self._scores(good + bad, metrics)
        nll = sft(scores.plain[: len(good)], self._lengths(good))
        chosen = sum(self.items[i].desirable for i in batch)
        loss = self.config.nll_share * nll.losses.sum() / max(1, chosen)
        metrics.mean("nll/chosen", nll.losses)
        metrics.mean("lengths/chosen", self._lengths(good))
        if bad:
            metrics.mean("lengths/rejected", self._lengths(bad))
        if self.spec.data == "completions":
            metrics.mean("logps/chosen", scores.logps)
        elif slopes is None:
            if scores.alignment is not None:
                given = given | {"alignment": scores.alignment.split([len(good), len(bad)])}
            loss = loss + self._objective(good, bad, scores.logps, given, metrics).losses.sum() / len(batch)
        metrics.total("loss", loss.detach())
        if slopes is not None:
            known = torch.tensor([slopes[side] for part in sides for side in part], device=self.device)
            loss = loss + (scores.logps * known).sum()
        loss.backward()
