"""A round that trains adapters alone."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from plum_core.training import OptimConfig, PreferenceConfig, train_round
from plum_core.training.checkpoint import complete_checkpoints, load_checkpoint
from plum_core.training.preference_step import LoraSettings
from plum_models import adapter_off, fold_lora
from plum_models.lora import adapted


def config(**changes) -> PreferenceConfig:
    settings = dict(
        tokens_per_batch=120,
        replay_examples_per_step=5,
        save_every=3,
        optim=OptimConfig(learning_rate=1e-2),
        lora=LoraSettings(rank=4, alpha=8.0),
        nll_weight=0.0,
        replay_weight=0.0,
    )
    return PreferenceConfig(**settings | changes)


def train(make, folder, settings, **options):
    decoder = make.decoder()
    rows = train_round(decoder, make.pairs(24), make.examples(7), settings, seed=1, folder=folder, **options).rows
    return decoder, rows


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_adapters_alone_are_trained_and_the_reference_is_the_decoder_without_them(make, tmp_path, optimizer):
    before = make.decoder()
    settings = config(optim=OptimConfig(name=optimizer, learning_rate=1e-2, muon_learning_rate=1e-2), epochs=4)
    decoder, rows = train(make, tmp_path, settings)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[-1]["loss"] < 0.95 * rows[0]["loss"]
    frozen = {name: p for name, p in decoder.named_parameters() if not p.requires_grad}
    assert set(frozen) == {name for name, _ in before.named_parameters()}
    for name, parameter in before.named_parameters():
        assert torch.equal(frozen[name], parameter), name
    ids = torch.arange(9).unsqueeze(0)
    with adapter_off(decoder):
        assert torch.equal(decoder(ids), before(ids))
    assert not torch.allclose(decoder(ids), before(ids), atol=1e-3)


def test_checkpoints_hold_the_adapters_alone(make, tmp_path):
    decoder, _ = train(make, tmp_path, config())
    assert complete_checkpoints(tmp_path)
    state = load_checkpoint(tmp_path)
    assert set(state.tensors["weights"]) == {n for n, p in decoder.named_parameters() if p.requires_grad}
    assert all(".lora_" in name for name in (*state.tensors["weights"], *state.tensors["average"]))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_it_resumes_to_the_bit(make, tmp_path, dropout):
    class Killed(BaseException):
        pass

    settings = config(lora=LoraSettings(rank=4, alpha=8.0, dropout=dropout))
    whole, _ = train(make, tmp_path / "whole", settings)
    calls = itertools.count(1)

    def strike(row):
        if next(calls) == 4:
            raise Killed

    with pytest.raises(Killed):
        train(make, tmp_path / "killed", settings, on_metrics=strike)
    torch.manual_seed(99)  # whatever the generator's state is
    again, _ = train(make, tmp_path / "killed", settings)
    assert torch.equal(make.flat(again), make.flat(whole))


def test_rank_zero_trains_all_weights_and_other_adapters_are_another_run(make, tmp_path):
    decoder, _ = train(make, tmp_path, config(lora=LoraSettings()))
    assert not adapted(decoder)
    with pytest.raises(ValueError, match="belongs to other data, weights or settings"):
        train(make, tmp_path, config())


def test_folded_it_can_be_trained_on(make, tmp_path):
    decoder, _ = train(make, tmp_path / "1", config())
    fold_lora(decoder)
    rows = train_round(decoder, make.pairs(24, 5), [], config(), seed=2, folder=tmp_path / "2").rows
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"rank must be 0 \(train all weights\) or more, got -1"):
        LoraSettings(rank=-1)
    with pytest.raises(ValueError, match="target 'head' is no linear layer"):
        LoraSettings(rank=4, targets=("head",))
