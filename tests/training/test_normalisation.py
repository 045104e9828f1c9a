"""Four micro-batches of one, one of four and two ranks of two: the same steps, whatever is averaged over what."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from plum_core.objectives import OBJECTIVES
from plum_core.training.metrics import TIMED
from tests.training import even

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> Path:
    """What two gloo ranks left of every case."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "kernels", "models"))
    env = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = [sys.executable, str(ROOT / "tests/training/even.py"), str(folder), *even.CASES]
    started = [subprocess.Popen(words, env=env | {"RANK": str(rank)}) for rank in range(2)]
    assert [p.wait(100) for p in started] == [0, 0]
    return folder


@pytest.mark.parametrize("name", even.CASES)
def test_the_same_step_in_parts_and_on_ranks(name, ranks, tmp_path):
    whole, rows = even.run(name, tmp_path / "whole")
    assert len(rows) == even.STEPS
    parts, in_parts = even.run(name, tmp_path / "parts", micro=1)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)
    both = [torch.load(ranks / f"{name}-{rank}.pt") for rank in range(2)]
    assert torch.equal(both[0][0], both[1][0])  # the ranks hold the same weights
    torch.testing.assert_close(both[0][0], whole, rtol=0, atol=1e-6)
    for one, a, b in zip(rows, in_parts, both[0][1], strict=True):
        for key in one.keys() - set(TIMED):
            assert a[key] == pytest.approx(one[key], rel=1e-5, abs=1e-5), key
            assert b[key] == pytest.approx(one[key], rel=1e-5, abs=1e-5), key


def test_the_comparison_can_fail(tmp_path, monkeypatch):
    """A likelihood that weighs a thousandth more is seen."""
    whole, _ = even.run("kto", tmp_path / "whole")
    monkeypatch.setitem(even.CASES, "kto", {"nll_weight": 2.0 + 1e-3})
    other, _ = even.run("kto", tmp_path / "other")
    assert (other - whole).abs().max() > 1e-6


def test_a_rank_without_a_chosen_completion_was_among_them():
    labels = [r.label for r in even.records_of("kto of one chosen", "kto")]
    assert sum(labels) == 1  # so every step has a rank without, and all but one have none at all


def test_every_class_of_objective_is_there():
    used = [OBJECTIVES[case.get("objective", name)] for name, case in even.CASES.items()]
    assert {spec.data for spec in used} == {spec.data for spec in OBJECTIVES.values()}
    assert {need for spec in used for need in spec.needs} == {n for s in OBJECTIVES.values() for n in s.needs}
    assert any(spec.coupled for spec in used) and any(spec.weigh for spec in used)
