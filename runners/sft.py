"""Supervised training from random or given weights; also how the embedded policy and its author were made.

    torchrun --nproc-per-node 2 runners/sft.py --config runners/configs/sft-policy.toml
    torchrun --nproc-per-node 2 runners/sft.py --config runners/configs/sft-author.toml
    python runners/sft.py --init CHECKPOINT --data.file examples.jsonl --out NEW_CHECKPOINT

A file of examples has one {"prompt": ..., "completion": ...} a line. Killed, the same command goes on.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from plum_core.grammar import problems
from plum_core.prompts import render_prompt
from plum_core.seeds import coordinate_seed
from plum_core.settings import main
from plum_core.training import Example, SftConfig, cycle, init_world, train_sft, world_size
from plum_core.training.initial import initial_decoder
from plum_core.training.optim import OptimConfig
from plum_core.training.stop import ends_on_sigterm
from plum_models import Decoder, DecoderConfig, Tokenizer, load, save


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Where examples come from: a file, or (without one) the grammar's sft split."""

    file: Path | None = None
    problems: int = 12000  # of the grammar; every style of solution of each is an example
    mix: str = "short"  # of the grammar: how long its pipelines are
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Sizes of a decoder that starts from random weights."""

    vocab_size: int = 1536
    hidden_size: int = 128
    intermediate_size: int = 336
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 1
    head_dim: int = 32
    max_position_embeddings: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Sft:
    """Supervised training."""

    out: Path = Path("runs/sft")  # the run folder; the trained checkpoint is its folder "policy"
    init: Path | None = None  # a checkpoint to start from; random weights without it
    seed: int = 0
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    sft: SftConfig = field(
        default_factory=lambda: SftConfig(
            steps=3000, optim=OptimConfig(name="muon", learning_rate=4e-3, muon_learning_rate=0.03, warmup_steps=30)
        )
    )


def read_examples(data: Data) -> list[tuple[str, str]]:
    """(prompt, completion) texts."""
    if data.file is None:
        drawn = islice(problems("sft", data.seed, mix=data.mix, tests=4), data.problems)
        return [(render_prompt(p.instruction()), body) for p in drawn for body in p.solutions]
    rows = []
    for number, line in enumerate(data.file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            rows.append((str(row["prompt"]), str(row["completion"])))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f'{data.file}:{number}: not an example ({error}): each line is {{"prompt": ..., "completion": ...}}'
            ) from error
    if not rows:
        raise ValueError(f"{data.file} holds no examples: write at least one line")
    return rows


def start(config: Sft, texts: list[tuple[str, str]]) -> tuple[Decoder, Tokenizer]:
    if config.init is not None:
        return load(config.init)
    tokenizer = Tokenizer.train((p + c for p, c in texts), config.model.vocab_size)
    sizes = {name: getattr(config.model, name) for name in Model.__dataclass_fields__}
    sizes["vocab_size"] = tokenizer.vocab_size
    return initial_decoder(DecoderConfig(**sizes), coordinate_seed("weights", config.seed)), tokenizer


def run(config: Sft) -> None:
    """SIGTERM saves and ends it with status 0."""
    with ends_on_sigterm(world_size()):
        _run(config)


def _run(config: Sft) -> None:
    world = init_world()
    texts = read_examples(config.data)
    decoder, tokenizer = start(config, texts)
    examples = [
        Example(prompt_ids=tuple(tokenizer.encode(p)), completion_ids=(*tokenizer.encode(c), tokenizer.eos_token_id))
        for p, c in texts
    ]
    if world.is_main:
        parameters = sum(p.numel() for p in decoder.parameters())
        print(f"{len(examples)} examples, {sum(map(len, examples))} tokens; {parameters} parameters", flush=True)

    def report(row: dict[str, float]) -> None:
        if row["step"] % 50 == 0 or row["step"] == config.sft.steps:
            place, rate = f"step {row['step']:.0f}/{config.sft.steps}", row["learning_rate"]
            print(f"{place}  nll {row['nll']:.4f}  lr {rate:.2e}  {row['tokens_per_s']:.0f} tokens/s", flush=True)

    seed = coordinate_seed("sft", config.seed)
    result = train_sft(
        decoder, cycle(examples, seed), config.sft, seed=seed, folder=config.out, on_metrics=report, world=world
    )
    if world.is_main:
        (config.out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in result.rows))
        save(decoder, tokenizer, config.out / "policy", dtype=torch.bfloat16)
        print(f"the trained checkpoint: {config.out / 'policy'}", flush=True)
    world.close()


if __name__ == "__main__":
    sys.exit(main(run, Sft, doc=__doc__ or ""))
