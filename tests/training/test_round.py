"""A round: the right loss, whatever the micro-batches; the right refusals."""

from __future__ import annotations

import math

import pytest
import torch

from plum_core.objectives import OBJECTIVES, dpo, kto, mismatch_kl
from plum_core.training import OptimConfig, PreferenceConfig, train_round
from plum_core.training.logps import completion_logps
from plum_core.training.preference import _items, make_round
from plum_core.training.preference_config import GroupSettings, LoraSettings, MovingSettings
from plum_core.training.preference_step import Round
from plum_core.training.world import World


def config(**changes) -> PreferenceConfig:
    settings = dict(
        tokens_per_batch=120, replay_examples_per_step=5, save_every=3, optim=OptimConfig(learning_rate=3e-3)
    )
    return PreferenceConfig(**settings | changes)


def gradients(decoder, this, step):
    """(metrics, gradient) of one step."""
    decoder.zero_grad()
    metrics = this(step)
    return metrics.report(metrics.vector()), torch.cat([w.grad.flatten() for w in decoder.parameters()])


def test_the_first_step_of_dpo_is_log_two(make, tmp_path):
    rows = []
    train_round(
        make.decoder(), make.pairs(24), [], config(nll_weight=0.0), seed=1, folder=tmp_path, on_metrics=rows.append
    )
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[0]["rewards/chosen"] == pytest.approx(0, abs=1e-6)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert set(rows[0]) >= {"rewards/rejected", "rewards/accuracies", "rewards/margins", "grad_norm", "tokens"}
    assert set(rows[0]) >= {"logps/chosen", "logps/rejected", "nll/chosen", "step", "step_s"}


@pytest.mark.parametrize("objective", ["dpo", "kto", "rft"])
def test_a_step_is_the_formula(objective, make, tmp_path):
    """Loss and gradient against the terms written out over the whole batch."""
    settings = config(objective=objective, nll_weight=0.7, replay_weight=0.3)
    decoder, replay = make.decoder(), make.examples(7)
    records = make.records(objective, 24)
    items = _items(records, settings)
    this = Round(decoder, items, replay, settings, 5, World())
    this.add_reference(make.decoder(seed=9), tmp_path)
    row, got = gradients(decoder, this, 0)

    def logps(examples, model=decoder):
        return completion_logps(model, examples)

    batch = [items[i] for i in this.plan[0]]
    reference = make.decoder(seed=9).requires_grad_(False)
    good = [b.examples[0] for b in batch if b.desirable]
    bad = [b.examples[-1] for b in batch if not b.desirable or len(b.examples) == 2]
    lengths = torch.tensor([len(e.completion_ids) for e in good])
    decoder.zero_grad()
    nll = (-logps(good) / lengths).mean()
    drawn = this.replay.drawn(0)
    replayed = -logps(drawn).sum() / sum(len(e.completion_ids) for e in drawn)
    total = 0.7 * nll + 0.3 * replayed
    if objective == "dpo":
        total = total + dpo(logps(good), logps(bad), logps(good, reference), logps(bad, reference)).losses.mean()
    if objective == "kto":
        assert good and bad, "the batch must hold both classes"
        kl = mismatch_kl(logps(this.mismatched[0]), logps(this.mismatched[0], reference))
        wanted = sum(item.desirable for item in items)
        rarest = min(wanted, len(items) - wanted)
        weights = dict(desirable_weight=rarest / wanted, undesirable_weight=rarest / (len(items) - wanted))
        arguments = logps(good), logps(bad), logps(good, reference), logps(bad, reference)
        total = total + kto(*arguments, kl=kl, **weights).losses.mean()
        assert row["kl"] == pytest.approx(kl.item(), abs=1e-5)
    total.backward()
    exact = torch.cat([w.grad.flatten() for w in decoder.parameters()])
    assert row["loss"] == pytest.approx(total.item(), rel=1e-5)
    torch.testing.assert_close(got, exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_micro_batches_change_nothing(objective, make, tmp_path):
    results = []
    for micro in (None, 60, 30):
        settings = config(objective=objective, micro_batch_tokens=micro)
        decoder = make.decoder()
        this = make_round(decoder, make.records(objective, 24), make.examples(7), settings, 5, World())
        this.add_reference(make.decoder(seed=9), tmp_path)
        results.append(gradients(decoder, this, 1))
    (row, gradient), *others = results
    for other_row, other in others:
        other_row["flops"] = row["flops"]  # prompts that one forward shares may be computed by two
        assert other_row == pytest.approx(row, rel=1e-5, abs=1e-5)
        torch.testing.assert_close(other, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", [name for name, spec in OBJECTIVES.items() if spec.data == "pairs"])
def test_training_on_pairs_sets_the_chosen_apart(objective, make, tmp_path):
    """A few steps through the whole loop, without the terms that raise the chosen for another reason."""
    least = 1e-3 if OBJECTIVES[objective].needs_nll else 0.0
    settings = config(objective=objective, nll_weight=least, average_last=0.0, epochs=4)
    rows = train_round(make.decoder(), make.pairs(24), [], settings, seed=1, folder=tmp_path).rows
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert rows[-1]["rewards/margins"] > rows[0]["rewards/margins"]
    assert (tmp_path / "reference.safetensors").exists() == OBJECTIVES[objective].needs_reference


def test_ranks_sum_to_one_step(make, tmp_path):
    """Two ranks' shares, computed one after the other, add up to the whole step's gradient and metrics."""
    settings = config()
    items, decoder = _items(make.pairs(24), settings), make.decoder()

    def of(world):
        this = Round(decoder, items, make.examples(7), settings, 5, World())
        this.add_reference(make.decoder(seed=9), tmp_path)
        this.world = this.replay.world = world
        decoder.zero_grad()
        metrics = this(0)
        return metrics, torch.cat([w.grad.flatten() for w in decoder.parameters()])

    whole, gradient = of(World())
    shares = [of(World(rank=rank, size=2)) for rank in range(2)]
    assert all(g.any() for _, g in shares)
    torch.testing.assert_close(shares[0][1] + shares[1][1], gradient, rtol=1e-4, atol=1e-6)
    summed = whole.report(shares[0][0].vector() + shares[1][0].vector())
    assert summed == pytest.approx(whole.report(whole.vector()), rel=1e-5, abs=1e-5)


def test_a_batch_without_a_chosen_completion(make, tmp_path):
    labels = [label for label in make.labels(40) if not label.label]
    decoder = make.decoder()
    result = train_round(decoder, labels, [], config(objective="kto"), seed=0, folder=tmp_path)
    assert all(math.isfinite(value) for row in result.rows for value in row.values())
    assert "logps/chosen" not in result.rows[0] and "rewards/rejected" in result.rows[0]


def test_kto_of_one_label(make, tmp_path):
    result = train_round(make.decoder(), make.labels(1), [], config(objective="kto"), seed=0, folder=tmp_path)
    assert result.rows[0]["kl"] == 0 and math.isfinite(result.rows[-1]["loss"])


def test_rejection_sampling_takes_what_passed_from_either_record(make):
    labels = make.labels(20)
    from_labels = _items(labels, config(objective="rft"))
    assert [i.examples[0].completion_ids for i in from_labels] == [
        label.completion_token_ids for label in labels if label.label
    ]
    pairs = make.pairs(4)
    assert [i.examples[0].completion_ids for i in _items(pairs, config(objective="rft"))] == [
        p.chosen_token_ids for p in pairs
    ]


def test_the_result_is_the_average_of_the_tail(make, tmp_path):
    pairs, seen, decoder = make.pairs(24), [], make.decoder()
    result = train_round(
        decoder,
        pairs,
        [],
        config(average_last=0.5),
        seed=3,
        folder=tmp_path,
        on_metrics=lambda _: seen.append(make.flat(decoder).clone()),
    )
    tail = seen[len(seen) // 2 :]
    assert result.averaged == len(tail) < len(seen) == result.steps
    torch.testing.assert_close(make.flat(decoder), torch.stack(tail).mean(0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "records", "message"),
    [
        ({}, "labels", "dpo learns from Pair records, got a Label"),
        ({"objective": "kto"}, "pairs", "kto learns from Label records, got a Pair"),
        ({}, "none", "nothing for dpo to learn from in 0 records"),
        ({"tokens_per_batch": 8}, "pairs", "tokens_per_batch is 8"),
    ],
    ids=str,
)
def test_records_that_do_not_fit_are_refused(change, records, message, make, tmp_path):
    given = {"labels": make.labels(4), "pairs": make.pairs(4), "none": []}[records]
    with pytest.raises(ValueError, match=message):
        train_round(make.decoder(), given, [], config(**change), seed=0, folder=tmp_path)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "dop"}, "did you mean dpo"),
        ({"objective": "kto", "label_smoothing": 0.1}, "kto cannot honour label_smoothing"),
        ({"desirable_weight": 2.0}, "dpo cannot honour desirable_weight"),
        ({"objective": "rft", "beta": 0.2}, "rft cannot honour beta"),
        ({"objective": "rft", "nll_weight": 0.0}, "rft is the NLL term alone: nll_weight must be > 0"),
        ({"objective": "rpo", "nll_weight": 0.0}, "rpo is dpo with the NLL term: nll_weight must be > 0"),
        ({"objective": "hinge", "label_smoothing": 0.1}, "hinge cannot honour label_smoothing=0.1: it takes beta"),
        ({"objective": "grpo", "nll_weight": 2.0}, "grpo cannot honour nll_weight=2.0"),
        ({"objective": "dapo", "beta": 0.1}, "dapo cannot honour beta=0.1"),
        ({"objective": "rloo", "groups": GroupSettings(scale="group")}, "rloo cannot honour groups.scale=group"),
        ({"groups": GroupSettings(reward="share")}, "dpo cannot honour groups"),
        ({"objective": "cpo", "moving": MovingSettings(every=2)}, "cpo cannot honour moving.every=2"),
        ({"objective": "grpo", "moving": MovingSettings(every=2)}, "grpo cannot honour moving.every=2"),
        ({"moving": MovingSettings(every=2), "lora": LoraSettings(rank=2)}, "a moving reference follows all weights"),
        ({"objective": "aot", "lora": LoraSettings(rank=2, dropout=0.1)}, "aot passes over a batch twice"),
        ({"replay_weight": -1.0}, "replay_weight must be >= 0"),
        ({"epochs": 0}, "epochs must be >= 1"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        config(**change)


def test_weights_that_are_not_fp32_are_refused(make, tmp_path):
    with pytest.raises(ValueError, match=r"in fp32, got torch.bfloat16: call decoder.float\(\)"):
        train_round(make.decoder().bfloat16(), make.pairs(4), [], config(), seed=0, folder=tmp_path)


def test_a_gradient_that_is_not_finite_stops_before_the_weights(make, tmp_path):
    decoder = make.decoder()
    with torch.no_grad():
        decoder.norm.weight[0] = float("nan")
    before = make.flat(decoder).clone()
    with pytest.raises(FloatingPointError, match="step 1: the gradient's norm is nan"):
        train_round(decoder, make.pairs(4), [], config(), seed=0, folder=tmp_path)
    torch.testing.assert_close(make.flat(decoder), before, equal_nan=True, rtol=0, atol=0)
