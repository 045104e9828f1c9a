"""The memory model: held to torch's own allocator, and the page that is made of it to the model."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from plum_core.training import OptimConfig
from plum_core.training.benchmarks.memory import CASES, measured, predicted
from plum_core.training.memory import Batch, footprint
from plum_models import DecoderConfig
from plum_models.lora import LoraConfig

ROOT = Path(__file__).resolve().parents[2]
SIZES = dict(
    vocab_size=1000,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
)
BATCH = Batch(tokens=500, scored=200, positions=600)


@pytest.mark.parametrize("name", ["fp32, many tokens", "LoRA"])
def test_the_model_is_what_the_allocator_saw(name):
    [case] = [case for case in CASES if case.name == name]
    smaller = dataclasses.replace(case, decoder=dataclasses.replace(case.decoder, num_hidden_layers=2), pairs=6)
    assert predicted(smaller) == pytest.approx(measured(smaller), rel=0.1)


def test_parts_are_what_they_are_said_to_be():
    config = DecoderConfig(**SIZES)
    weights = 1000 * 64 + 3 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160 + 2 * 64) + 64
    fp32 = footprint(config, OptimConfig(), BATCH)
    assert (fp32.weights, fp32.gradients, fp32.moments, fp32.average, fp32.masters) == (
        4 * weights, 4 * weights, 8 * weights, 4 * weights, 0
    )  # fmt: skip
    bf16 = footprint(config, OptimConfig(weights="bf16-master"), BATCH, averaged=False)
    assert (bf16.weights, bf16.masters, bf16.average) == (2 * weights, 4 * weights, 0)
    assert bf16.activations < fp32.activations
    muon = footprint(config, OptimConfig(name="muon"), BATCH)
    matrices = weights - 1000 * 64 - 3 * 2 * 64 - 64
    assert muon.moments == 8 * weights - 4 * matrices
    adapters = 3 * 2 * ((64 + 64) + (64 + 32) + (64 + 32) + (64 + 64) + 3 * (64 + 160))  # q, k, v, o and the MLP
    lora = footprint(config, OptimConfig(), BATCH, lora=LoraConfig(rank=2))
    assert (lora.weights, lora.gradients) == (4 * (weights + adapters), 4 * adapters)


def test_what_saves_memory_saves_it():
    config = DecoderConfig(**SIZES)
    plain = footprint(config, OptimConfig(), BATCH)
    assert footprint(config, OptimConfig(), BATCH, checkpointing="full").activations < plain.activations
    eight = footprint(config, OptimConfig(), BATCH, ranks=8)
    assert eight.total >= plain.total and eight.gathered == 0
    parts = footprint(config, OptimConfig(), BATCH, ranks=8, sharded=True)
    assert parts.weights == plain.weights // 8 and parts.gathered > 0


def test_what_is_not_counted_is_refused():
    sparse = DecoderConfig(**SIZES, num_experts=2, moe_intermediate_size=8, sparse_layers=(0,))
    with pytest.raises(ValueError, match="counts dense layers with a gated MLP"):
        footprint(sparse, OptimConfig(), BATCH)
    with pytest.raises(ValueError, match="0 < scored <= tokens <= positions, got 3, 2 and 4"):
        Batch(tokens=2, scored=3, positions=4)


def test_the_page_is_the_models():
    spec = importlib.util.spec_from_file_location("make_memory", ROOT / "docs/make_memory.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    text = made.PAGE.read_text(encoding="utf-8")
    assert text == made.page_with(text, made.table()), "python docs/make_memory.py writes it anew"
    assert made.table() in text and "**" in made.table()
