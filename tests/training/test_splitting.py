"""Tensor parallelism: the step of one process on a grid of ranks, its checkpoints, and what cannot be split."""

from __future__ import annotations

import os

import pytest
import torch
from torch.distributed.tensor import DTensor

from plum_core.training import OptimConfig, PreferenceConfig, SftConfig, World, train_sft
from plum_core.training.batches import cycle
from plum_core.training.checkpoint import complete_checkpoints
from plum_core.training.metrics import TIMED
from plum_core.training.sharding import clip, collect, sharded_twin
from tests.training import even
from tests.training.forks import on_ranks
from tests.training.test_sharding import cut, one_thread  # noqa: F401
from tests.training.test_stop import struck_round, told_to_stop

SPLIT = {"shard": "fsdp", "tensor_parallel": 2}


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_class_of_objective_takes_the_step_of_one_process(ranks, tmp_path):
    """On two ranks each item is every rank's, on four ranks two rows share them; wpo asks for all of the vocabulary."""
    names = ("rpo", "wpo", "aot", "kto of one chosen", "rft", "grpo")

    def work(world):
        return [even.run(name, tmp_path / "parts" / name, micro=1, world=world, **SPLIT) for name in names]

    found = on_ranks(tmp_path / "ranks", ranks, work)
    for name, *of_ranks in zip(names, *found, strict=True):
        whole, rows = even.run(name, tmp_path / "whole" / name)
        assert all(torch.equal(of_ranks[0][0], weights) for weights, _ in of_ranks)
        torch.testing.assert_close(of_ranks[0][0], whole, rtol=0, atol=1e-6)
        for one, other in zip(rows, of_ranks[0][1], strict=True):
            for key in one.keys() - set(TIMED):
                assert other[key] == pytest.approx(one[key], rel=1e-5, abs=1e-5), (name, key)


def test_a_checkpoint_goes_on_with_another_grid(make, tmp_path):
    changes = {"save_every": 2, "keep_last": 9, "average_last": 0.5}
    alone, _ = make.round(tmp_path / "one", changes=changes)

    def run(name, ranks, folder, **more):
        def work(world):
            weights, result = make.round(folder, changes=changes | more, world=world)
            return weights, result.resumed_from

        return on_ranks(tmp_path / f"ranks-{name}", ranks, work)[0]

    grid, _ = run("grid", 4, tmp_path / "grid", **SPLIT)
    torch.testing.assert_close(grid, alone, rtol=0, atol=1e-6)
    again, begun = run("again", 4, cut(tmp_path / "grid", 4), **SPLIT)
    assert begun == 4 and torch.equal(again, grid)  # to the last bit
    for name, ranks, start, more in (
        ("to one row", 2, "grid", SPLIT),
        ("to parts alone", 2, "grid", {"shard": "fsdp"}),
        ("to one", 1, "grid", {}),
        ("from one", 4, "one", SPLIT),
    ):
        other, begun = run(name, ranks, cut(tmp_path / start, 4), **more)
        assert begun == 4
        torch.testing.assert_close(other, alone, rtol=0, atol=2e-6)


def test_a_signal_to_one_rank_of_a_row_stops_all_after_the_same_step(make, tmp_path):
    folder = tmp_path / "run"

    def told(world):  # the second rank of its row, whose metrics nobody counts
        return struck_round(make, folder, world, told_to_stop, rank=1, changes=SPLIT)

    assert on_ranks(folder, 4, told) == [None] * 4
    assert complete_checkpoints(folder)[-1].name == "step-000005"


LAYOUTS = {
    "untied": {},
    "tied": {"tie_word_embeddings": True},
    "biases": {"mlp_bias": True, "gated_mlp": False, "norm": "layer"},
    "bf16": {},
}


def test_layouts_and_optimizers_with_a_copy_a_node(make, tmp_path):
    """Eight ranks as two nodes: rows of two, parts of two, copies of two."""
    stream = make.examples(30)

    def supervised(folder, layout, world, **more):
        decoder = make.decoder(**LAYOUTS[layout])
        rates = {"learning_rate": 3e-3, "muon_learning_rate": 0.01, "warmup_steps": 0, "eps": 1e-3, "clip_norm": 0.1}
        weights = "bf16-master" if layout == "bf16" else "fp32"
        optim = OptimConfig(name=more.pop("name", "adamw"), weights=weights, **rates)
        config = SftConfig(steps=3, tokens_per_batch=200, micro_batch_tokens=40, optim=optim, **more)
        result = train_sft(decoder, cycle(stream, 0), config, seed=0, folder=folder, world=world)
        return make.flat(decoder), [row["grad_norm"] for row in result.rows]

    def every(name, world, **more):
        found = {layout: supervised(tmp_path / f"{name}-{layout}", layout, world, **more) for layout in LAYOUTS}
        return found | {"muon": supervised(tmp_path / f"{name}-muon", "untied", world, name="muon", **more)}

    def work(world):
        os.environ["LOCAL_WORLD_SIZE"] = "4"
        return every("parts", world, shard="hsdp", tensor_parallel=2)

    found = on_ranks(tmp_path / "ranks", 8, work)
    want = every("whole", World())
    for of_rank in found:
        for name, (weights, norms) in want.items():
            got, got_norms = of_rank[name]
            assert torch.equal(got, found[0][name][0])
            start = make.flat(make.decoder(**LAYOUTS.get(name, {})))
            if name in ("bf16", "muon"):  # both round to bf16, in another order of sums
                assert (got - weights).norm() < 0.05 * (weights - start).norm(), name
            else:
                torch.testing.assert_close(got, weights, rtol=0, atol=1e-6, msg=name)
                assert got_norms == pytest.approx(norms, rel=1e-5)


def test_a_rank_holds_its_part_and_a_norm_is_that_of_the_whole(make, tmp_path):
    def work(world):
        decoder = make.decoder()
        plain = make.flat(decoder)
        twin = sharded_twin(decoder, "fsdp", world, tensor_parallel=2)
        share = sum(p.to_local().numel() for p in twin.parameters()) / len(plain)
        halves = sum(p.to_local().numel() for n, p in twin.named_parameters() if "mlp" in n or "lm_head" in n)
        for p in twin.parameters():
            p.grad = p.detach().clone()
        norm = clip(list(twin.parameters()), 1.0)
        clipped = torch.cat([whole_of(p.grad).flatten() for p in twin.parameters()])
        collect(twin, decoder, torch.device("cpu"))
        return share, halves, norm, clipped, torch.equal(make.flat(decoder), plain)

    decoder = make.decoder()
    norm = make.flat(decoder).norm()
    split = sum(p.numel() for n, p in decoder.named_parameters() if "mlp" in n or "lm_head" in n)
    for share, halves, got, clipped, same in on_ranks(tmp_path, 4, work):
        assert same and 0.2 < share < 0.45 and halves == split / 4
        assert got == pytest.approx(float(norm), rel=1e-6)
        torch.testing.assert_close(clipped, torch.cat([p.flatten() for p in decoder.parameters()]) / (norm + 1e-6))


def whole_of(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def test_what_cannot_be_split_is_refused(make, tmp_path):
    with pytest.raises(ValueError, match=r"tensor_parallel = 2 goes with a shard of fsdp or hsdp: set one"):
        PreferenceConfig(tensor_parallel=2)
    with pytest.raises(ValueError, match="tensor_parallel must be at least 1, got 0"):
        SftConfig(steps=1, tensor_parallel=0)
    lora = type(PreferenceConfig().lora)(rank=2, alpha=4.0)
    with pytest.raises(ValueError, match=r"splits plain matrices: set lora\.rank to 0, or tensor_parallel to 1"):
        PreferenceConfig(shard="fsdp", tensor_parallel=2, lora=lora)

    def work(world):
        said = []
        for changes, count in (({"vocab_size": 49}, 2), ({"intermediate_size": 31}, 2), ({}, 3)):
            with pytest.raises(ValueError) as problem:
                sharded_twin(make.decoder(**changes), "fsdp", world, tensor_parallel=count)
            said.append(str(problem.value))
        return said

    for said in on_ranks(tmp_path, 2, work):
        assert said == [
            "tensor_parallel = 2 must divide vocab_size, which is 49",
            "tensor_parallel = 2 must divide intermediate_size, which is 31",
            "tensor_parallel = 3 must divide the 2 ranks that share weights",
        ]
