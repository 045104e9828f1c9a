"""What the rounds do their work with: policies that are sampled, a sandbox that judges, and training."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch

import plum_models
from plum_core.execution import Executor
from plum_core.prompts import Prompts, PromptStyle
from plum_core.records import Instruction, Program, Verdict
from plum_core.rounds.config import ExecutionConfig
from plum_core.sampling import Completion, Request, Sampler, SamplingParams
from plum_core.training import Example, PreferenceConfig, Records, World, planned_steps, train_round

OnStep = Callable[[dict[str, float], int], None]  # a step's metrics, and how many steps there will be


class Policy(Protocol):
    """Weights that are sampled, and the tokenizer that belongs to them."""

    @property
    def fingerprint(self) -> str:
        """Of the weights."""

    @property
    def parameters(self) -> int:
        """How many."""

    def render(self, instruction: Instruction) -> str:
        """The text that it continues."""

    def ask(self, text: str) -> str:
        """The prompt of a supervised example as it reads it."""

    def program(self, instruction: Instruction, text: str) -> str:
        """The whole program of a sampled ``text``."""

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        """Token ids of a prompt, a leading special token included where the policy has one."""

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """Token ids of a conversation in the policy's chat template. Raises ValueError where it has none."""

    def encode_completion(self, text: str) -> tuple[int, ...]:
        """Token ids of a completion that ends."""

    def sample(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Completion]:
        """One completion for each seed of each request, as they finish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """``rows``: one of metrics a step."""

    steps: int
    rows: tuple[dict[str, float], ...]
    fingerprint: str


class Engine(Protocol):
    """All that the loop asks of models and processes; tests put something small in its place."""

    def policy(self, folder: Path) -> Policy:
        """The policy of a checkpoint folder; the one before it may leave memory."""

    def judge(self, programs: Iterable[Program]) -> Iterator[Verdict]:
        """One verdict a program, as they finish."""

    def train(
        self,
        start: Path,
        reference: Path,
        records: Records,
        replay: Sequence[tuple[str, str]],
        *,
        config: PreferenceConfig,
        seed: int,
        folder: Path,
        out: Callable[[int], Path],
        on_step: OnStep,
    ) -> Trained:
        """Train the policy of ``start`` and save it to ``out(steps)``, whole or not at all; resumes in ``folder``.

        ``on_step`` is called on rank 0, for the steps of this sitting.
        """

    def close(self) -> None:
        """End what runs beside this process."""


def find_device(name: str) -> torch.device:
    """``auto``: this rank's GPU where torch sees one, else the CPU. ValueError for a device that is not there."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "auto":
        return torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r} is none of torch's: use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: torch sees no GPU here; use cpu, or install a CUDA build of torch")
    return device


class LoadedPolicy:
    """A checkpoint in memory, with its sampler."""

    def __init__(
        self, folder: Path, device: torch.device, sampler: Mapping[str, Any], prompts: PromptStyle = "comment"
    ) -> None:
        decoder, self.tokenizer = plum_models.load(folder)
        self.prompts = Prompts(self.tokenizer, prompts)
        self.decoder, self.options = decoder.to(device), sampler

    @cached_property
    def fingerprint(self) -> str:
        return plum_models.fingerprint(self.decoder)

    @cached_property
    def sampler(self) -> Sampler:
        """Made when it is first asked for: it joins weights by copy, which training has no use for."""
        return Sampler(self.decoder, self.tokenizer, **self.options)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.decoder.parameters())

    def render(self, instruction: Instruction) -> str:
        return self.prompts.render(instruction)

    def ask(self, text: str) -> str:
        return self.prompts.ask(text)

    def program(self, instruction: Instruction, text: str) -> str:
        return self.prompts.program(instruction, text)

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        return self.prompts.encode(text)

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(self.tokenizer.render_chat(messages)))

    def encode_completion(self, text: str) -> tuple[int, ...]:
        return self.prompts.encode_completion(text)

    def sample(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Completion]:
        return self.sampler.sample(requests, params)


class LocalEngine:
    """Models in this process, programs in a sandbox beside it. Under torchrun every rank has one."""

    def __init__(
        self,
        *,
        execution: ExecutionConfig,
        sampler: Mapping[str, Any] | None = None,
        device: str = "auto",
        world: World | None = None,
        prompts: PromptStyle = "comment",
    ) -> None:
        self.sampler: Mapping[str, Any] = sampler or {}  # options of every policy's Sampler
        self.execution, self.prompts = execution, prompts
        self.device, self.world = find_device(device), world or World()
        self._loaded: tuple[Path, LoadedPolicy] | None = None
        self._executor: Executor | None = None

    def policy(self, folder: Path) -> Policy:
        if self._loaded is None or self._loaded[0] != folder:
            self._loaded = None  # before the next is read: two need not fit
            self._loaded = (folder, LoadedPolicy(folder, self.device, self.sampler, self.prompts))
        return self._loaded[1]

    @property
    def executor(self) -> Executor:
        """The sandbox, started when it is first asked for. Raises SandboxUnavailable."""
        if self._executor is None:
            self._executor = Executor(
                workers=self.execution.workers or None,  # None: this rank's share of the processors
                limits=self.execution.limits,
                packages=self.execution.packages,
            )
        return self._executor

    def judge(self, programs: Iterable[Program]) -> Iterator[Verdict]:
        return self.executor.run(programs)

    def train(
        self,
        start: Path,
        reference: Path,
        records: Records,
        replay: Sequence[tuple[str, str]],
        *,
        config: PreferenceConfig,
        seed: int,
        folder: Path,
        out: Callable[[int], Path],
        on_step: OnStep,
    ) -> Trained:
        self._loaded = None
        policy = LoadedPolicy(start, self.device, self.sampler, self.prompts)
        total = planned_steps(records, config)
        result = train_round(
            policy.decoder,
            records,
            [_example(policy, *row) for row in replay],
            config,
            seed=seed,
            folder=folder,
            reference=None if reference == start else lambda: plum_models.load_decoder(reference).to(self.device),
            on_metrics=lambda row: on_step(row, total),
            world=self.world,
        )
        target = out(result.steps)
        if config.lora.rank:  # the next stage samples the policy whole; the adapters alone stand beside it
            if self.world.is_main:
                plum_models.save_lora(policy.decoder, target.with_name(f"{target.name}-adapter"), base=str(start))
            plum_models.fold_lora(policy.decoder)
        if self.world.is_main:
            plum_models.save(policy.decoder, policy.tokenizer, target)
        policy.decoder.checkpointing = "none"
        self._loaded = (target, policy)  # handed over in place: no rank reads what rank 0 wrote
        return Trained(steps=result.steps, rows=result.rows, fingerprint=policy.fingerprint)

    def close(self) -> None:
        if self._executor is not None:
            self._executor.close()
            self._executor = None

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _example(policy: LoadedPolicy, prompt: str, completion: str) -> Example:
    return Example(
        prompt_ids=policy.encode_prompt(policy.ask(prompt)), completion_ids=policy.encode_completion(completion)
    )
