"""What a forward gives an objective: plain and weighted log-probs, alignments, log-probs of tokens; and the items."""

from __future__ import annotations

import pytest
import torch

from plum_core.objectives import OBJECTIVES, dpo, ld_weights, span_weights, wpo
from plum_core.training import PreferenceConfig
from plum_core.training.batches import Example
from plum_core.training.items import Item, mismatched, sides_of
from plum_core.training.logps import completion_logps, completion_scores, padded_logps
from plum_core.training.preference import make_round
from plum_core.training.world import World


def softmax_of(decoder, example):
    """(T, V) log-probs at the scored positions, by the decoder alone and in fp64."""
    ids = torch.tensor([example.prompt_ids + example.completion_ids])
    logits = (decoder(ids)[0] @ decoder.head_weight.T).double()
    if decoder.config.logit_softcap is not None:
        logits = decoder.config.logit_softcap * torch.tanh(logits / decoder.config.logit_softcap)
    return torch.log_softmax(logits, -1)[len(example.prompt_ids) - 1 : -1]


@pytest.mark.parametrize("cap", [None, 1.5])
def test_scores_are_the_softmax(make, cap):
    decoder, examples = make.decoder(logit_softcap=cap), make.examples(6)
    draw = torch.Generator().manual_seed(0)
    weighted = [
        Example(
            prompt_ids=e.prompt_ids,
            completion_ids=e.completion_ids,
            weights=tuple(torch.rand(len(e.completion_ids), generator=draw).tolist()) if i % 2 else None,
        )
        for i, e in enumerate(examples)
    ]
    with torch.no_grad():
        got = completion_scores(decoder, weighted, alignment=True)
        tokens = padded_logps(decoder, weighted)
        plain = completion_logps(decoder, examples)
        for i, e in enumerate(weighted):
            full = softmax_of(decoder, e)
            exact = full.gather(1, torch.tensor(e.completion_ids).unsqueeze(1)).squeeze(1)
            weights = torch.tensor(e.weights or (1.0,) * len(exact)).double()
            collision = full.exp().square().sum(1).log()
            size = len(exact)
            for ours, wanted in (
                (tokens[i, :size], exact),
                (got.plain[i], exact.sum()),
                (got.logps[i], (exact * weights).sum()),
                (got.alignment[i], (exact - collision).mean()),
            ):
                torch.testing.assert_close(ours.double(), wanted, rtol=1e-5, atol=1e-5)
            assert not tokens[i, size:].any()
    torch.testing.assert_close(got.plain, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["ld_dpo", "span_dpo"])
def test_weights_are_those_of_the_pair_and_the_likelihood_is_not_weighed(name, make, tmp_path):
    option = {"alpha": 0.3} if name == "ld_dpo" else {"common_weight": 0.2}
    settings = PreferenceConfig(objective=name, tokens_per_batch=120, nll_weight=0.7, replay_weight=0.0, **option)
    decoder, far = make.decoder(), make.decoder(seed=9)
    this = make_round(decoder, make.pairs(24), [], settings, 5, World())
    this.add_reference(far, tmp_path)
    metrics = this(0)
    row = metrics.report(metrics.vector())
    weigh = ld_weights if name == "ld_dpo" else span_weights
    losses, nll = [], []
    with torch.no_grad():
        for item in (this.items[i] for i in this.plan[0]):
            weights = weigh(*(e.completion_ids for e in item.examples), **option)
            assert tuple(e.weights for e in item.examples) == weights
            tokens = [padded_logps(d, item.examples) for d in (decoder, far)]
            sums = [
                torch.tensor(
                    [sum(w * x for w, x in zip(ws, row, strict=False)) for ws, row in zip(weights, t, strict=True)]
                )
                for t in tokens
            ]
            losses.append(dpo(sums[0][:1], sums[0][1:], sums[1][:1], sums[1][1:]).losses)
            nll.append(-tokens[0][0].sum() / len(weights[0]))
    wanted = torch.cat(losses).mean() + 0.7 * torch.stack(nll).mean()
    assert row["loss"] == pytest.approx(wanted.item(), rel=1e-5)


def test_a_step_of_wpo_is_the_formula(make, tmp_path):
    settings = PreferenceConfig(objective="wpo", tokens_per_batch=120, nll_weight=0.0, replay_weight=0.0)
    decoder, far = make.decoder(), make.decoder(seed=9)
    this = make_round(decoder, make.pairs(24), [], settings, 5, World())
    this.add_reference(far, tmp_path)
    metrics = this(0)
    row = metrics.report(metrics.vector())
    sides = [[this.items[i].examples[k] for i in this.plan[0]] for k in (0, 1)]
    with torch.no_grad():
        scores = [completion_scores(decoder, side, alignment=True) for side in sides]
        ref = [completion_logps(far, side) for side in sides]
        aligned = {"chosen_alignment": scores[0].alignment, "rejected_alignment": scores[1].alignment}
        got = wpo(scores[0].logps, scores[1].logps, *ref, **aligned)
    assert row["loss"] == pytest.approx(got.losses.mean().item(), rel=1e-5)
    assert row["weights"] == pytest.approx(got.metrics["weights"].mean().item(), rel=1e-5) and row["weights"] != 1


def one(i: int, desirable: bool = True) -> Item:
    return Item(examples=(Example(prompt_ids=(i, i), completion_ids=(i + 10,)),), desirable=desirable)


def test_mismatched_completions_are_within_the_batch_and_never_ones_own():
    items = [one(i) for i in range(7)]
    plan = [[3, 0, 5], [1, 6], [2], [4]]
    for seed in range(10):
        steps = mismatched(items, plan, seed)
        assert [len(s) for s in steps] == [3, 2, 0, 0]  # a trailing batch of one has nobody to be mismatched with
        for batch, step in zip(plan, steps, strict=False):
            assert [e.prompt_ids for e in step] == [items[i].examples[0].prompt_ids for i in batch][: len(step)]
            assert sorted(e.completion_ids for e in step) == sorted(
                items[i].examples[0].completion_ids for i in batch[: len(step)]
            )
            assert all(
                e.completion_ids != items[i].examples[0].completion_ids for e, i in zip(step, batch, strict=False)
            )


def test_kto_with_a_trailing_batch_of_one(make, tmp_path):
    settings = PreferenceConfig(objective="kto", tokens_per_batch=120, nll_weight=0.0, replay_weight=0.0)
    this = make_round(make.decoder(), make.labels(9), [], settings, 5, World())
    this.plan = [[0, 1, 2, 3, 4, 5, 6, 7], [8]]
    this.mismatched = mismatched(this.items, this.plan, 5)
    this.add_reference(make.decoder(seed=9), tmp_path)
    rows = [m.report(m.vector()) for m in (this(0), this(1))]
    assert rows[1]["kl"] == 0 and rows[0]["loss"] > 0
    weights = {k: this.options[k] for k in ("desirable_weight", "undesirable_weight")}
    assert min(weights.values()) < max(weights.values()) == 1.0


def test_class_weights_come_from_the_balance_unless_they_are_set(make):
    labels = make.labels(40)
    wanted = sum(label.label for label in labels)
    for name in ("kto", "apo_zero_unpaired"):
        this = make_round(make.decoder(), labels, [], PreferenceConfig(objective=name), 1, World())
        ratio = this.options["desirable_weight"] * wanted / (this.options["undesirable_weight"] * (40 - wanted))
        assert ratio == pytest.approx(1)
        given = PreferenceConfig(objective=name, desirable_weight=1.5)
        assert make_round(make.decoder(), labels, [], given, 1, World()).options == {"desirable_weight": 1.5}
    assert "desirable_weight" not in OBJECTIVES["bco_unpaired"].options


def test_sides():
    pair = Item(examples=one(0).examples * 2)
    items = [pair, one(1), one(2, desirable=False)]
    assert sides_of(items, [2, 0, 1]) == ([(0, 0), (1, 0)], [(2, -1), (0, -1)])


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="1 weights for 2 completion tokens"):
        Example(prompt_ids=(1,), completion_ids=(2, 3), weights=(1.0,))
