"""The policy to stay near, of each kind; its cache, and when its weights are gone."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from plum_core.training import OptimConfig, PreferenceConfig, reference, train_round
from plum_core.training.batches import Example
from plum_core.training.logps import completion_logps, padded_logps
from plum_core.training.preference import make_round
from plum_core.training.preference_config import MovingSettings
from plum_core.training.world import World


def config(**changes) -> PreferenceConfig:
    settings = dict(tokens_per_batch=120, nll_weight=0.0, optim=OptimConfig(learning_rate=3e-3, warmup_steps=0))
    return PreferenceConfig(**settings | changes)


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """One entry for each time that log-probs were computed rather than read."""
    calls: list[int] = []
    real = reference._compute
    monkeypatch.setattr(reference, "_compute", lambda *args: calls.append(1) or real(*args))
    return calls


def round_of(make, folder, settings, start=0, far=None, records=None):
    """A round whose reference is added, and the file that keeps it."""
    decoder = make.decoder(seed=start)
    this = make_round(decoder, records or make.pairs(24), [], settings, 1, World())
    this.add_reference(make.decoder(seed=far) if far is not None else decoder, folder)
    return this, folder / "reference.safetensors"


@pytest.mark.parametrize("far", [None, 9], ids=["as it comes in", "another checkpoint"])
def test_log_probs_are_those_of_the_reference(make, tmp_path, far):
    """The initial policy is another checkpoint from the second round on; the previous round's is the decoder itself."""
    this, path = round_of(make, tmp_path, config(), start=3, far=far)
    examples = list(this.ref)
    with torch.no_grad():
        exact = completion_logps(make.decoder(seed=3 if far is None else far), examples)
    torch.testing.assert_close(torch.tensor([this.ref[e] for e in examples]), exact, rtol=1e-5, atol=1e-5)
    assert path.exists()


def test_each_changed_input_is_computed_again(make, tmp_path, computed):
    pairs = make.pairs(24)
    round_of(make, tmp_path, config(), far=9, records=pairs)
    round_of(make, tmp_path, config(beta=0.7), start=4, far=9, records=pairs)  # neither changes the reference's answer
    assert len(computed) == 1
    changes = [
        {"far": 8},  # weights
        {"far": 8, "records": make.pairs(24, seed=2)},  # data
        {"far": 8, "settings": config(objective="span_dpo"), "records": make.pairs(24, seed=2)},  # what tokens count
        {"far": 8, "settings": config(objective="kto"), "records": make.labels(20)},  # mismatched completions
        {"far": 8, "settings": config(objective="grpo", nll_weight=None, beta=0.1), "records": make.graded(20)},
    ]
    for count, change in enumerate(changes, 2):
        for _ in range(2):
            round_of(make, tmp_path, **{"settings": config()} | change)
            assert len(computed) == count


def test_another_tokenisation_is_computed_again(make, tmp_path, computed):
    """One text cut otherwise: other ids, or the same ids with the boundary elsewhere."""
    decoder, path = make.decoder(), tmp_path / "r.safetensors"
    for count, example in enumerate(
        [
            Example(prompt_ids=(1, 2, 3), completion_ids=(4, 5)),
            Example(prompt_ids=(1, 2), completion_ids=(3, 4, 5)),
            Example(prompt_ids=(1, 2, 3), completion_ids=(4, 6)),
            Example(prompt_ids=(1, 2, 3), completion_ids=(4, 6), weights=(1.0, 0.5)),
        ],
        1,
    ):
        reference.reference_logps(decoder, [example], path, tokens_per_batch=50)
        assert len(computed) == count


def test_a_truncated_cache_is_computed_again(make, tmp_path, computed):
    this, path = round_of(make, tmp_path, config(), far=9)
    path.write_bytes(path.read_bytes()[:-3])
    again, _ = round_of(make, tmp_path, config(), far=9)
    assert len(computed) == 2 and again.ref == this.ref
    round_of(make, tmp_path, config(), far=9)
    assert len(computed) == 2


def test_tokens_are_cached_one_by_one_where_a_kl_is_weighed(make, tmp_path):
    this, _ = round_of(make, tmp_path, config(objective="grpo", nll_weight=None, beta=0.1), records=make.graded(20))
    examples = list(this.ref)
    with torch.no_grad():
        exact = padded_logps(make.decoder(), examples)
    for example, row in zip(examples, exact, strict=True):
        size = len(example.completion_ids)
        torch.testing.assert_close(this.ref[example], row[:size], rtol=1e-5, atol=1e-5)
        assert not row[size:].any()


def test_the_weights_of_a_loaded_reference_leave_memory(make, tmp_path):
    alive: list[weakref.ref] = []

    def load():
        decoder = make.decoder(seed=9)
        alive.append(weakref.ref(decoder))
        return decoder

    def on_metrics(row):
        gc.collect()
        assert alive[0]() is None

    train_round(
        make.decoder(), make.pairs(24), [], config(), seed=1, folder=tmp_path, reference=load, on_metrics=on_metrics
    )
    assert len(alive) == 1


def test_a_run_with_another_reference_does_not_go_on_from_its_checkpoints(make, tmp_path):
    def train(far):
        return train_round(
            make.decoder(), make.pairs(24), [], config(), seed=1, folder=tmp_path, reference=make.decoder(seed=far)
        )

    train(9)
    with pytest.raises(ValueError, match="belongs to other data, weights or settings"):
        train(8)


def test_a_reference_that_nobody_asks_for_is_not_loaded(make, tmp_path):
    def load():
        raise AssertionError("loaded")

    train_round(make.decoder(), make.pairs(4), [], config(objective="simpo"), seed=1, folder=tmp_path, reference=load)


def test_an_objective_without_a_reference_computes_none(make, tmp_path, computed):
    this, path = round_of(make, tmp_path, config(objective="simpo"))
    assert not computed and not path.exists() and not this.ref


def test_a_moving_reference_has_no_cache_and_is_a_copy(make, tmp_path, computed):
    this, path = round_of(make, tmp_path, config(moving=MovingSettings(every=2)))
    assert not computed and not path.exists()
    with torch.no_grad():
        next(this.decoder.parameters()).add_(1.0)
    moved, kept = next(this.decoder.parameters()), next(this.moving.decoder.parameters())
    assert not torch.equal(moved, kept) and not kept.requires_grad
