"""Checkpoints: complete or absent, the newest wins, old ones go."""

from __future__ import annotations

import contextlib

import pytest
import torch

from plum_core.training import checkpoint as module
from plum_core.training.checkpoint import Checkpoint, complete_checkpoints, load_checkpoint, save_checkpoint


def make_checkpoint(step):
    return Checkpoint(step=step, tensors={"weights": {"w": torch.full((3,), float(step))}}, meta={"rows": [step]})


def test_round_trip_and_keep_last(tmp_path):
    assert load_checkpoint(tmp_path) is None
    for step in (1, 2, 3, 1_000_000):
        save_checkpoint(tmp_path, make_checkpoint(step), keep_last=2)
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["step-000003", "step-1000000"]
    found = load_checkpoint(tmp_path)
    assert found.step == 1_000_000 and found.meta == {"rows": [1_000_000]}
    assert found.tensors["weights"]["w"].tolist() == [1e6] * 3


def test_a_folder_without_its_marker_is_not_a_checkpoint(tmp_path):
    save_checkpoint(tmp_path, make_checkpoint(1), keep_last=2)
    newer = save_checkpoint(tmp_path, make_checkpoint(2), keep_last=2)
    (newer / "COMPLETE").unlink()
    assert load_checkpoint(tmp_path).step == 1
    save_checkpoint(tmp_path, make_checkpoint(2), keep_last=2)  # and it can be written again
    assert load_checkpoint(tmp_path).step == 2


@pytest.mark.parametrize("where", ["save_file", "_sync", "shutil"])
@pytest.mark.parametrize("nth", [0, 1, 3])
def test_death_while_saving_leaves_the_last_one(tmp_path, monkeypatch, where, nth):
    """Whatever call the writer dies in, a complete checkpoint is there, and the next save clears the remains."""
    for step in (1, 2):
        save_checkpoint(tmp_path, make_checkpoint(step), keep_last=2)
    calls = iter(range(100))

    class Death(BaseException):
        pass

    def dying(real):
        def call(*args, **kwargs):
            if next(calls) == nth:
                raise Death
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        if where == "shutil":
            patch.setattr(module.shutil, "rmtree", dying(module.shutil.rmtree))
        else:
            patch.setattr(module, where, dying(getattr(module, where)))
        with contextlib.suppress(Death):
            save_checkpoint(tmp_path, make_checkpoint(3), keep_last=2)
    assert load_checkpoint(tmp_path).step in (2, 3)
    save_checkpoint(tmp_path, make_checkpoint(4), keep_last=1)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000004"]
