"""A decoder of a few thousand weights, and preferences made of numbers."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from plum_core.objectives import OBJECTIVES
from plum_core.records import Label, Pair, Sample
from plum_core.training import Example, Graded, OptimConfig, PreferenceConfig, train_round
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


def make_graded(count: int, seed: int = 0, group: int = 4) -> list[Graded]:
    """Samples in groups of one prompt; log-probs near those of a policy that knows nothing."""
    draw = random.Random(seed)
    out = []
    for i in range(count):
        tokens = ids(draw, 1, 9)
        sample = Sample(
            instruction_id=f"i{i // group}",
            index=i % group,
            text="t",
            code="c",
            token_ids=tokens,
            logprobs=tuple(-draw.uniform(3.0, 5.0) for _ in tokens),
            prompt_token_ids=(i // group % VOCABULARY, 1, 2),
            finish_reason="stop",
            policy="p",
            seed=i,
        )
        out.append(Graded(sample=sample, reward=float(draw.random() < 0.4)))
    return out


def records_of(objective: str, count: int) -> list:
    """Records of the kind that ``objective`` learns from."""
    kinds = {"labels": make_labels, "groups": make_graded}
    return kinds.get(OBJECTIVES[objective].data, make_pairs)(count)


def make_examples(count: int, seed: int = 0) -> list[Example]:
    draw = random.Random(seed)
    return [Example(prompt_ids=ids(draw, 1, 5), completion_ids=ids(draw, 1, 9)) for _ in range(count)]


def run_round(folder: Path, objective: str = "dpo", optimizer: str = "adamw", changes: dict | None = None, **options):
    """(weights, result) of a small round; ``changes`` to its settings, ``options`` as train_round takes them."""
    decoder = make_decoder()
    known = dict(
        objective=objective,
        tokens_per_batch=120,
        replay_examples_per_step=5,
        save_every=3,
        optim=OptimConfig(name=optimizer, learning_rate=3e-3, warmup_steps=2, schedule="cosine"),
    )
    settings = PreferenceConfig(**known | (changes or {}))
    records = records_of(objective, 24 if OBJECTIVES[objective].data in ("pairs", "completions") else 40)
    result = train_round(decoder, records, make_examples(7), settings, seed=1, folder=folder, **options)
    return flat(decoder), result


def flat(decoder: Decoder) -> torch.Tensor:
    """All weights in one vector."""
    return torch.cat([w.detach().flatten() for w in decoder.parameters()])


def flat_grad(decoder: Decoder) -> torch.Tensor:
    """All gradients in one vector, by copy."""
    return torch.cat([w.grad.flatten() for w in decoder.parameters()])


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    return SimpleNamespace(
        decoder=make_decoder,
        pairs=make_pairs,
        labels=make_labels,
        graded=make_graded,
        records=records_of,
        examples=make_examples,
        flat=flat,
        flat_grad=flat_grad,
        round=run_round,
    )
