"""SIGTERM saves and ends with status 0; kill -9 at random moments; a rank that dies takes the job with it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from plum_core.training.checkpoint import complete_checkpoints
from plum_core.training.options import StepOptions, best_score
from plum_core.training.preference_step import Round
from plum_core.training.stop import Stopped, deferred, ends_on_sigterm, stop_asked
from tests.training.forks import on_ranks

ROOT = Path(__file__).resolve().parents[2]
PATHS = {"PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in ("", "kernels", "models", "runners"))}
ENV = os.environ | PATHS | {"OMP_NUM_THREADS": "1"}


def struck_round(make, folder, world, strike=None, rank=0, changes=None):
    """A round that is struck on ``rank`` in its fifth step."""
    gradients = Round.__call__

    def call(self, step):
        if step == 4 and world.rank == rank and strike:
            strike()
        return gradients(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Round, "__call__", call)
        weights, result = make.round(folder, world=world, changes=changes)
    return weights, result.resumed_from


def told_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_saves_the_step_in_hand_and_the_same_call_goes_on(make, tmp_path):
    whole, _ = make.round(tmp_path / "whole")
    folder, began = tmp_path / "run", time.monotonic()
    assert on_ranks(folder, 1, lambda world: struck_round(make, folder, world, told_to_stop)) == [None]
    assert time.monotonic() - began < 30
    assert [p.name for p in complete_checkpoints(folder)] == ["step-000003", "step-000005"]  # 5: saved by the signal
    [(weights, resumed_from)] = on_ranks(folder, 1, lambda world: struck_round(make, folder, world))
    assert resumed_from == 5 and torch.equal(weights, whole)


def test_two_ranks_stop_after_the_same_step_and_resume_on_two_or_one(make, tmp_path):
    """Resumed on two ranks, the weights are those of an undisturbed run to the bit; on one, to 1e-6."""
    folder, whole = tmp_path / "run", tmp_path / "whole"
    (wanted, _), _ = on_ranks(whole, 2, lambda world: struck_round(make, whole, world))
    stopped = on_ranks(folder, 2, lambda world: struck_round(make, folder, world, told_to_stop, rank=1))
    assert stopped == [None, None]  # rank 1 alone was told
    assert complete_checkpoints(folder)[-1].name == "step-000005"
    shutil.copytree(folder, tmp_path / "one")
    (found, resumed_from), _ = on_ranks(folder, 2, lambda world: struck_round(make, folder, world))
    assert resumed_from == 5 and torch.equal(found, wanted)
    alone, result = make.round(tmp_path / "one")
    assert result.resumed_from == 5
    torch.testing.assert_close(alone, wanted, rtol=0, atol=1e-6)


SCRIPT = """
import sys
from pathlib import Path
import torch
from types import SimpleNamespace
sys.path[:0] = [{root!r}, {here!r}]
import conftest
from plum_core.training import init_world, world_size
from plum_core.training.stop import ends_on_sigterm
from tests.training.test_stop import struck_round
def bug():
    raise KeyError("a bug in a step")
with ends_on_sigterm(world_size()):
    changes = {{"shard": sys.argv[2]}}
    make, folder = SimpleNamespace(round=conftest.run_round), Path(sys.argv[1])
    struck_round(make, folder, init_world(), bug, rank=1, changes=changes)
"""


@pytest.mark.parametrize("shard", ["none", "fsdp"])
def test_a_dead_rank_ends_the_job_within_a_minute_with_its_traceback(shard, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT), here=str(Path(__file__).parent)))
    command = [sys.executable, str(ROOT / "runners/launch.py"), "2", str(script), str(tmp_path / "run"), shard]
    began = time.monotonic()
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 1 and time.monotonic() - began < 60
    assert "KeyError: 'a bug in a step'" in done.stderr and "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: process 1 of script.py ended with exit status 1")


def test_kills_at_random_moments_change_no_bit():
    script = ROOT / "plum_core/training/benchmarks/kills.py"
    command = [sys.executable, str(script), "--times", "3", "--pairs", "30"]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(done.stdout)
    assert found["wrong"] == [] and found["strikes"] == 3 and found["runs_finished"] >= 1


def test_outside_training_the_signal_ends_the_block_at_once(monkeypatch):
    from plum_core.training import stop

    monkeypatch.setattr(stop, "_signal", stop._Signal())
    monkeypatch.setattr(stop.threading.Timer, "start", lambda self: None)
    before, reached = signal.getsignal(signal.SIGTERM), []
    try:
        with ends_on_sigterm():
            with deferred():
                told_to_stop()
                reached.append("noted")
                assert stop_asked()
            raise Stopped
        monkeypatch.setattr(stop, "_signal", stop._Signal())
        with ends_on_sigterm():
            told_to_stop()
            reached.append("never")
        assert reached == ["noted"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_errors_are_not_swallowed():
    with pytest.raises(RuntimeError, match="ours"), ends_on_sigterm():
        raise RuntimeError("ours")


def test_the_best_checkpoint_stays(make, tmp_path):
    _, result = make.round(tmp_path, changes={"keep_best": "max:loss", "save_every": 1, "keep_last": 1})
    losses = [row["loss"] for row in result.rows]
    best = losses.index(max(losses)) + 1
    assert best < len(losses), "the best must be an old one for the test to say anything"
    assert [p.name for p in complete_checkpoints(tmp_path)] == [f"step-{s:06d}" for s in (best, len(losses))]


def test_a_rule_that_names_nothing_is_refused():
    with pytest.raises(ValueError, match="keep_best must be max:FIGURE or min:FIGURE"):
        StepOptions(keep_best="loss")
    with pytest.raises(ValueError, match="no step has the figure 'los'; name one of loss"):
        best_score("min:los", [{"loss": 1.0}])
    assert best_score("min:loss", [{"loss": 1.0}, {"loss": 3.0}]) == -2.0
