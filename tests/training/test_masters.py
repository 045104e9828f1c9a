"""bf16 weights with fp32 masters: a step by hand, resume to the bit, what is exported, and what is refused."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch

from plum_core.training import OptimConfig, PreferenceConfig, SftConfig, cycle, train_sft
from plum_core.training.logps import completion_logps
from plum_core.training.masters import Masters
from plum_core.training.preference_config import LoraSettings, MovingSettings

MASTER = OptimConfig(learning_rate=3e-3, warmup_steps=2, schedule="cosine", weights="bf16-master")


def test_a_step_is_adamw_on_fp32_masters_by_hand(make, tmp_path):
    decoder, examples = make.decoder(), make.examples(6)
    first = {n: w.detach().clone() for n, w in decoder.named_parameters()}
    rate, b1, b2, eps, decay = 1e-2, 0.9, 0.99, 1e-8, 0.1
    optim = OptimConfig(
        learning_rate=rate, beta1=b1, beta2=b2, eps=eps, weight_decay=decay, warmup_steps=0, clip_norm=math.inf,
        weights="bf16-master",
    )  # fmt: skip
    rounded = copy.deepcopy(decoder).to(torch.bfloat16)
    settings = SftConfig(steps=2, tokens_per_batch=10_000, window=3, optim=optim)
    train_sft(decoder, iter(examples), settings, seed=0, folder=tmp_path)

    scored = sum(len(e.completion_ids) for e in examples[:3])
    moments = {n: [torch.zeros_like(w), torch.zeros_like(w)] for n, w in first.items()}
    for step, batch in enumerate((examples[:3], examples[3:]), 1):
        scored = sum(len(e.completion_ids) for e in batch)
        rounded.zero_grad()
        (-completion_logps(rounded, sorted(batch, key=len)).sum() / scored).backward()
        with torch.no_grad():
            for name, weight in rounded.named_parameters():
                gradient, (m, v) = weight.grad.float(), moments[name]
                m.mul_(b1).add_(gradient, alpha=1 - b1)
                v.mul_(b2).add_(gradient**2, alpha=1 - b2)
                first[name] *= 1 - rate * decay
                first[name] -= rate * (m / (1 - b1**step)) / ((v / (1 - b2**step)).sqrt() + eps)
                weight.copy_(first[name])
    for name, weight in decoder.named_parameters():
        assert weight.dtype == torch.float32
        # a gradient summed in another order may round to the next bf16: a step of one weight then differs by 1 %
        torch.testing.assert_close(weight, first[name], atol=2 * rate * 2**-6, rtol=1e-6)
    exact = sum(int(torch.isclose(w, first[n], atol=1e-6).sum()) for n, w in decoder.named_parameters())
    assert exact > 0.98 * sum(w.numel() for w in decoder.parameters())


def test_micro_batches_are_summed_in_fp32(make):
    decoder = make.decoder()
    masters = Masters(decoder)
    weight, master = masters.pairs["norm.weight"]
    for value in (1.0, 2**-10, 2**-10):  # the small ones would be lost in bf16
        (weight * value).float().sum().backward()
    assert weight.grad is None and master.grad.dtype == torch.float32
    assert torch.equal(master.grad, torch.full_like(master, 1.0 + 2**-9))


def test_small_steps_are_not_lost(make, tmp_path):
    decoder = make.decoder()
    before = {n: w.detach().clone() for n, w in decoder.named_parameters()}
    optim = OptimConfig(learning_rate=1e-6, warmup_steps=0, weights="bf16-master")
    train_sft(decoder, cycle(make.examples(4), 0), SftConfig(steps=3, optim=optim), seed=0, folder=tmp_path)
    moved = (decoder.norm.weight - before["norm.weight"]).abs()
    assert 0 < moved.max() <= 4e-6  # weights near one, whose bf16 neighbours lie 0.4 and 0.8 % away


class Killed(BaseException):
    pass


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_a_round_resumes_to_the_bit(make, tmp_path, objective):
    changes = {"optim": MASTER, "micro_batch_tokens": 60}
    whole, result = make.round(tmp_path / "whole", objective, changes=changes)
    calls = itertools.count(1)

    def strike(_):
        if next(calls) in (2, 6):
            raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            make.round(tmp_path / "killed", objective, changes=changes, on_metrics=strike)
    resumed, again = make.round(tmp_path / "killed", objective, changes=changes)
    assert again.resumed_from == 3 and again.steps == result.steps
    assert resumed.dtype == torch.float32 and torch.equal(resumed, whole)
    plain, _ = make.round(tmp_path / "plain", objective)
    assert not torch.equal(resumed, plain)
    assert not torch.equal(resumed, resumed.bfloat16().float())  # the masters, not what was rounded from them


def test_the_first_loss_of_dpo_is_that_of_no_difference(make, tmp_path):
    _, result = make.round(tmp_path, "dpo", changes={"optim": MASTER, "nll_weight": 0.0, "replay_weight": 0.0})
    assert result.rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_what_it_cannot_honour_is_refused(make):
    with pytest.raises(ValueError, match=r"bf16-master cannot honour lora\.rank=4"):
        PreferenceConfig(optim=MASTER, lora=LoraSettings(rank=4))
    with pytest.raises(ValueError, match=r"bf16-master cannot honour moving\.every=3"):
        PreferenceConfig(optim=MASTER, moving=MovingSettings(every=3))
    with pytest.raises(ValueError, match="weights must be fp32 or bf16-master, got 'bf16'"):
        OptimConfig(weights="bf16")
    with pytest.raises(ValueError, match=r"masters of fp32 weights, but embed_tokens\.weight is torch\.bfloat16"):
        Masters(make.decoder().to(torch.bfloat16))
    frozen = make.decoder()
    frozen.norm.weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"norm\.weight is frozen"):
        Masters(frozen)
