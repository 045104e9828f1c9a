"""Layers through torch.compile: the weights of a run without it, for every kind of step."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
import torch

import plum_models.compiled
from plum_core.training import OptimConfig, PreferenceConfig, sharding
from tests.training.forks import on_ranks
from tests.training.test_sharding import one_thread  # noqa: F401

CASES = {
    "plain": {},
    "recomputed": {"checkpointing": "full"},
    "matmuls": {"checkpointing": "matmuls"},
    "adapters": {"lora": type(PreferenceConfig().lora)(rank=2, alpha=4.0)},
    "masters": {"optim": OptimConfig(learning_rate=3e-3, warmup_steps=0, eps=1e-3, weights="bf16-master")},
}


@pytest.fixture
def quick(monkeypatch):
    """Graphs without machine code; and nothing of an earlier test."""
    torch._dynamo.reset()
    monkeypatch.setattr(sharding, "compiled", partial(plum_models.compiled.compiled, backend="eager"))


def near(found, wanted, start, name):
    if name == "masters":  # bf16 rounds fused operations less often
        assert (found - wanted).norm() < 0.05 * (wanted - start).norm()
    else:
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("quick")
def test_a_compiled_step_is_the_same_step(make, tmp_path, name):
    wanted, _ = make.round(tmp_path / "plain", changes=CASES[name])
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    found, _ = make.round(tmp_path / "compiled", changes=CASES[name] | {"compile": True})
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before
    near(found, wanted, make.flat(make.decoder()), name)


@pytest.mark.usefixtures("quick")
def test_pieces_are_compiled_once_for_all_layers_and_lengths(make):
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    decoder = make.decoder(num_hidden_layers=5)
    with plum_models.compiled.compiled(decoder, backend="aot_eager"):
        for length in (3, 9, 4, 17):
            ids = torch.arange(length).unsqueeze(0)
            got = decoder(ids)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before == 2
    torch.testing.assert_close(got, decoder(ids))


@pytest.mark.usefixtures("quick")
def test_parts_on_two_ranks_are_compiled(make, tmp_path):
    wanted, _ = make.round(tmp_path / "plain")

    def work(world):
        return make.round(tmp_path / "parts", changes={"shard": "fsdp", "compile": True}, world=world)[0]

    for found in on_ranks(tmp_path / "ranks", 2, work):
        near(found, wanted, None, "parts")


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU; CI has one")
def test_machine_code(make, tmp_path):
    wanted, _ = make.round(tmp_path / "plain")
    found, _ = make.round(tmp_path / "compiled", changes={"compile": True})
    near(found, wanted, None, "machine code")


def test_what_cannot_be_compiled_is_refused(make):
    with pytest.raises(ValueError, match="compile takes whole matrices: set it to false, or tensor_parallel to 1"):
        PreferenceConfig(shard="fsdp", tensor_parallel=2, compile=True)
    sparse = make.decoder(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8, sparse_layers=(0,))
    with (
        pytest.raises(ValueError, match="compile takes dense layers, and this decoder has sparse ones"),
        plum_models.compiled.compiled(sparse),
    ):
        pass
