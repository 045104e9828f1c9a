"""The memory model of docs/memory.md beside what training allocates: the most bytes of tensors that lived at once.

    python plum_core/training/benchmarks/memory.py
    python plum_core/training/benchmarks/memory.py --save

Measured is every byte that torch's CPU allocator hands out and takes back during two steps of a real round (its own
events, scratch of operators included); the round begins with an empty heap of tensors.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "kernels"))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "models"))
import torch
import tyro
from torch.profiler import ProfilerActivity, profile

from plum_core.execution.benchmarks.report import machine, save, table
from plum_core.records import Pair
from plum_core.training import LoraSettings, OptimConfig, PreferenceConfig, train_round
from plum_core.training.initial import initial_decoder
from plum_core.training.memory import Batch, footprint
from plum_core.training.packing import Packed
from plum_core.training.preference import _items
from plum_models import DecoderConfig

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Whether to keep the table."""

    save: bool = False
    results: Path = field(default_factory=lambda: Path(__file__).parent / "results")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One round of two steps on ``pairs`` pairs."""

    name: str
    decoder: DecoderConfig
    settings: PreferenceConfig
    pairs: int = 8


def sizes(**changes: Any) -> DecoderConfig:
    known = dict(vocab_size=2048, hidden_size=128, intermediate_size=352, num_hidden_layers=6)
    known |= dict(num_attention_heads=4, num_key_value_heads=2, head_dim=32)
    return DecoderConfig(**known | changes)


def settings(**changes: Any) -> PreferenceConfig:
    return PreferenceConfig(**dict(epochs=2, tokens_per_batch=1 << 20, peak_tflops=1.0, save_every=1 << 20) | changes)


WIDE = sizes(hidden_size=256, intermediate_size=704, num_attention_heads=8, vocab_size=8192)
MUON = OptimConfig(name="muon")
MASTERS = OptimConfig(weights="bf16-master")
CASES = (
    Case(name="fp32", decoder=sizes(), settings=settings()),
    Case(name="fp32, few tokens", decoder=WIDE, settings=settings(), pairs=1),
    Case(name="fp32, many tokens", decoder=sizes(), settings=settings(), pairs=32),
    Case(name="own head", decoder=sizes(tie_word_embeddings=False, vocab_size=8192), settings=settings(), pairs=2),
    Case(name="wide, Muon, no average", decoder=WIDE, settings=settings(average_last=0, optim=MUON)),
    Case(name="checkpointing", decoder=sizes(), settings=settings(checkpointing="full"), pairs=32),
    Case(name="bf16 with masters", decoder=sizes(), settings=settings(optim=MASTERS), pairs=16),
    Case(name="LoRA", decoder=WIDE, settings=settings(lora=LoraSettings(rank=8)), pairs=4),
    Case(name="LoRA, checkpointing", decoder=WIDE, settings=settings(lora=LoraSettings(rank=8), checkpointing="full")),
)


def make_pairs(count: int, vocabulary: int) -> list[Pair]:
    draw = random.Random(2)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(draw.randrange(vocabulary) for _ in range(length))

    return [
        Pair(
            prompt="p",
            chosen="c",
            rejected="r",
            instruction_id=str(i),
            chosen_index=0,
            rejected_index=1,
            prompt_token_ids=ids(draw.randint(40, 60)),
            chosen_token_ids=ids(draw.randint(50, 70)),
            rejected_token_ids=ids(draw.randint(50, 70)),
        )
        for i in range(count)
    ]


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most bytes of CPU tensors that ``work`` had alive at once, beyond those that were there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
        work()
    now = most = 0
    for event in told.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def batch_of(case: Case) -> Batch:
    """The stream of the case's only micro-batch."""
    items = _items(make_pairs(case.pairs, case.decoder.vocab_size), case.settings)
    packed = Packed([e for item in items for e in item.examples])
    return Batch(
        tokens=packed.token_ids.shape[1], scored=len(packed.targets), positions=packed.shape[0] * packed.shape[1]
    )


def measured(case: Case) -> int:
    """The peak of the case's round."""
    pairs = make_pairs(case.pairs, case.decoder.vocab_size)

    def work() -> None:
        decoder = initial_decoder(case.decoder, 0)
        with tempfile.TemporaryDirectory(prefix="plum-memory-") as folder:
            train_round(decoder, pairs, [], case.settings, seed=0, folder=Path(folder))

    return peak_bytes(work)


def predicted(case: Case) -> int:
    """The same by the model."""
    return footprint(
        case.decoder,
        case.settings.optim,
        batch_of(case),
        lora=case.settings.lora.config,
        checkpointing="full" if case.settings.checkpointing == "full" else "none",
        averaged=case.settings.average_last > 0,
    ).total


def main(config: Config) -> None:
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        found, wanted = measured(case), predicted(case)
        rows.append(
            {
                "case": case.name,
                "measured MiB": round(found / MIB, 2),
                "model MiB": round(wanted / MIB, 2),
                "model / measured": round(wanted / found, 3),
            }
        )
    text = f"# The memory model beside the allocator\n\n{machine()}\n\n{table(rows)}"
    print(text)
    if config.save:
        save("memory", text, {"rows": rows}, config.results)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
