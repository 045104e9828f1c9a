"""Every objective that TRL 1.16 has too: its own loss code, values and gradients of every token, to 1e-9 in fp64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from plum_core.objectives import OBJECTIVES, Objective, find_objective, sft
from tests.objectives.cases import KINDS, PAIRS, sums, token_pairs
from tests.objectives.trl_code import dpo_loss, fake_trainer, kto_loss


@pytest.fixture(autouse=True)
def in_fp64() -> Iterator[None]:
    """TRL makes some constants in the default dtype (EXO's label smoothing), which must not be the smaller one."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_equal(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    """(loss, gradient) to 1e-9, of each number where it is large and absolutely where it is small."""
    for got, wanted in zip(ours, theirs, strict=True):
        assert wanted.isfinite().all(), "TRL's is not finite here: nothing is compared"
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
    assert theirs[1].any(), "nothing has a gradient: nothing is compared"


def gradient(loss: Tensor, leaf: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def leaves(tokens: Tensor) -> tuple[Tensor, Tensor]:
    return tokens.clone().requires_grad_(), tokens.clone().requires_grad_()


def call(name: str, values: dict[str, Tensor], **options: float) -> Objective:
    """The objective from what ``sums`` gives, and the alignments of wpo."""
    spec = find_objective(name, options)
    arguments = [values["chosen_logps"], values["rejected_logps"]]
    if spec.needs_reference:
        arguments += [values["ref_chosen_logps"], values["ref_rejected_logps"]]
    given: dict[str, Any] = {need: (values[f"chosen_{need}"], values[f"rejected_{need}"]) for need in spec.needs}
    options = {k: v for k, v in options.items() if k not in spec.weigh_options}
    return spec.compute(*arguments, **spec.named(given), **options)


SAME = [  # ours, TRL's, options of both
    ("dpo", "sigmoid", {}),
    ("dpo", "sigmoid", {"beta": 0.5}),
    ("robust_dpo", "robust", {"label_smoothing": 0.2}),
    ("ipo", "ipo", {"beta": 0.3}),
    ("hinge", "hinge", {}),
    ("apo_zero", "apo_zero", {}),
    ("apo_down", "apo_down", {}),
    ("exo", "exo_pair", {"label_smoothing": 1e-3}),
    ("aot", "aot", {"label_smoothing": 0.1}),
    ("aot", "aot", {"label_smoothing": 0.0}),
    ("aot_unpaired", "aot_unpaired", {"label_smoothing": 0.1}),
    ("aot_unpaired", "aot_unpaired", {"label_smoothing": 0.0}),
    ("bco", "bco_pair", {}),
    ("nca", "nca_pair", {}),
    ("sppo", "sppo_hard", {"beta": 0.01}),
    ("dpo_norm", "sigmoid_norm", {"beta": 2.0}),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("ours", "theirs", "options"), SAME, ids=str)
def test_pairs(ours, theirs, options, kind):
    pairs = token_pairs(kind)
    mine, other = leaves(pairs.tokens)
    got = call(ours, sums(pairs, mine), **options)
    loss, metrics = dpo_loss(theirs, other, pairs.lengths, pairs.ref, **options)
    assert_equal(gradient(got.losses.mean(), mine), gradient(loss, other))
    for name, values in got.metrics.items():
        assert values.mean().item() == pytest.approx(metrics[name], rel=1e-7, abs=1e-9), name  # some are fp32 in TRL


def test_no_loss_type_of_trls_is_left_out():
    """What its DPOTrainer has and the table lacks is named here."""
    from pathlib import Path

    from trl.trainer import dpo_trainer

    source = Path(dpo_trainer.__file__).read_text()
    theirs = {line.split('"')[1] for line in source.splitlines() if "if loss_type ==" in line}
    assert theirs - {loss_type for _, loss_type, _ in SAME} == {"sft", "discopop"}  # sft: with rpo; discopop: not ours


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_ld_dpo(alpha, kind):
    pairs = token_pairs(kind)
    mine, other = leaves(pairs.tokens)
    weights = torch.zeros_like(mine)
    for i in range(PAIRS):
        rows = i, PAIRS + i
        weighed = OBJECTIVES["ld_dpo"].weigh(*(range(pairs.lengths[r]) for r in rows), alpha=alpha)
        for row, w in zip(rows, weighed, strict=True):
            weights[row, : len(w)] = torch.tensor(w)
    got = call("ld_dpo", sums(pairs, mine * weights), alpha=alpha)
    loss, _ = dpo_loss("sigmoid", other, pairs.lengths, pairs.ref, ld_alpha=alpha)
    assert_equal(gradient(got.losses.mean(), mine), gradient(loss, other))


@pytest.mark.parametrize("kind", KINDS)
def test_wpo(kind):
    pairs = token_pairs(kind)
    collisions = -torch.rand(pairs.tokens.shape, generator=torch.Generator().manual_seed(3)) * (pairs.tokens != 0)
    mine, other = leaves(pairs.tokens)
    aligned = ((mine.detach() - collisions).sum(1) / pairs.lengths).chunk(2)
    values = sums(pairs, mine) | {"chosen_alignment": aligned[0], "rejected_alignment": aligned[1]}
    got = call("wpo", values, beta=0.5)
    loss, _ = dpo_loss("sigmoid", other, pairs.lengths, pairs.ref, collisions=collisions, beta=0.5)
    assert_equal(gradient(got.losses.mean(), mine), gradient(loss, other))


@pytest.mark.parametrize("kind", KINDS)
def test_rpo(kind):
    """TRL's likelihood is a mean over the tokens of a batch, the paper's of completions: alike at equal lengths."""
    pairs = token_pairs(kind, equal=True)
    mine, other = leaves(pairs.tokens)
    values = sums(pairs, mine)
    nll = sft(values["chosen_logps"], values["chosen_lengths"]).losses
    got = call("rpo", values).losses.mean() + 0.7 * nll.mean()  # nll_weight of training
    loss, _ = dpo_loss(["sigmoid", "sft"], other, pairs.lengths, pairs.ref, loss_weights=[1.0, 0.7])
    assert_equal(gradient(got, mine), gradient(loss, other))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ours", ["simpo", "cpo"])
def test_cpo_and_simpo(ours, kind):
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    pairs = token_pairs(kind)
    mine, other = leaves(pairs.tokens)
    values, settings = sums(pairs, other), {"beta": 1.5, "label_smoothing": 0.1}
    if ours == "simpo":
        got = call("simpo", sums(pairs, mine), gamma=0.6, **settings)
        given = [values[f"{side}_logps"] / values[f"{side}_lengths"] for side in ("chosen", "rejected")]
        me = fake_trainer(CPOTrainer, alpha=0.0, loss_type="simpo", simpo_gamma=0.6, **settings)
    else:
        got = call("cpo", sums(pairs, mine), **settings)
        given = [values["chosen_logps"], values["rejected_logps"]]
        me = fake_trainer(CPOTrainer, alpha=0.0, loss_type="sigmoid", **settings)
    losses, chosen_rewards, rejected_rewards = me.cpo_loss(*given)
    assert_equal(gradient(got.losses.mean(), mine), gradient(losses.mean(), other))
    torch.testing.assert_close(got.metrics["rewards/chosen"], chosen_rewards, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.metrics["rewards/rejected"], rejected_rewards, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_orpo(kind, monkeypatch):
    """TRL casts to fp32 whatever it is given; with the cast taken out it is the same formula in fp64."""
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    pairs = token_pairs(kind)
    tokens = torch.where(pairs.tokens == 0, pairs.tokens, pairs.tokens.clamp(max=-1e-5))
    mine, other = leaves(tokens)
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    me = fake_trainer(ORPOTrainer, beta=0.4)
    values = sums(pairs, other)
    means = [values[f"{side}_logps"] / values[f"{side}_lengths"] for side in ("chosen", "rejected")]
    ratios, *_ = me.odds_ratio_loss(*means)  # negated by its caller
    got = call("orpo", sums(pairs, mine), beta=0.4)
    assert_equal(gradient(got.losses.mean(), mine), gradient(-ratios.mean(), other))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", ["1011001", "1111111", "0000000"])
@pytest.mark.parametrize("name", ["kto", "apo_zero_unpaired"])
def test_labels(name, labels, kind):
    label = torch.tensor([c == "1" for c in labels])
    pairs = token_pairs(kind)
    mine, other = leaves(pairs.tokens[:PAIRS])
    ref, policy = pairs.ref[:PAIRS], mine.sum(1)
    settings = {"beta": 0.2, "desirable_weight": 0.7, "undesirable_weight": 1.3}
    kl = pairs.tokens[PAIRS:].sum(1), pairs.ref[PAIRS:]  # the mismatched completions
    given = {"kl": (kl[0] - kl[1]).mean().clamp(min=0)} if name == "kto" else {}
    arguments = policy[label], policy[~label], ref[label], ref[~label]
    got = OBJECTIVES[name].compute(*arguments, **given, **settings)
    loss, metrics = kto_loss(name, other, ref, label, kl=kl if name == "kto" else None, **settings)
    assert_equal(gradient(got.losses.mean(), mine), gradient(loss, other))
    for metric, values in got.metrics.items():
        if len(values):
            wanted = pytest.approx(metrics[metric], rel=1e-7, abs=1e-9)  # some are fp32 in TRL
            assert values.mean().item() == wanted, metric


def test_the_comparison_can_fail():
    pairs = token_pairs("ordinary")
    mine, other = leaves(pairs.tokens)
    got = call("dpo", sums(pairs, mine), beta=0.1 + 1e-7)
    loss, _ = dpo_loss("sigmoid", other, pairs.lengths, pairs.ref)
    with pytest.raises(AssertionError):
        assert_equal(gradient(got.losses.mean(), mine), gradient(loss, other))
