"""What a round carries from step to step beside its weights: a moving reference, BCO's running mean."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from plum_core.training import OptimConfig, PreferenceConfig, train_round
from plum_core.training.logps import completion_logps
from plum_core.training.preference import make_round
from plum_core.training.preference_config import MovingSettings
from plum_core.training.world import World


class Killed(BaseException):
    pass


def config(**changes) -> PreferenceConfig:
    settings = dict(
        tokens_per_batch=120, nll_weight=0.0, save_every=2, optim=OptimConfig(learning_rate=5e-3, warmup_steps=0)
    )
    return PreferenceConfig(**settings | changes)


def test_a_copied_reference_starts_again_at_log_two(make, tmp_path):
    rows = train_round(
        make.decoder(), make.pairs(24), [], config(moving=MovingSettings(every=3)), seed=1, folder=tmp_path
    ).rows
    assert len(rows) >= 7
    for step, row in enumerate(rows):
        if step % 3 == 0:
            assert row["loss"] == pytest.approx(math.log(2), abs=1e-6) and row["rewards/margins"] == 0
        else:
            assert abs(row["loss"] - math.log(2)) > 1e-3


def test_a_mixed_reference_is_the_recurrence(make, tmp_path):
    settings = config(moving=MovingSettings(every=2, alpha=0.3))
    decoder, seen = make.decoder(), []
    this = make_round(decoder, make.pairs(24), [], settings, 1, World())
    this.add_reference(decoder, tmp_path)
    wanted = make.flat(decoder).clone()
    for step in range(6):
        this(step)
        if step in (2, 4):  # after the second and the fourth step
            wanted = 0.3 * make.flat(decoder) + 0.7 * wanted
        torch.testing.assert_close(make.flat(this.moving.decoder), wanted, rtol=1e-6, atol=1e-7)
        with torch.no_grad():
            for weight in decoder.parameters():
                weight.sub_(1e-3 * weight.grad)
        seen.append(wanted)
    assert not torch.equal(seen[1], seen[2]) and torch.equal(seen[2], seen[3])


def test_delta_is_the_mean_reward_of_everything_so_far(make, tmp_path):
    settings = config(objective="bco_unpaired", beta=0.3)
    decoder, far = make.decoder(), make.decoder(seed=9)
    this = make_round(decoder, make.labels(40), [], settings, 1, World())
    this.add_reference(far, tmp_path)
    rewards = []
    for step in range(4):
        batch = [this.items[i].examples[0] for i in this.plan[step]]
        with torch.no_grad():
            rewards += (0.3 * (completion_logps(decoder, batch) - completion_logps(far, batch))).tolist()
        metrics = this(step)
        row = metrics.report(metrics.vector())
        assert row["delta"] == pytest.approx(sum(rewards) / len(rewards), abs=1e-5) and row["delta"] != 0
        with torch.no_grad():
            for weight in decoder.parameters():
                weight.sub_(1e-3 * weight.grad)


@pytest.mark.parametrize(
    "changes",
    [
        {"moving": MovingSettings(every=3)},
        {"moving": MovingSettings(every=1, alpha=0.4), "objective": "kto"},
        {"objective": "bco_unpaired"},
    ],
    ids=["copied", "mixed", "bco"],
)
def test_it_is_carried_over_a_kill(make, tmp_path, changes):
    settings = config(**changes)

    def go(folder, after=0):
        calls, decoder = itertools.count(1), make.decoder()

        def on_metrics(row):
            if next(calls) == after:
                raise Killed

        records = make.records(settings.objective, 24 if settings.objective == "dpo" else 80)
        result = train_round(decoder, records, [], settings, seed=1, folder=folder, on_metrics=on_metrics)
        return make.flat(decoder), result

    whole, _ = go(tmp_path / "whole")
    for after in (5, 2):
        with pytest.raises(Killed):
            go(tmp_path / "killed", after)
    resumed, result = go(tmp_path / "killed")
    assert result.resumed_from == 4 and torch.equal(resumed, whole)
