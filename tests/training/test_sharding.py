"""Weights in parts over ranks (FSDP2): the step of one process, its checkpoints on any number of ranks, its export."""

from __future__ import annotations

import itertools
import os
import shutil

import pytest
import torch

import plum_models
from plum_core.training import OptimConfig, PreferenceConfig, SftConfig, World, train_round, train_sft
from plum_core.training.batches import cycle
from plum_core.training.checkpoint import PARTS, complete_checkpoints
from plum_core.training.metrics import TIMED
from plum_core.training.sharding import collect, sharded_twin
from plum_models import LoraConfig, add_lora
from tests.training import even
from tests.training.forks import on_ranks

SHARDED = {"shard": "fsdp", "save_every": 2, "keep_last": 9, "average_last": 0.5}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # forks of a process whose pool of threads has run would wait for it
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_class_of_objective_takes_the_step_of_one_process(ranks, tmp_path):
    """Four items a step, one a forward: of three ranks, one does twice what the others do."""
    names = ("rpo", "wpo", "aot", "kto of one chosen", "rft", "grpo")

    def work(world):
        return [even.run(name, tmp_path / "parts" / name, micro=1, world=world, shard="fsdp") for name in names]

    found = on_ranks(tmp_path / "ranks", ranks, work)
    for name, *of_ranks in zip(names, *found, strict=True):
        whole, rows = even.run(name, tmp_path / "whole" / name)
        assert all(torch.equal(of_ranks[0][0], weights) for weights, _ in of_ranks)
        torch.testing.assert_close(of_ranks[0][0], whole, rtol=0, atol=1e-6)
        for one, other in zip(rows, of_ranks[0][1], strict=True):
            for key in one.keys() - set(TIMED):
                assert other[key] == pytest.approx(one[key], rel=1e-5, abs=1e-5), (name, key)


def cut(folder, after):
    """A copy of a run folder as a kill after step ``after`` left it."""
    copy = folder.with_name(f"{folder.name}-{after}-{next(COPIES)}")
    shutil.copytree(folder, copy)
    for path in complete_checkpoints(copy):
        if int(path.name[5:]) > after:
            shutil.rmtree(path)
    return copy


COPIES = itertools.count()


def test_a_checkpoint_goes_on_with_any_number_of_ranks(make, tmp_path):
    alone, result = make.round(tmp_path / "one", changes=SHARDED | {"shard": "none"})

    def run(name, ranks, folder):
        kind = "fsdp" if ranks > 1 else "none"

        def work(world):
            weights, result = make.round(folder, changes=SHARDED | {"shard": kind}, world=world)
            return weights, result.resumed_from

        return on_ranks(tmp_path / f"ranks-{name}", ranks, work)[0]

    two, _ = run("two", 2, tmp_path / "two")
    torch.testing.assert_close(two, alone, rtol=0, atol=1e-6)
    assert (complete_checkpoints(tmp_path / "two")[0] / PARTS).is_dir()
    assert result.steps > 4
    again, begun = run("two again", 2, cut(tmp_path / "two", 4))
    assert begun == 4 and torch.equal(again, two)  # to the last bit
    for name, ranks, start in (("to one", 1, "two"), ("to three", 3, "two"), ("from one", 2, "one")):
        other, begun = run(name, ranks, cut(tmp_path / start, 4))
        assert begun == 4
        torch.testing.assert_close(other, alone, rtol=0, atol=2e-6)


def test_supervised_steps_adapters_and_muon_with_a_copy_a_node(make, tmp_path):
    """What else a step can be made of, on four ranks of two nodes."""
    rank2 = type(PreferenceConfig().lora)(rank=2, alpha=4.0)
    stream = make.examples(30)

    def supervised(name, world, shard, optim):
        decoder = make.decoder()
        config = SftConfig(steps=3, tokens_per_batch=200, micro_batch_tokens=40, shard=shard, optim=optim)
        train_sft(decoder, cycle(stream, 0), config, seed=0, folder=tmp_path / name, world=world)
        return make.flat(decoder)

    def all_three(name, world, shard):
        plain = OptimConfig(learning_rate=3e-3, warmup_steps=0, eps=1e-3)
        muon = OptimConfig(name="muon", learning_rate=3e-3, muon_learning_rate=0.01, warmup_steps=0, eps=1e-3)
        changes = {"shard": shard, "optim": plain, "lora": rank2}
        return [
            supervised(f"{name}-plain", world, shard, plain),
            make.round(tmp_path / f"{name}-lora", changes=changes, world=world)[0],
            supervised(f"{name}-muon", world, shard, muon),
        ]

    def work(world):
        os.environ["LOCAL_WORLD_SIZE"] = "2"
        return all_three("parts", world, "hsdp")

    found = on_ranks(tmp_path / "ranks", 4, work)
    want = all_three("whole", World(), "none")
    start = make.flat(make.decoder())
    for of_rank in found:
        for got, wanted in zip(of_rank[:2], want[:2], strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)
        # Muon orthogonalises in bf16: another order of its sums rounds otherwise
        assert (of_rank[2] - want[2]).norm() < 0.02 * (want[2] - start).norm()


def test_bf16_computes_near_masters_and_steps_in_fp32(make, tmp_path):
    optim = OptimConfig(learning_rate=3e-3, warmup_steps=0, eps=1e-3, weights="bf16-master")
    masters, rows = make.round(tmp_path / "masters", changes={"optim": optim})

    def work(world):
        weights, result = make.round(tmp_path / "parts", changes={"optim": optim, "shard": "fsdp"}, world=world)
        return weights, result.rows

    parts, of_parts = on_ranks(tmp_path / "ranks", 2, work)[0]
    assert parts.dtype == torch.float32 and not torch.equal(parts, parts.bfloat16().float())
    start = make.flat(make.decoder())
    moved = (masters - start).norm()
    assert (parts - masters).norm() < 0.05 * moved
    assert of_parts[0]["loss"] == pytest.approx(rows.rows[0]["loss"], rel=2e-2)


def test_a_rank_holds_its_part_and_the_export_is_whole(make, tmp_path):
    def work(world):
        decoder = make.decoder()
        add_lora(decoder, LoraConfig(rank=2), seed=0)
        plain = make.flat(decoder)
        twin = sharded_twin(decoder, "fsdp", world)
        share = sum(p.to_local().numel() for p in twin.parameters()) / sum(p.numel() for p in twin.parameters())
        with torch.no_grad():
            for p in twin.parameters():
                p.add_(1.0)
        collect(twin, decoder, torch.device("cpu"))
        return share, torch.equal(make.flat(decoder), plain + 1.0), type(decoder).__name__

    shares = on_ranks(tmp_path / "ranks", 2, work)
    assert all(0.4 < share < 0.6 and same and kind == "Decoder" for share, same, kind in shares)
    assert sum(share for share, _, _ in shares) == pytest.approx(1.0)


def test_what_was_trained_in_parts_is_read_by_transformers(make, tmp_path):
    import transformers

    tokenizer = plum_models.Tokenizer.train(["def f(x):\n    return x\n"] * 8, 300)

    def work(world):
        decoder = make.decoder(vocab_size=320)
        config = PreferenceConfig(tokens_per_batch=120, shard="fsdp", optim=OptimConfig(learning_rate=1e-3))
        train_round(decoder, make.pairs(6), [], config, seed=0, folder=tmp_path / "run", world=world)
        if world.is_main:
            plum_models.save(decoder, tokenizer, tmp_path / "export")
        with torch.no_grad():
            return decoder.logits(decoder(torch.arange(12).unsqueeze(0)))

    ours = on_ranks(tmp_path / "ranks", 2, work)[0]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    with torch.no_grad():
        torch.testing.assert_close(model(torch.arange(12).unsqueeze(0)).logits, ours, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_sharded_is_refused(make):
    with pytest.raises(ValueError, match=r"shard = fsdp splits weights over ranks, and there is one: start with torch"):
        sharded_twin(make.decoder(), "fsdp", World())
    with pytest.raises(ValueError, match="shard must be none, fsdp or hsdp, got 'zero'"):
        PreferenceConfig(shard="zero")
    moving = type(PreferenceConfig().moving)(every=2)
    with pytest.raises(ValueError, match=r"shard keeps no second set of weights: set moving\.every to 0"):
        PreferenceConfig(shard="fsdp", moving=moving)
