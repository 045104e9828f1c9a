"""Killed at any step and called again: the same weights to the last bit. Two ranks: the same as one."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from plum_core.training import OptimConfig, SftConfig, cycle, train_sft
from plum_core.training.checkpoint import complete_checkpoints
from plum_core.training.metrics import TIMED

ROOT = Path(__file__).resolve().parents[2]


class Killed(BaseException):
    pass


def strike(after):
    """An ``on_metrics`` that dies after that many calls."""
    calls = itertools.count(1)

    def on_metrics(row):
        if next(calls) == after:
            raise Killed

    return on_metrics


def untimed(rows):
    return [{k: v for k, v in row.items() if k not in TIMED} for row in rows]


@pytest.mark.parametrize(
    ("objective", "optimizer"), [("dpo", "adamw"), ("dpo", "muon"), ("kto", "adamw"), ("rft", "adamw")]
)
def test_a_round_resumes_to_the_bit(make, tmp_path, objective, optimizer):
    whole, result = make.round(tmp_path / "whole", objective, optimizer)
    assert result.steps >= 6
    for after in (1, 2, 2, 4):  # the same folder: killed again and again
        with pytest.raises(Killed):
            make.round(tmp_path / "killed", objective, optimizer, on_metrics=strike(after))
    resumed, again = make.round(tmp_path / "killed", objective, optimizer)
    assert again.resumed_from == 3
    assert torch.equal(resumed, whole)
    assert untimed(again.rows) == untimed(result.rows)
    finished, idle = make.round(tmp_path / "killed", objective, optimizer)  # nothing is left to do
    assert idle.resumed_from == idle.steps and torch.equal(finished, whole)
    assert len(complete_checkpoints(tmp_path / "killed")) == 2


def test_another_rounds_checkpoints_are_refused(make, tmp_path):
    make.round(tmp_path)
    with pytest.raises(ValueError, match="belongs to other data, weights or settings"):
        make.round(tmp_path, objective="rft")


def sft_of(make, folder, **options):
    decoder = make.decoder()
    settings = SftConfig(steps=9, tokens_per_batch=60, window=16, save_every=2, average_last=0.4)
    result = train_sft(decoder, cycle(make.examples(20), seed=4), settings, seed=2, folder=folder, **options)
    return make.flat(decoder), result


def test_supervised_training_resumes_to_the_bit(make, tmp_path):
    whole, result = sft_of(make, tmp_path / "whole")
    with pytest.raises(Killed):
        sft_of(make, tmp_path / "killed", on_metrics=strike(5))
    resumed, again = sft_of(make, tmp_path / "killed")
    assert again.resumed_from == 4 and torch.equal(resumed, whole)
    assert untimed(again.rows) == untimed(result.rows)


def test_supervised_training_learns(make, tmp_path):
    decoder = make.decoder()
    settings = SftConfig(steps=60, tokens_per_batch=200, optim=OptimConfig(learning_rate=2e-2), score_prompt=True)
    rows = train_sft(decoder, cycle(make.examples(8), seed=0), settings, seed=0, folder=tmp_path).rows
    assert rows[-1]["nll"] < 0.5 * rows[0]["nll"]


def test_a_stream_that_ends_early_is_refused(make, tmp_path):
    with pytest.raises(ValueError, match="the examples ended before step 2 of 5"):
        train_sft(make.decoder(), make.examples(3), SftConfig(steps=5), seed=0, folder=tmp_path)


# A process of its own: a real SIGKILL, and real ranks. Arguments: folder, objectives, step to die after (0: none).
SCRIPT = """
import itertools, os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {here!r})
import conftest
from plum_core.training import init_world
folder, objectives, die = Path(sys.argv[1]), sys.argv[2].split(), int(sys.argv[3])
calls = itertools.count(1)
def on_metrics(row):
    if next(calls) == die:
        os.kill(os.getpid(), signal.SIGKILL)
world = init_world()
for objective in objectives:
    weights, result = conftest.run_round(folder / objective, objective, on_metrics=on_metrics, world=world)
    torch.save([weights, result.rows], folder / f"{{objective}}-rank{{world.rank}}.pt")
world.close()
"""


def start(folder, objectives="dpo", die=0, rank=None, port=0):
    folder.mkdir(exist_ok=True)
    paths = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "models")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    if rank is not None:
        env |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    script = SCRIPT.format(here=str(Path(__file__).parent))
    return subprocess.Popen([sys.executable, "-c", script, str(folder), objectives, str(die)], env=env)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_sigkill_then_the_same_command(make, tmp_path):
    whole, result = make.round(tmp_path / "whole")
    killed = tmp_path / "killed"
    assert start(killed, die=5).wait(60) == -signal.SIGKILL
    assert not (killed / "dpo-rank0.pt").exists()
    assert start(killed).wait(60) == 0
    weights, rows = torch.load(killed / "dpo-rank0.pt")
    assert torch.equal(weights, whole) and untimed(rows) == untimed(result.rows)


def test_two_ranks_equal_one(make, tmp_path):
    port = free_port()
    ranks = [start(tmp_path / "two", "dpo kto", rank=rank, port=port) for rank in range(2)]
    assert [p.wait(90) for p in ranks] == [0, 0]
    for objective in ("dpo", "kto"):
        alone, result = make.round(tmp_path / objective, objective)
        both = [torch.load(tmp_path / "two" / f"{objective}-rank{rank}.pt") for rank in range(2)]
        assert torch.equal(both[0][0], both[1][0])  # the ranks hold the same weights
        torch.testing.assert_close(both[0][0], alone, rtol=0, atol=1e-6)
        for a, b in zip(untimed(both[0][1]), untimed(result.rows), strict=True):
            assert a == pytest.approx(b, rel=1e-4, abs=1e-4)
