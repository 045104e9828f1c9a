"""Rates and optimizers by name; averages."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from plum_core.training import OptimConfig
from plum_core.training.averaging import WeightAverage
from plum_core.training.optim import (
    build_optimizers,
    optimizer_tensors,
    rate_factor,
    restore_optimizers,
    set_rates,
)


def factors(total=100, **options):
    config = OptimConfig(**options)
    return [rate_factor(config, step, total) for step in range(total)]


def test_warm_up_then_constant():
    got = factors(20, warmup_steps=4)
    assert got[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0]) and set(got[4:]) == {1.0}


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd"])
def test_schedules_fall_to_nearly_nothing(schedule):
    got = factors(schedule=schedule, warmup_steps=10)
    assert max(got) == 1.0 and got[10] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(got[10:]))
    assert 0 <= got[-1] < 0.04


def test_middle_of_each_schedule():
    assert factors(schedule="linear", warmup_steps=0)[50] == pytest.approx(0.5)
    assert factors(schedule="cosine", warmup_steps=0)[25] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    wsd = factors(schedule="wsd", warmup_steps=0, decay_fraction=0.2)
    assert wsd[80] == pytest.approx(1.0) and wsd[90] == pytest.approx(0.5)


def test_a_run_shorter_than_its_warm_up():
    assert factors(3, warmup_steps=10, schedule="cosine") == pytest.approx([1 / 11, 2 / 11, 3 / 11])


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_weight_is_in_one_optimizer(name, make):
    decoder = make.decoder()
    optimizers = build_optimizers(decoder, OptimConfig(name=name))
    held = [id(w) for o in optimizers for g in o.param_groups for w in g["params"]]
    assert sorted(held) == sorted(id(w) for w in decoder.parameters())
    assert [type(o).__name__ for o in optimizers] == (["AdamW"] if name == "adamw" else ["AdamW", "Muon"])
    assert id(decoder.embed_tokens.weight) in {id(w) for w in optimizers[0].param_groups[0]["params"]}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_restored_optimizer_goes_on_bit_for_bit(name, make):
    config = OptimConfig(name=name)

    def steps(decoder, optimizers, seeds):
        for seed in seeds:
            g = torch.Generator().manual_seed(seed)
            for w in decoder.parameters():
                w.grad = torch.randn(w.shape, generator=g)
            set_rates(optimizers, config, 1 / (seed + 1))
            for o in optimizers:
                o.step()

    first = make.decoder()
    first_optimizers = build_optimizers(first, config)
    steps(first, first_optimizers, range(3))
    second = make.decoder(seed=1)
    second.load_state_dict(first.state_dict())
    second_optimizers = build_optimizers(second, config)
    saved = {k: v.clone() for k, v in optimizer_tensors(first_optimizers).items()}
    assert saved
    restore_optimizers(second_optimizers, saved)
    steps(first, first_optimizers, range(3, 6))
    steps(second, second_optimizers, range(3, 6))
    assert torch.equal(make.flat(first), make.flat(second))


def test_the_average_is_the_mean_of_the_tail():
    module = torch.nn.Linear(3, 2)
    average = WeightAverage(module, first_step=2)
    seen = []
    for step in range(5):
        with torch.no_grad():
            module.weight.fill_(float(step))
        average.update(module, step)
        seen.append(float(step))
    average.apply(module)
    assert average.count == 3
    torch.testing.assert_close(module.weight, torch.full((2, 3), sum(seen[2:]) / 3))


def test_nothing_averaged_changes_nothing():
    module = torch.nn.Linear(3, 2)
    before = module.weight.clone()
    WeightAverage(module, first_step=9).apply(module)
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "sgd"},
        {"learning_rate": 0.0},
        {"beta2": 1.0},
        {"schedule": "step"},
        {"decay_fraction": 0.0},
        {"clip_norm": 0.0},
        {"warmup_steps": -1},
    ],
    ids=str,
)
def test_bad_settings_are_refused(change):
    field, value = next(iter(change.items()))
    with pytest.raises(ValueError, match=f"{field} must be .*, got {value!r}"):
        OptimConfig(**change)
