"""Every pairwise objective: the papers' formulas; saturation; mistakes. Beside TRL's code: test_trl_tokens.py."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from plum_core.objectives import OBJECTIVES, dpo, dpop, find_objective, orpo, simpo
from tests.objectives.test_objectives import log_probs

PAIRWISE = [name for name, spec in OBJECTIVES.items() if spec.data == "pairs"]
LENGTHS = torch.tensor([3, 1, 7, 2, 5, 4, 1, 6, 2, 2])  # of five chosen, then of five rejected


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def call(name: str, policy: Tensor, ref: Tensor, **options: float):
    spec = find_objective(name, options)
    halves = [*policy.chunk(2), *(ref.chunk(2) if spec.needs_reference else ())]
    chosen, rejected = LENGTHS[: len(policy)].chunk(2)
    aligned = torch.zeros_like(halves[0])
    needs = {"lengths": (chosen, rejected), "alignment": (aligned, aligned)}
    options = {k: v for k, v in options.items() if k not in spec.weigh_options}
    return spec.compute(*halves, **spec.named({name: needs[name] for name in spec.needs}), **options)


def test_orpo_is_the_papers_formula():
    chosen, rejected = torch.tensor([-0.3, -4.0]), torch.tensor([-1.2, -0.2])
    odds = [p.exp() / (1 - p.exp()) for p in (chosen / 2, rejected / 4)]
    want = -0.5 * torch.log(torch.sigmoid(torch.log(odds[0] / odds[1])))
    two, four = torch.full((2,), 2), torch.full((2,), 4)
    got = orpo(chosen, rejected, chosen_lengths=two, rejected_lengths=four, beta=0.5)
    torch.testing.assert_close(got.losses, want, rtol=1e-12, atol=1e-12)


def test_dpop_is_the_papers_formula():
    policy, ref = log_probs(10, "ordinary")
    (c, r), (rc, rr) = policy.chunk(2), ref.chunk(2)
    want = -F.logsigmoid(0.3 * ((c - rc) - (r - rr) - 7.0 * torch.maximum(torch.zeros(5), rc - c)))
    torch.testing.assert_close(dpop(c, r, rc, rr, beta=0.3, penalty=7.0).losses, want, rtol=1e-12, atol=1e-12)
    assert torch.equal(dpop(c, r, rc, rr, penalty=0.0).losses, dpo(c, r, rc, rr).losses)


def test_simpo_asks_for_a_margin():
    even = torch.tensor([-4.0])
    got = simpo(even, 2 * even, chosen_lengths=torch.tensor([2]), rejected_lengths=torch.tensor([4]), gamma=1.5)
    assert got.losses.item() == pytest.approx(math.log1p(math.exp(1.5)))


def test_ipo_in_sums_is_the_papers_formula():
    policy, ref = log_probs(10, "ordinary")
    d = (policy[:5] - ref[:5]) - (policy[5:] - ref[5:])
    torch.testing.assert_close(call("ipo", policy, ref, beta=0.2, sums=1).losses, (d - 2.5) ** 2)


@pytest.mark.parametrize("name", PAIRWISE)
def test_gradients_point_apart_at_step_zero(name):
    """A small step along them raises the chosen against the rejected; none is frozen there."""
    policy, _ = log_probs(10, "ordinary")
    leaf = (policy * LENGTHS / 20).clone().requires_grad_()
    call(name, leaf, leaf.detach().clone()).losses.sum().backward()
    chosen, rejected = (-leaf.grad).chunk(2)
    assert (chosen - rejected > 0).all()


@pytest.mark.parametrize("name", PAIRWISE)
def test_gradcheck(name):
    policy, ref = log_probs(6, "ordinary")
    options = {"label_smoothing": 0.1} if name == "exo" else {}
    assert torch.autograd.gradcheck(lambda x: call(name, x, ref, **options).losses, policy.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gap", [1e4, -1e4])
@pytest.mark.parametrize("name", PAIRWISE)
def test_finite_at_saturation(name, gap, dtype):
    leaf = torch.tensor([gap, -gap], dtype=dtype, requires_grad=True)
    got = call(name, leaf, torch.zeros(2, dtype=dtype))
    (grad,) = torch.autograd.grad(got.losses.sum(), leaf)
    assert got.losses.isfinite().all() and grad.isfinite().all()


@pytest.mark.parametrize("name", PAIRWISE)
def test_finite_where_every_token_is_certain(name):
    """Log-probs of 0: the odds of ORPO are infinite there."""
    leaf = torch.zeros(2, dtype=torch.float32, requires_grad=True)
    got = call(name, leaf, torch.zeros(2, dtype=torch.float32))
    (grad,) = torch.autograd.grad(got.losses.sum(), leaf)
    assert got.losses.isfinite().all() and grad.isfinite().all()


@pytest.mark.parametrize("name", PAIRWISE)
def test_metrics_and_empty_batches(name):
    policy, ref = log_probs(10, "ordinary")
    got = call(name, policy, ref)
    assert [m for m in got.metrics if m != "weights"] == [
        "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected",
    ]  # fmt: skip
    assert all(len(values) == 5 and not values.requires_grad for values in got.metrics.values())
    assert call(name, policy[:0], ref[:0]).losses.shape == (0,)


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("option", sorted({"beta", "label_smoothing", "gamma", "penalty", "sums", "alpha"}))
def test_options_out_of_range_are_refused(name, option):
    policy, ref = log_probs(10, "ordinary")
    spec = OBJECTIVES[name]
    if option not in spec.options | spec.weigh_options:
        with pytest.raises(ValueError, match=f"{name} cannot honour {option}"):
            find_objective(name, {option: 0.1})
    elif option != "gamma":  # any margin may be asked for
        with pytest.raises(ValueError, match=option):
            find_objective(name, {option: -1.0})
    if option in spec.options and option != "gamma":
        with pytest.raises(ValueError, match=option):
            call(name, policy, ref, **{option: -1.0})
