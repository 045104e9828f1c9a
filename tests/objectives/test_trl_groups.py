"""GRPO, DAPO and RLOO beside TRL's own loss and advantage code, values and gradients of every token, in fp64."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from plum_core.objectives import (
    dapo,
    group_advantages,
    grpo,
    leave_one_out_advantages,
    mix_weights,
    overlong_penalty,
    rloo,
)
from tests.objectives.cases import KINDS, WIDTH
from tests.objectives.test_trl_tokens import assert_equal, gradient, leaves
from tests.objectives.trl_code import policy_gradient_loss


@pytest.fixture(autouse=True)
def in_fp64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def group_case(kind):
    """(token log-probs, old, reference, advantages, mask) of 7 samples; ``saturated``: ratios up to e**500."""
    g = torch.Generator().manual_seed(1)
    lengths = torch.tensor([1, 9, 4, 3, 0, 7, 2])  # 0: filtered as overlong
    mask = torch.arange(WIDTH) < lengths.unsqueeze(1)
    old = -2 * torch.rand(7, WIDTH, generator=g)
    gap = {"ordinary": 0.3, "at initialisation": 0.0, "saturated": 250.0}[kind]
    logps = old + gap * torch.randn(7, WIDTH, generator=g).clamp(-2, 2)
    ref = old + gap * torch.randn(7, WIDTH, generator=g).clamp(-0.2, 0.2)
    return logps, old, ref, torch.tensor([1.2, -0.7, 0.0, 0.5, 1.0, -1.5, 0.3]), mask


CLIPS = ("clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_grpo(kind, beta):
    from trl.trainer.grpo_trainer import GRPOTrainer

    logps, old, ref, advantages, mask = group_case(kind)
    mine, other = leaves(logps)
    inputs = dict(completion_mask=mask.long(), advantages=advantages, old_per_token_logps=old, ref_per_token_logps=ref)
    settings = dict(loss_type="grpo", epsilon_low=0.2, epsilon_high=0.25, beta=beta)
    loss, metrics = policy_gradient_loss(GRPOTrainer, other, inputs, **settings)
    got = grpo(mine, old, advantages, mask, ref, epsilon=0.2, epsilon_high=0.25, beta=beta)
    assert_equal(gradient(got.losses.mean(), mine), gradient(loss, other))
    for name in CLIPS + (("kl",) if beta and kind != "saturated" else ()):  # TRL logs fp32, where its KL overflows
        assert got.metrics[name].mean().item() == pytest.approx(metrics[name], rel=1e-6), name


@pytest.mark.parametrize("kind", KINDS)
def test_dapo(kind):
    from trl.trainer.grpo_trainer import GRPOTrainer

    logps, old, _, advantages, mask = group_case(kind)
    mine, other = leaves(logps)
    inputs = dict(
        completion_mask=mask.long(), advantages=advantages, old_per_token_logps=old, num_items_in_batch=mask.sum()
    )
    loss, _ = policy_gradient_loss(GRPOTrainer, other, inputs, loss_type="dapo", epsilon_low=0.2, epsilon_high=0.28)
    got = dapo(mine, old, advantages, mask)
    assert_equal(gradient(got.losses.mean(), mine), gradient(loss, other))


@pytest.mark.parametrize("kind", KINDS)
def test_rloo(kind):
    from trl.trainer.rloo_trainer import RLOOTrainer

    logps, old, _, advantages, mask = group_case(kind)
    if kind == "saturated":
        logps = old + (logps - old) / 8  # a sum of nine tokens stays where TRL's exp is finite
    mine, other = leaves(logps)
    inputs = dict(completion_mask=mask.long(), advantages=advantages, old_logps=(old * mask).sum(1))
    loss, metrics = policy_gradient_loss(RLOOTrainer, other, inputs, epsilon_low=0.2, epsilon_high=0.3)
    got = rloo((mine * mask).sum(1), (old * mask).sum(1), advantages, epsilon=0.2, epsilon_high=0.3)
    assert_equal(gradient(got.losses.mean(), mine), gradient(loss, other))
    for name in CLIPS:
        assert got.metrics[name].mean().item() == pytest.approx(metrics[name], rel=1e-6), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [1e3, -1e3, 1e4, -1e4])
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_finite_where_trls_is_not(gap, advantage, dtype):
    """At a log-ratio of 1e3 TRL's ratio is infinite, in fp64 too."""
    logps = torch.tensor([[gap, 0.0]], dtype=dtype, requires_grad=True)
    old, ref = torch.zeros(1, 2, dtype=dtype), torch.tensor([[-gap, 0.0]], dtype=dtype)
    mask, a = torch.ones(1, 2, dtype=torch.bool), torch.tensor([advantage], dtype=dtype)
    for got in (
        grpo(logps, old, a, mask, ref, beta=0.1),
        dapo(logps, old, a, mask),
        rloo(logps.sum(1), old.sum(1), a),
    ):
        (grad,) = torch.autograd.grad(got.losses.sum(), logps, retain_graph=True)
        assert got.losses.isfinite().all() and grad.isfinite().all()
        assert dtype == torch.float64 or grad.square().sum().isfinite()  # the norm that clipping takes
    if gap > 0 > advantage:
        assert grad[0, 0] > 0, "what became too likely and was bad is still pushed down"


def test_a_masked_token_may_hold_anything():
    logps = torch.tensor([[-1.0, math.nan], [-2.0, -math.inf]], requires_grad=True)
    mask = torch.tensor([[True, False], [True, False]])
    for loss in (grpo, dapo):
        got = loss(logps, logps.detach(), torch.tensor([1.0, -1.0]), mask)
        (grad,) = torch.autograd.grad(got.losses.sum(), logps)
        assert got.losses.tolist() == [-1.0, 1.0] and grad.isfinite().all() and not grad[:, 1].any()


def test_on_policy_gradients_are_those_of_reinforce():
    logps = torch.tensor([-3.0, -1.0], requires_grad=True)
    got = rloo(logps, logps.detach(), torch.tensor([0.7, -0.2]))
    got.losses.sum().backward()
    assert logps.grad.tolist() == pytest.approx([-0.7, 0.2])


def test_dapo_weighs_tokens_alike_whatever_the_micro_batches():
    g = torch.Generator().manual_seed(0)
    logps, old = torch.randn(4, 5, generator=g), torch.randn(4, 5, generator=g)
    mask = torch.arange(5) < torch.tensor([[5], [1], [0], [3]])
    advantages = torch.tensor([1.0, -1.0, 0.5, 2.0])
    whole = dapo(logps, old, advantages, mask).losses.sum()
    parts = [
        dapo(logps[i : i + 1], old[i : i + 1], advantages[i : i + 1], mask[i : i + 1], mask.sum() / 4) for i in range(4)
    ]
    torch.testing.assert_close(sum(p.losses.sum() for p in parts), whole)
    assert dapo(logps, old, advantages, torch.zeros_like(mask)).losses.tolist() == [0.0] * 4


def test_advantages_are_trls():
    """Its formulas stand inside methods that draw samples: written out from grpo_trainer.py and rloo_trainer.py."""
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.2, 0.4, 1.0, 0.1]])
    grouped = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(group_advantages(rewards), grouped, rtol=1e-9, atol=1e-9)
    baseline = (rewards.sum(1, keepdim=True) - rewards) / 3
    torch.testing.assert_close(leave_one_out_advantages(rewards), rewards - baseline, rtol=1e-9, atol=1e-9)


def test_overlong_penalty():
    from trl.rewards import get_soft_overlong_punishment

    lengths = [0, 1, 59, 60, 61, 80, 99, 100, 101, 5000]
    theirs = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=40)([[0] * n for n in lengths])
    assert overlong_penalty(torch.tensor(lengths), limit=100, margin=40).tolist() == pytest.approx(theirs)


@pytest.mark.parametrize("alpha", [0.6, 1.0])
def test_moving_reference(alpha):
    from trl.trainer.callbacks import SyncRefModelCallback

    torch.manual_seed(0)
    policy, reference = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    ours = {name: w.detach().clone() for name, w in reference.named_parameters()}
    mix_weights(ours, dict(policy.named_parameters()), alpha)
    SyncRefModelCallback._sync_target_model(policy, reference, alpha)
    for name, weight in reference.named_parameters():
        torch.testing.assert_close(ours[name], weight.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mix_weights({}, {}, 0.0), r"alpha must be in \(0, 1\], got 0.0"),
        (lambda: mix_weights({"w": torch.ones(1)}, {}, 0.5), "w is only in the reference"),
        (lambda: mix_weights({"w": torch.ones(1)}, {"w": torch.ones(2)}, 1.0), r"w is \(1,\) in the reference"),
        (lambda: grpo(*[torch.zeros(2, 3)] * 2, torch.zeros(3), torch.ones(2, 3)), r"advantages \(N,\), got"),
        (lambda: grpo(*[torch.zeros(2, 3)] * 2, torch.zeros(2), torch.ones(2, 3), beta=0.1), "give ref_token_logps"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_trls_is_not_finite_at_a_log_ratio_of_a_thousand():
    """So that the test above says something."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    mask, old = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2)
    inputs = dict(completion_mask=mask.long(), advantages=torch.tensor([-1.0]), old_per_token_logps=old)
    settings = dict(loss_type="grpo", epsilon_low=0.2, epsilon_high=0.2)
    loss, _ = policy_gradient_loss(GRPOTrainer, torch.tensor([[1e3, 0.0]]), inputs, **settings)
    assert not loss.isfinite()
