"""The one training loop: gradients of a step, summed over ranks, clipped, applied, averaged, checkpointed."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from plum_core.training.averaging import WeightAverage
from plum_core.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from plum_core.training.flops import timed
from plum_core.training.masters import Masters
from plum_core.training.metrics import StepMetrics, peak_memory_mib
from plum_core.training.optim import (
    OptimConfig,
    build_optimizers,
    optimizer_tensors,
    rate_factor,
    restore_optimizers,
    set_rates,
    trained,
)
from plum_core.training.options import StepOptions, best_score
from plum_core.training.sharding import agree, clip, release
from plum_core.training.stop import Stopped, deferred, stop_asked
from plum_core.training.world import World

# step (from 0) -> its metrics, with this rank's part of the gradient added into each weight's .grad
GradientStep = Callable[[int], StepMetrics]
OnMetrics = Callable[[dict[str, float]], None]
# what a run may change when it goes on
INCIDENTAL = (
    *("save_every", "keep_last", "keep_best", "peak_tflops"),
    *("micro_batch_tokens", "checkpointing", "shard", "tensor_parallel", "compile"),
)


class Carried(Protocol):
    """What a run carries from step to step beside weights and optimizer: a moving reference, a running mean."""

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint; may be empty."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """From one that held some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig(StepOptions):
    """How many steps, and what is kept on the way."""

    total_steps: int
    optim: OptimConfig
    average_last: float = 0.0  # share of the steps whose weights are averaged; 0 hands on the last weights
    save_every: int = 50  # steps
    keep_last: int = 2  # checkpoints

    def __post_init__(self) -> None:
        StepOptions.__post_init__(self)
        if self.total_steps < 1 or self.save_every < 1 or self.keep_last < 1:
            raise ValueError(
                "total_steps, save_every and keep_last must be >= 1, got "
                f"{self.total_steps}, {self.save_every} and {self.keep_last}"
            )
        if not 0 <= self.average_last <= 1:
            raise ValueError(f"average_last must be in [0, 1], got {self.average_last}")

    @property
    def first_averaged(self) -> int:
        """The step (from 0) after which averaging starts."""
        return math.floor(self.total_steps * (1 - self.average_last) + 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """``rows``: every step's metrics, those of earlier sittings included. The weights are in the decoder."""

    steps: int
    rows: tuple[dict[str, float], ...]
    resumed_from: int  # steps that were done before this sitting
    averaged: int  # steps whose weights the result is the mean of; 0: it is the last weights


def weights_digest(module: nn.Module) -> str:
    """16 hex digits over names, types and bytes of all weights."""
    digest = hashlib.sha256()
    for name, weight in module.state_dict().items():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def digest_of(*parts: Any) -> str:
    """16 hex digits over the JSON form of ``parts``."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def essential(config: Any) -> dict[str, Any]:
    """The fields of a training config that decide the weights; how often they are saved does not."""
    return {name: value for name, value in asdict(config).items() if name not in INCIDENTAL}


def _reduce(weights: Sequence[Tensor], vector: Tensor, world: World) -> Tensor:
    """Sum gradients (one flat buffer) and metrics over ranks; every weight has a gradient afterwards."""
    for w in weights:
        if w.grad is None:
            w.grad = torch.zeros_like(w)
    agree(weights)
    if world.size > 1 and not any(isinstance(w, DTensor) for w in weights):  # of parts, FSDP has summed them
        flat = world.all_reduce(torch.cat([w.grad.flatten() for w in weights if w.grad is not None]))
        for w, part in zip(weights, flat.split([w.numel() for w in weights]), strict=True):
            w.grad = part.view_as(w)
    return world.all_reduce(vector)


class _Training:
    """State of a run: what a checkpoint holds, and one step of it."""

    def __init__(
        self,
        decoder: nn.Module,
        config: LoopConfig,
        folder: Path,
        fingerprint: str,
        world: World,
        carried: Carried | None,
        at: Tensor,
    ) -> None:
        self.decoder, self.config, self.folder, self.world = decoder, config, folder, world
        self.masters = decoder if isinstance(decoder, Masters) else None
        self.carried = carried
        self.fingerprint = fingerprint
        self.weights = [weight for _, weight in trained(decoder)]
        self.optimizers = build_optimizers(decoder, config.optim)
        averaged = decoder if config.average_last else nn.Module()  # a mean of nothing takes no memory
        self.average = WeightAverage(averaged, config.first_averaged)
        self.rows: list[dict[str, float]] = []
        self.stopping = False  # SIGTERM came to some rank; every rank learns of it in the same step
        self.saved = 0  # steps of the newest checkpoint
        self.at = at

    def resume(self) -> int:
        """Take the newest checkpoint's state. Returns the number of steps that it had done, 0 without one."""
        found = load_checkpoint(self.folder, self._placed)
        if found is None:
            return 0
        if found.meta["fingerprint"] != self.fingerprint:
            raise ValueError(
                f"{self.folder / 'checkpoints'} belongs to other data, weights or settings: "
                "remove it or train into another folder"
            )
        with torch.no_grad():
            for name, weight in trained(self.decoder):
                weight.copy_(found.tensors["weights"][name])
        if self.masters:
            self.masters.publish()
        restore_optimizers(self.optimizers, found.tensors["optimizer"])
        self.average.restore(found.tensors["average"], found.meta["averaged"])
        if self.carried and "carried" in found.tensors:
            self.carried.restore(found.tensors["carried"])
        self.rows = found.meta["rows"]
        self.saved = found.step
        return found.step

    def save(self, steps: int) -> None:
        score = best_score(self.config.keep_best, self.rows[self.saved :])
        self.saved = steps
        state: dict[str, dict[str, Tensor]] = {
            "weights": {name: w.detach() for name, w in trained(self.decoder)},
            "optimizer": optimizer_tensors(self.optimizers),
            "average": self.average.tensors(),
        }
        if self.carried and (more := self.carried.tensors()):
            state["carried"] = more
        meta = {"fingerprint": self.fingerprint, "averaged": self.average.count, "rows": self.rows}
        checkpoint = Checkpoint(step=steps, tensors=state, meta=meta, score=score)
        save_checkpoint(self.folder, checkpoint, keep_last=self.config.keep_last, world=self.world)

    def _placed(self, file: str, name: str) -> Tensor | None:
        """The tensor as which one of a checkpoint is to lie: the weight, or the weight whose moment or mean it is."""
        if file == "optimizer":
            optimizer, weight, moment = name.split(".")
            groups = self.optimizers[int(optimizer)].param_groups
            part: Tensor = [w for group in groups for w in group["params"]][int(weight)]
            return None if moment == "step" else part
        return dict(trained(self.decoder)).get(name) if file in ("weights", "average") else None

    def step(self, step: int, gradients: GradientStep) -> dict[str, float]:
        """The row of metrics of one step."""
        start = time.perf_counter()
        row = self._step(step, gradients)
        return timed(row, time.perf_counter() - start, self.config.peak_tflops, self.at, self.world.size)

    def _step(self, step: int, gradients: GradientStep) -> dict[str, float]:
        for w in self.weights:
            w.grad = None
        metrics = gradients(step)
        beside = torch.zeros(1 + self.world.size, dtype=torch.float64)  # a place a rank: a maximum from a sum
        beside[0], beside[1 + self.world.rank] = float(stop_asked()), peak_memory_mib(self.at.device)
        first = self.world.rank % self.config.tensor_parallel == 0  # ranks that share matrices did the same items
        vector = _reduce(self.weights, torch.cat((metrics.vector() * first, beside)), self.world)
        stop, *memory = vector[-len(beside) :].tolist()
        self.stopping = stop > 0
        row = metrics.report(vector[: -len(beside)])
        norm = clip(self.weights, self.config.optim.clip_norm)
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"step {step + 1}: the gradient's norm is {norm} at loss {row.get('loss')}: "
                "lower the learning rate, or look for a broken example in this step's batch"
            )
        factor = rate_factor(self.config.optim, step, self.config.total_steps)
        set_rates(self.optimizers, self.config.optim, factor)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.masters:
            self.masters.publish()
        release(self.decoder)
        self.average.update(self.decoder, step)
        row |= {"grad_norm": norm, "learning_rate": self.config.optim.learning_rate * factor}
        row["num_tokens"] = row["tokens"] + (self.rows[-1]["num_tokens"] if self.rows else 0)
        return {"step": step + 1, **row, "peak_memory_mib": max(memory)}


def run_steps(
    decoder: nn.Module,
    gradients: GradientStep,
    config: LoopConfig,
    *,
    folder: Path,
    fingerprint: str,
    on_metrics: OnMetrics | None = None,
    world: World | None = None,
    carried: Carried | None = None,
    masters: Masters | None = None,
) -> TrainResult:
    """Train ``decoder`` in place, from ``folder``'s newest checkpoint where there is one.

    Killed at any moment and called again with the same arguments, it ends in the same weights to the last
    bit. ``fingerprint``: of data, first weights and settings; a checkpoint of another one is refused.
    ``on_metrics`` is called on rank 0 after each step of this sitting.

    masters: those of ``decoder`` where it is bf16 already; made here where ``config.optim.weights`` asks for them. The
    decoder comes out with the masters for weights. A ``sharded_twin`` is trained as it is; every rank writes its parts.

    SIGTERM, where the program listens to it (``ends_on_sigterm``), saves after the step in hand and raises Stopped.

    Raises ValueError where the weights are not fp32 (they are the master copy) or the checkpoint is another
    run's; FloatingPointError where a gradient is not finite, before it reaches the weights.
    """
    world = world or World()
    if masters is None and config.optim.weights == "bf16-master" and not isinstance(decoder, FSDPModule):
        masters = Masters(decoder)
    kept = masters or decoder
    wrong = {str(w.dtype) for _, w in trained(kept)} - {"torch.float32"}
    if wrong:
        raise ValueError(f"training keeps its weights in fp32, got {', '.join(sorted(wrong))}: call decoder.float()")
    at = next(decoder.parameters())  # where and in which type the products are made
    training = _Training(kept, config, Path(folder), fingerprint, world, carried, at)
    done = training.resume()
    with deferred():
        for step in range(done, config.total_steps):
            row = training.step(step, gradients)
            training.rows.append(row)
            if on_metrics is not None and world.is_main:
                on_metrics(row)
            if training.stopping or (step + 1) % config.save_every == 0 or step + 1 == config.total_steps:
                training.save(step + 1)
            if training.stopping:
                world.barrier()
                raise Stopped
    world.barrier()  # the last checkpoint is on disk before any rank goes on
    training.average.apply(kept)
    if masters:
        masters.give_back()
    for w in training.weights:
        w.grad = None
    return TrainResult(
        steps=config.total_steps,
        rows=tuple(training.rows),
        resumed_from=done,
        averaged=training.average.count,
    )
