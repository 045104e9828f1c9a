"""A decoder of a few thousand weights, and preferences made of numbers."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from plum_core.records import Label, Pair
from plum_core.training import Example, OptimConfig, PreferenceConfig, train_round
from plum_models.config import DecoderConfig
from plum_models.decoder import Decoder

VOCABULARY = 48


def make_decoder(seed: int = 0, **changes) -> Decoder:
    sizes = dict(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    torch.manual_seed(seed)
    decoder = Decoder(DecoderConfig(**sizes | changes))
    with torch.no_grad():
        for weight in decoder.parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.3)
    return decoder


def ids(draw: random.Random, low: int, high: int) -> tuple[int, ...]:
    return tuple(draw.randrange(VOCABULARY) for _ in range(draw.randint(low, high)))


def make_pairs(count: int, seed: int = 0, *, prompt=(2, 6), completion=(1, 9)) -> list[Pair]:
    draw = random.Random(seed)
    return [
        Pair(
            prompt="p",
            chosen="c",
            rejected="r",
            instruction_id=f"i{i}",
            chosen_index=0,
            rejected_index=1,
            prompt_token_ids=ids(draw, *prompt),
            chosen_token_ids=ids(draw, *completion),
            rejected_token_ids=ids(draw, *completion),
        )
        for i in range(count)
    ]


def make_labels(count: int, seed: int = 0) -> list[Label]:
    draw = random.Random(seed)
    return [
        Label(
            prompt="p",
            completion="c",
            label=draw.random() < 0.4,
            instruction_id=f"i{i // 2}",
            index=i % 2,
            prompt_token_ids=(i // 2 % VOCABULARY, *ids(draw, 1, 1)),
            completion_token_ids=ids(draw, 1, 9),
        )
        for i in range(count)
    ]


def make_examples(count: int, seed: int = 0) -> list[Example]:
    draw = random.Random(seed)
    return [Example(prompt_ids=ids(draw, 1, 5), completion_ids=ids(draw, 1, 9)) for _ in range(count)]


def run_round(folder: Path, objective: str = "dpo", optimizer: str = "adamw", changes=None, **options):
    """(weights, result) of a small round; ``changes`` of its config, ``options`` as train_round takes them."""
    decoder = make_decoder()
    known = dict(
        objective=objective,
        tokens_per_batch=120,
        replay_examples_per_step=5,
        save_every=3,
        optim=OptimConfig(name=optimizer, learning_rate=3e-3, warmup_steps=2, schedule="cosine"),
    )
    settings = PreferenceConfig(**known | (changes or {}))
    records = make_labels(40) if objective == "kto" else make_pairs(24)
    result = train_round(decoder, records, make_examples(7), settings, seed=1, folder=folder, **options)
    return flat(decoder), result


def flat(decoder: Decoder) -> torch.Tensor:
    """All weights in one vector."""
    return torch.cat([w.detach().flatten() for w in decoder.parameters()])


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    return SimpleNamespace(
        decoder=make_decoder, pairs=make_pairs, labels=make_labels, examples=make_examples, flat=flat, round=run_round
    )
