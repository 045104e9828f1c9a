"""DPO, KTO and SFT: their formulas, and what they refuse. Beside TRL's code: test_trl_tokens.py."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from plum_core.objectives import balanced_weights, derangement, dpo, find_objective, kto, mismatch_kl, sft

INPUTS = {
    "ordinary": (3.0, 1.0),
    "at initialisation": (0.0, 0.0),  # policy equals reference
    "saturated": (2000.0, 500.0),
}


def log_probs(count: int, kind: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(policy, reference), fp64, (count,)."""
    spread, shift = INPUTS[kind]
    g = torch.Generator().manual_seed(seed)
    ref = -50 + 10 * torch.randn(count, generator=g, dtype=torch.float64)
    noise = torch.randn(count, generator=g, dtype=torch.float64)
    return ref + spread * noise - shift * (noise > 0), ref


def test_dpo_at_step_zero_is_log_two():
    policy, _ = log_probs(8, "ordinary")
    got = dpo(policy, policy.flip(0), policy, policy.flip(0))
    torch.testing.assert_close(got.losses, torch.full((8,), math.log(2), dtype=torch.float64), rtol=0, atol=1e-15)
    assert not got.metrics["rewards/accuracies"].any()  # a tie is not a success


def test_label_smoothing_is_the_cross_entropy_with_a_soft_target():
    policy, ref = log_probs(10, "ordinary")
    got = dpo(*policy.chunk(2), *ref.chunk(2), beta=0.3, label_smoothing=0.2)
    won = torch.sigmoid(got.metrics["rewards/margins"])
    torch.testing.assert_close(got.losses, -(0.8 * won.log() + 0.2 * (1 - won).log()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gap", [1e4, -1e4])
def test_finite_at_saturation(dtype, gap):
    chosen = torch.full((3,), gap, dtype=dtype, requires_grad=True)
    rejected = torch.full((3,), -gap, dtype=dtype, requires_grad=True)
    zero = torch.zeros(3, dtype=dtype)
    for got in (
        dpo(chosen, rejected, zero, zero, label_smoothing=0.1),
        kto(chosen, rejected, zero, zero, kl=torch.zeros((), dtype=dtype)),
    ):
        grads = torch.autograd.grad(got.losses.sum(), (chosen, rejected))
        assert got.losses.isfinite().all() and all(g.isfinite().all() for g in grads)


def test_kto_gradient_survives_where_one_minus_sigmoid_rounds_to_zero():
    """At a reward of 20 in fp32, 1 - sigmoid is exactly 0, and with it TRL's loss value."""
    x = torch.tensor([200.0], requires_grad=True)
    loss = kto(x, x[:0], torch.zeros(1), torch.zeros(0), kl=torch.zeros(())).losses
    assert 0 < loss.item() == pytest.approx(math.exp(-20), rel=1e-5)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 100])
def test_derangement(count):
    prompts = list(range(count))
    for seed in range(20):
        order = derangement(prompts, seed)
        assert sorted(order) == prompts
        assert count < 2 or all(i != j for i, j in enumerate(order))
        assert order == derangement(prompts, seed)
    assert count < 3 or len({tuple(derangement(prompts, s)) for s in range(20)}) > 1


@pytest.mark.parametrize("prompts", ["aabbcc", "abcabcabc", "aaab", "aaaa", "aabb", "aaabbc"])
def test_derangement_avoids_the_same_prompt(prompts):
    for seed in range(20):
        order = derangement(prompts, seed)
        assert sorted(order) == list(range(len(prompts)))
        assert all(i != j for i, j in enumerate(order))
        if max(map(prompts.count, prompts)) * 2 <= len(prompts):
            assert all(prompts[i] != prompts[j] for i, j in enumerate(order))


def test_mismatch_kl():
    policy = torch.tensor([1.0, 4.0], requires_grad=True)
    kl = mismatch_kl(policy, torch.tensor([0.0, 2.0]))
    assert kl.item() == 1.5 and not kl.requires_grad
    assert mismatch_kl(torch.tensor([-3.0]), torch.zeros(1)).item() == 0  # clamped
    assert mismatch_kl(torch.zeros(0), torch.zeros(0)).item() == 0  # and not NaN


def test_balanced_weights():
    assert balanced_weights(30, 10) == (pytest.approx(1 / 3), 1.0)
    assert balanced_weights(10, 30) == (1.0, pytest.approx(1 / 3))
    assert balanced_weights(0, 5) == (1.0, 1.0)


def test_sft_is_nats_a_token():
    logps = torch.tensor([-6.0, -2.0], requires_grad=True)
    got = sft(logps, torch.tensor([3, 4]))
    assert got.losses.tolist() == [2.0, 0.5]
    got.losses.mean().backward()
    assert logps.grad.tolist() == pytest.approx([-1 / 6, -1 / 8])


def test_what_cannot_be_honoured_is_refused():
    with pytest.raises(ValueError, match=r"unknown objective 'dop'.*did you mean dpo"):
        find_objective("dop")
    with pytest.raises(ValueError, match="kto cannot honour label_smoothing"):
        find_objective("kto", {"label_smoothing": 0.1})
    with pytest.raises(ValueError, match=r"rft cannot honour beta=0[.]1: it takes none"):
        find_objective("rft", {"beta": 0.1})
    assert find_objective("dpo", {"beta": 0.1, "label_smoothing": 0.1}).compute is dpo


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: dpo(a, a, a, a[:1]), "one B"),
        (lambda a: dpo(a, a, a, a, beta=0.0), "beta must be > 0, got 0.0"),
        (lambda a: dpo(a, a, a, a, label_smoothing=0.5), "label_smoothing"),
        (lambda a: kto(a, a, a[:1], a, kl=a[0]), "one B"),
        (lambda a: kto(a, a, a, a, kl=a[0], beta=-1.0), "beta"),
        (lambda a: kto(a, a, a, a, kl=a[0], desirable_weight=-1.0), "desirable_weight=-1.0"),
        (lambda a: sft(a, a[:1]), "one B"),
        (lambda a: dpo(*[a.view(1, -1)] * 4), "one B"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2))
