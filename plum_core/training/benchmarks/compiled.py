"""What ``--training.compile`` gives on this CPU: forward and backward of a micro-batch, layers compiled and not.

    python plum_core/training/benchmarks/compiled.py
    python plum_core/training/benchmarks/compiled.py --turns 30 --save

One thread; CPU seconds, as other work on the machine touches them least; the two take turns.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout that is not installed
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "kernels"))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "models"))
import torch
import tyro

from plum_core.execution.benchmarks.report import machine, save, table
from plum_core.training.batches import Example
from plum_core.training.initial import initial_decoder
from plum_core.training.logps import completion_logps
from plum_models import DecoderConfig, load
from plum_models.compiled import compiled
from plum_models.decoder import Decoder

POLICY = Path(__file__).resolve().parents[3] / "models" / "tiny" / "policy"
BATCHES = 4  # of different lengths, so that what was compiled is used at other sizes
LARGER = DecoderConfig(
    vocab_size=8192,
    hidden_size=512,
    intermediate_size=1536,
    num_hidden_layers=6,
    num_attention_heads=8,
    num_key_value_heads=2,
    head_dim=64,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How often, and whether to keep the table."""

    turns: int = 12
    save: bool = False
    results: Path = field(default_factory=lambda: Path(__file__).parent / "results")


def make_batch(vocabulary: int, seed: int) -> list[Example]:
    draw = random.Random(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(vocabulary) for _ in range(count))

    return [Example(prompt_ids=ids(60), completion_ids=ids(draw.randint(20, 60))) for _ in range(24)]


def seconds(decoder: Decoder, batch: list[Example]) -> float:
    """CPU seconds of one forward and backward."""
    decoder.zero_grad()
    began = time.process_time()
    completion_logps(decoder, batch).sum().backward()
    return time.process_time() - began


def measure(decoder: Decoder, turns: int) -> dict[str, float]:
    batches = [make_batch(decoder.config.vocab_size, seed) for seed in range(BATCHES)]
    for batch in batches:
        seconds(decoder, batch)
    began = time.perf_counter()
    with compiled(decoder):
        for batch in batches:
            seconds(decoder, batch)
    start, plain, of_compiled = time.perf_counter() - began, [], []
    for turn in range(turns):
        plain.append(seconds(decoder, batches[turn % BATCHES]))
        with compiled(decoder):
            of_compiled.append(seconds(decoder, batches[turn % BATCHES]))
    return {
        "plain, CPU s": round(statistics.median(plain), 3),
        "compiled, CPU s": round(statistics.median(of_compiled), 3),
        "faster by": round(statistics.median(a / b for a, b in zip(plain, of_compiled, strict=True)), 3),
        "first four steps, s": round(start, 1),
    }


def main(config: Config) -> None:
    torch.set_num_threads(1)
    embedded = load(POLICY)[0].float()
    rows = [
        {"decoder": "embedded policy", **measure(embedded, config.turns)},
        {"decoder": "26 M", **measure(initial_decoder(LARGER, 0), config.turns)},
    ]
    text = f"# Layers compiled and not, fp32, one thread\n\n{machine()}\n\n{table(rows)}"
    print(text)
    if config.save:
        save("compiled", text, {"rows": rows}, config.results)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
