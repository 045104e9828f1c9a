"""Policy gradients on samples and verdicts: which samples, which advantages, the right loss, and that they learn."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import pytest
import torch

from plum_core.objectives import dapo, grpo, rloo
from plum_core.records import Outcome, Verdict
from plum_core.training import Graded, OptimConfig, PreferenceConfig, grade, planned_steps, train_round
from plum_core.training.checkpoint import complete_checkpoints
from plum_core.training.groups import group_items
from plum_core.training.logps import padded_logps
from plum_core.training.preference import make_round
from plum_core.training.preference_config import GroupSettings
from plum_core.training.world import World
from tests.training.forks import on_ranks
from tests.training.test_sharding import one_thread  # noqa: F401


def config(objective: str = "grpo", **changes) -> PreferenceConfig:
    settings = dict(
        tokens_per_batch=120, replay_weight=0.0, save_every=2, optim=OptimConfig(learning_rate=3e-3, warmup_steps=0)
    )
    return PreferenceConfig(objective=objective, **settings | changes)


def verdict(sample, outcome=Outcome.PASSED, *, passed=(True,), attested=True) -> Verdict:
    return Verdict(
        id=f"{sample.instruction_id}/{sample.index}",
        outcome=outcome,
        passed=passed,
        detail="",
        wall_s=0.0,
        cpu_s=0.0,
        peak_mib=0.0,
        attested=attested,
    )


def with_rewards(make, rewards):
    """One group a row; None: no verdict."""
    flat = [r for row in rewards for r in row]
    return [replace(g, reward=r) for g, r in zip(make.graded(len(flat), group=len(rewards[0])), flat, strict=True)]


def own_logps(decoder, graded):
    """The same samples with the log-probs that ``decoder`` gives them."""
    items = group_items(graded, config())
    with torch.no_grad():
        rows = padded_logps(decoder, [item.example for item in items]).tolist()
    return [
        replace(g, sample=replace(g.sample, logprobs=tuple(row[: len(g.sample.token_ids)])))
        for g, row in zip(graded, rows, strict=True)
    ]


def test_what_says_nothing_about_a_program_has_no_reward(make):
    samples = [g.sample for g in make.graded(6)]
    verdicts = [
        verdict(samples[0]),
        verdict(samples[1], Outcome.FAILED, passed=(True, False, True, True)),
        verdict(samples[2], Outcome.SANDBOX_ERROR),
        verdict(samples[3], attested=False),
        verdict(samples[4], Outcome.TIMEOUT, passed=()),
    ]  # none of the sixth
    assert [g.reward for g in grade(samples, verdicts)] == [1.0, 0.0, None, None, 0.0, None]
    assert [g.reward for g in grade(samples, verdicts, "share")] == [1.0, 0.75, None, None, 0.0, None]


def test_advantages_are_of_the_group_and_dapo_drops_what_teaches_nothing(make):
    rewards = [[1.0, 0.0, 0.0, None], [1.0, 1.0, 1.0, 1.0], [0.0, None, None, 1.0]]
    graded = with_rewards(make, rewards)
    of_grpo, of_dapo, of_rloo = (group_items(graded, config(name)) for name in ("grpo", "dapo", "rloo"))
    assert len(of_grpo) == len(of_rloo) == 9 and len(of_dapo) == 5
    first = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    wanted = (first - first.mean()) / (first.std() + 1e-4)
    assert [i.advantage for i in of_grpo[:3]] == pytest.approx(wanted.tolist())
    assert [i.advantage for i in of_grpo[3:7]] == [0.0] * 4
    assert [i.advantage for i in of_rloo[:3]] == pytest.approx([1.0, -0.5, -0.5])
    assert [i.advantage for i in of_dapo] == [i.advantage for i in (*of_grpo[:3], *of_grpo[7:])]
    assert [i.example.completion_ids for i in of_dapo[:3]] == [g.sample.token_ids for g in graded[:3]]
    kept = group_items(graded, config("dapo", groups=GroupSettings(informative_only=False)))
    assert len(kept) == 9
    plain = group_items(graded, config(groups=GroupSettings(scale="none")))
    assert [i.advantage for i in plain[:3]] == pytest.approx([2 / 3, -1 / 3, -1 / 3])


def test_an_overlong_sample_is_worth_less(make):
    graded = [replace(g, reward=1.0) for g in make.graded(4)]
    graded[1] = replace(graded[1], sample=replace(graded[1].sample, token_ids=(1,) * 9, logprobs=(-1.0,) * 9))
    settings = config("dapo", groups=GroupSettings(overlong_limit=10, overlong_margin=4))
    items = group_items(graded, settings)
    assert items[1].reward == pytest.approx(0.25) and items[1].advantage < 0  # 9 of 10: three quarters of the margin


@pytest.mark.parametrize("objective", ["grpo", "dapo", "rloo"])
def test_a_step_is_the_formula(objective, make, tmp_path):
    beta = {"beta": 0.2} if objective == "grpo" else {}
    settings = config(objective, epsilon=0.1, epsilon_high=0.3, **beta)
    decoder, far = make.decoder(), make.decoder(seed=9)
    this = make_round(decoder, make.graded(40), [], settings, 5, World())
    this.add_reference(far, tmp_path)
    decoder.zero_grad()
    metrics = this(0)
    row = metrics.report(metrics.vector())
    got = make.flat_grad(decoder)

    batch = [this.items[i] for i in this.plan[0]]
    examples = [item.example for item in batch]
    decoder.zero_grad()
    logps = padded_logps(decoder, examples)
    mask = torch.arange(logps.shape[1]) < torch.tensor([[len(item.old)] for item in batch])
    old = torch.zeros(logps.shape)
    for i, item in enumerate(batch):
        old[i, : len(item.old)] = torch.tensor(item.old)
    advantages = torch.tensor([item.advantage for item in batch])
    clips = {"epsilon": 0.1, "epsilon_high": 0.3}
    if objective == "grpo":
        loss = grpo(logps, old, advantages, mask, padded_logps(far, examples).detach(), beta=0.2, **clips).losses.mean()
        assert row["kl"] > 0
    elif objective == "dapo":
        loss = dapo(logps, old, advantages, mask, **clips).losses.mean()
    else:
        loss = rloo(logps.sum(1), old.sum(1), advantages, **clips).losses.mean()
    loss.backward()
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    torch.testing.assert_close(got, make.flat_grad(decoder), rtol=1e-4, atol=1e-6)
    assert row["clip_ratio/region_mean"] > 0 and row["reward"] == pytest.approx(
        sum(item.reward for item in batch) / len(batch)
    )


@pytest.mark.parametrize("objective", ["grpo", "dapo", "rloo"])
def test_the_ratio_is_one_at_the_first_step_and_what_passed_becomes_likelier(objective, make, tmp_path):
    graded = own_logps(make.decoder(), make.graded(40))
    decoder = make.decoder()
    settings = config(objective, epochs=6, average_last=0.0)
    rows = train_round(decoder, graded, [], settings, seed=1, folder=tmp_path).rows
    assert len(rows) == planned_steps(graded, settings)
    assert rows[0]["ratio"] == pytest.approx(1, abs=1e-6) and rows[0]["clip_ratio/region_mean"] == 0
    assert abs(rows[-1]["ratio"] - 1) > 1e-3
    items = group_items(graded, settings)
    with torch.no_grad():
        now = padded_logps(decoder, [item.example for item in items]).sum(1)
    gain = sum(item.advantage * (float(x) - sum(item.old)) for item, x in zip(items, now, strict=True))
    assert gain > 0


@pytest.mark.parametrize("objective", ["grpo", "dapo", "rloo"])
@pytest.mark.parametrize("weights", ["fp32", "bf16-master"])
def test_rescored_the_first_ratio_is_one_to_the_bit(objective, weights, make, tmp_path):
    """Whatever the sampler said, here log-probs to one decimal, and however a step is cut."""
    rough = own_logps(make.decoder(), make.graded(40))
    rough = [
        replace(g, sample=replace(g.sample, logprobs=tuple(round(x, 1) for x in g.sample.logprobs))) for g in rough
    ]
    optim = OptimConfig(learning_rate=3e-3, warmup_steps=0, weights=weights)
    for micro in (None, 60):
        changes = {"optim": optim, "micro_batch_tokens": micro, "epochs": 2, "groups": GroupSettings(rescore=True)}
        folder = tmp_path / f"{micro}"
        rows = train_round(make.decoder(), rough, [], config(objective, **changes), seed=1, folder=folder).rows
        assert rows[0]["ratio"] == 1.0 and rows[0]["clip_ratio/region_mean"] == 0
        assert rows[0]["kl/sampler"] > 1e-5 and rows[-1]["ratio"] != 1.0
    changes["groups"] = GroupSettings()
    rows = train_round(
        make.decoder(), rough, [], config(objective, **changes), seed=1, folder=tmp_path / "as said"
    ).rows
    assert rows[0]["ratio"] != 1.0


def test_rescored_by_two_ranks_and_after_a_kill(make, tmp_path):
    settings = {"groups": GroupSettings(rescore=True), "save_every": 2, "keep_last": 9, "epochs": 2}
    graded = make.graded(40)

    def run(folder, world=None):
        decoder = make.decoder()
        result = train_round(decoder, graded, [], config("grpo", **settings), seed=1, folder=folder, world=world)
        return make.flat(decoder), result

    alone, result = run(tmp_path / "one")
    shutil.rmtree(complete_checkpoints(tmp_path / "one")[-1])
    again, resumed = run(tmp_path / "one")
    assert 0 < resumed.resumed_from < result.steps and torch.equal(again, alone)
    for found, of_two in on_ranks(tmp_path / "ranks", 2, lambda world: run(tmp_path / "two", world)):
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-6)
        assert of_two.rows[0]["ratio"] == 1.0


def test_a_killed_run_ends_in_the_same_weights(make, tmp_path):
    class Killed(BaseException):
        pass

    def strike(row):
        if row["step"] == 5:
            raise Killed

    changes = {"beta": 0.1}
    whole, _ = make.round(tmp_path / "whole", "grpo", changes=changes)
    with pytest.raises(Killed):
        make.round(tmp_path / "killed", "grpo", changes=changes, on_metrics=strike)
    resumed, result = make.round(tmp_path / "killed", "grpo", changes=changes)
    assert result.resumed_from == 3 and torch.equal(resumed, whole)


def test_another_verdict_is_another_run(make, tmp_path):
    graded = make.graded(16)
    train_round(make.decoder(), graded, [], config(), seed=1, folder=tmp_path)
    graded[0] = replace(graded[0], reward=1 - graded[0].reward)
    with pytest.raises(ValueError, match="belongs to other data"):
        train_round(make.decoder(), graded, [], config(), seed=1, folder=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: replace(g, sample=replace(g.sample, logprobs=g.sample.logprobs[:-1])), "log-probs for .* tokens"),
        (lambda g: replace(g, sample=replace(g.sample, logprobs=(math.nan,) * 99)), "log-probs for"),
        (lambda g: replace(g, sample=replace(g.sample, token_ids=(1,), logprobs=(0.5,))), "not finite or above 0"),
        (lambda g: replace(g, sample=replace(g.sample, token_ids=(1,), logprobs=(-math.inf,))), "not finite or"),
    ],
)
def test_log_probs_that_cannot_be_are_refused(change, message, make):
    graded: list[Graded] = make.graded(4)
    graded[2] = change(graded[2])
    with pytest.raises(ValueError, match=f"sample i0/2 has .*{message}"):
        group_items(graded, config())


def test_records_that_do_not_fit_are_refused(make, tmp_path):
    sample = make.graded(1)[0].sample
    with pytest.raises(ValueError, match="sample i0/0 comes twice"):
        grade([sample, sample], [])
    with pytest.raises(ValueError, match="verdict i0/0 comes twice"):
        grade([sample], [verdict(sample), verdict(sample)])
    with pytest.raises(ValueError, match="grpo learns from Graded records, got a Pair"):
        planned_steps(make.pairs(2), config())
    with pytest.raises(ValueError, match="dpo learns from Pair records, got a Graded"):
        planned_steps(make.graded(2), config("dpo"))
    with pytest.raises(ValueError, match="nothing for dapo to learn from in 4 records"):
        planned_steps(with_rewards(make, [[1.0, 1.0, None, 1.0]]), config("dapo"))
    with pytest.raises(ValueError, match=r"overlong_margin must be in \[1, overlong_limit\], got 5 of 4"):
        GroupSettings(overlong_limit=4, overlong_margin=5)
