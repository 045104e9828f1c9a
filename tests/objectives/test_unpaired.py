"""Losses of single labels, and the running mean that shifts BCO's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from plum_core.objectives import OBJECTIVES, RunningMean, apo_zero_unpaired, bco_unpaired, kto


def rows(count: int, seed: int) -> torch.Tensor:
    return -10 * torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_bco_is_the_classifier_whose_logit_is_shifted():
    chosen, rejected = rows(3, 0).requires_grad_(), rows(2, 1)
    got = bco_unpaired(chosen, rejected, rows(3, 2), rows(2, 3), shift=torch.tensor(0.8), beta=0.5)
    logits = 0.5 * torch.cat((chosen - rows(3, 2), rejected - rows(2, 3))) - 0.4
    labels = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    wanted = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    torch.testing.assert_close(got.losses, wanted, rtol=1e-6, atol=1e-6)  # the shift came in fp32
    assert got.metrics["delta"].item() == pytest.approx(0.4)


def test_bco_of_pairs_is_the_unpaired_one_without_a_shift():
    arguments = rows(4, 0), rows(4, 1), rows(4, 2), rows(4, 3)
    alone = bco_unpaired(*arguments, shift=torch.zeros(())).losses
    torch.testing.assert_close(OBJECTIVES["bco"].compute(*arguments).losses, alone[:4] + alone[4:], rtol=0, atol=0)


def test_nothing_is_propagated_through_the_shift():
    shift = torch.ones((), requires_grad=True)
    assert not bco_unpaired(*[torch.zeros(1)] * 4, shift=shift).losses.requires_grad


def test_apo_zero_is_kto_about_zero():
    arguments = rows(3, 0), rows(2, 1), rows(3, 2), rows(2, 3)
    weights = {"beta": 0.3, "desirable_weight": 0.5, "undesirable_weight": 2.0}
    about_zero = kto(*arguments, kl=torch.zeros(()), **weights).losses
    torch.testing.assert_close(apo_zero_unpaired(*arguments, **weights).losses, about_zero, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sizes", [(3, 4), (1, 0, 6), (7,)])
def test_a_running_mean_is_the_mean_of_everything(sizes):
    values, running = rows(7, 5), RunningMean()
    for part in values.split(sizes):
        got = running.add(part)
    assert got.item() == pytest.approx(values.mean().item(), rel=1e-12)
    assert running.state.tolist() == [got.item(), 7.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("gap", [1e3, -1e3, 1e4, -1e4])
def test_finite_at_saturation(gap, dtype):
    chosen = torch.full((3,), gap, dtype=dtype, requires_grad=True)
    rejected = torch.full((2,), -gap, dtype=dtype, requires_grad=True)
    arguments = chosen, rejected, torch.zeros(3, dtype=dtype), torch.zeros(2, dtype=dtype)
    for got in (apo_zero_unpaired(*arguments), bco_unpaired(*arguments, shift=torch.tensor(-gap))):
        grads = torch.autograd.grad(got.losses.sum(), (chosen, rejected))
        assert got.losses.isfinite().all() and all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("name", ["kto", "apo_zero_unpaired", "bco_unpaired"])
@pytest.mark.parametrize(("wanted", "unwanted"), [(3, 0), (0, 3), (0, 0)])
def test_either_class_may_be_empty(name, wanted, unwanted):
    spec = OBJECTIVES[name]
    given = {need: torch.zeros(()) for need in spec.needs}
    arguments = torch.zeros(wanted), torch.zeros(unwanted), torch.zeros(wanted), torch.zeros(unwanted)
    got = spec.compute(*arguments, **given)
    assert got.losses.shape == (wanted + unwanted,) and got.losses.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: bco_unpaired(a, a, a[:1], a, shift=a[0]), "one B"),
        (lambda a: bco_unpaired(a, a, a, a, shift=a[0], beta=0.0), "beta must be > 0, got 0.0"),
        (lambda a: apo_zero_unpaired(a, a, a, a, undesirable_weight=-1.0), "undesirable_weight must be >= 0"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2))
